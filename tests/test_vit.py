"""Laws of the vision transformer. Oracles: a strided convolution, torch's unfold and encoder layer, known counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import PRESETS, ViTConfig
from tinytrans.models import load_model
from tinytrans.models.vit import ViT, patchify, unpatchify

TINY = ViTConfig(image_size=6, patch_size=2, n_channels=4, n_classes=7, n_layers=2, d_model=12, n_heads=3)
B, C, P, D = 5, 4, 2, 12


def pictures(height: int = 6, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(B, C, height, width, generator=generator, dtype=torch.float64)


def model(**changes: Any) -> ViT:
    """A model in float64 whose every part counts."""
    torch.manual_seed(0)
    vit = ViT(replace(TINY, **changes)).double().eval()
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.5)
    return vit


def test_has_its_number_of_parameters() -> None:
    """ViT-B/16 with 1000 classes has 86,567,656 parameters."""
    with torch.device("meta"):
        assert ViT(PRESETS["vit-b-16"]).n_params == 86_567_656


def test_patches_by_hand() -> None:
    """Two channels of 2 x 4 pixels make two patches; each lists channel by channel, row by row."""
    first = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    patches = patchify(torch.stack((first, first + 10))[None], 2)
    assert patches.tolist() == [[[0, 1, 4, 5, 10, 11, 14, 15], [2, 3, 6, 7, 12, 13, 16, 17]]]


@pytest.mark.parametrize(("height", "width", "size"), [(6, 6, 2), (6, 8, 2), (4, 12, 4), (6, 9, 3), (2, 2, 1)])
def test_patches_are_unfolded(height: int, width: int, size: int) -> None:
    """Patches are what torch's unfold cuts out with a stride of one patch, also of images that are not square."""
    images = pictures(height, width)
    expected = F.unfold(images, kernel_size=size, stride=size).transpose(1, 2)
    assert torch.equal(patchify(images, size), expected)
    assert torch.equal(unpatchify(patchify(images, size), C, height, width), images)


def test_projected_patches_are_a_convolution() -> None:
    """A linear map of the patches is a convolution with a stride of one patch, the rows of the map its kernels."""
    vit, images = model(), pictures()
    kernel = vit.patch.weight.reshape(D, C, P, P)
    expected = F.conv2d(images, kernel, vit.patch.bias, stride=P).flatten(2).transpose(1, 2)
    torch.testing.assert_close(vit.patch(patchify(images, P)), expected)


@pytest.mark.parametrize(("height", "width"), [(7, 6), (6, 9)])
def test_patches_must_fill_the_image(height: int, width: int) -> None:
    """An image that patches do not fill raises ValueError and names both sizes."""
    with pytest.raises(ValueError, match=rf"{height} x {width} .* 2 x 2"):
        patchify(pictures(height, width), 2)
    with pytest.raises(ValueError, match="image_size 7 is not a multiple of patch_size 2"):
        replace(TINY, image_size=7)
    with pytest.raises(ValueError, match=r"\(5, 9, 17\) make no image of 4 x 6 x 6"):
        unpatchify(torch.zeros(5, 9, 17), 4, 6, 6)


def test_other_images_are_refused() -> None:
    """Images of another size or number of channels raise ValueError and name both shapes; so do pixels of 0 ... 255."""
    with pytest.raises(ValueError, match=r"\(5, 4, 8, 6\), not \(B, 4, 6, 6\)"):
        model()(pictures(8))
    with pytest.raises(ValueError, match=r"\(5, 3, 6, 6\), not"):
        model()(pictures()[:, :3])
    with pytest.raises(ValueError, match=r"\(4, 6, 6\), not"):
        model()(pictures()[0])
    with pytest.raises(ValueError, match=r"dtype torch.uint8, .* divide pixels of 0 \.\.\. 255 first"):
        model()(pictures().to(torch.uint8))


def test_is_written_out() -> None:
    """The class token before the patches, positions added to both, torch's pre-norm layers, a norm, a linear map."""
    vit, images = model(norm_eps=0.1), pictures()
    x = torch.cat((vit.cls.expand(B, 1, D), vit.patch(patchify(images, P))), dim=1) + vit.position.weight
    for block in vit.encoder.blocks:
        layer = nn.TransformerEncoderLayer(
            D, 3, 4 * D, 0.0, "gelu", 0.1, batch_first=True, norm_first=True, dtype=torch.float64
        )
        layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias = block.attention.qkv.parameters()
        layer.self_attn.out_proj = block.attention.out
        layer.norm1, layer.norm2 = block.attention_norm, block.feedforward_norm
        layer.linear1, layer.linear2 = block.feedforward.up, block.feedforward.down
        x = layer.train()(x)  # in eval mode torch takes a path of its own, which wants its own norms
    x = F.layer_norm(x, (D,), vit.encoder.norm.weight, vit.encoder.norm.bias, 0.1)
    torch.testing.assert_close(vit.hidden(images), x)
    torch.testing.assert_close(vit(images), x[:, 0] @ vit.head.weight.T + vit.head.bias)


def test_the_class_token_sees_every_patch() -> None:
    """A change of any one pixel changes the logits of that image, and of no other."""
    vit, images = model(), pictures()
    before = vit(images)
    for row in range(6):
        for column in range(6):
            other = images.clone()
            other[2, 1, row, column] += 1
            changed = (vit(other) != before).any(dim=1)
            assert changed.tolist() == [False, False, True, False, False]


def test_places_count() -> None:
    """With positions, patches in another order are another image; without them, they are the same."""
    vit, images = model(), pictures()
    turned = images.flip(2).reshape(B, C, 3, 2, 6).flip(3).reshape(B, C, 6, 6)  # rows of patches in reverse
    assert torch.equal(patchify(turned, P)[:, :3], patchify(images, P)[:, 6:])
    assert not torch.allclose(vit(images), vit(turned))
    vit.position.weight.data[1:] = 0.0
    torch.testing.assert_close(vit(images), vit(turned))


def test_every_parameter_learns() -> None:
    """The logits' gradient reaches every parameter, the class token and every position among them."""
    vit = model()
    vit(pictures()).square().sum().backward()
    idle = [name for name, p in vit.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert (vit.position.weight.grad.abs().sum(dim=1) > 0).all()


def test_the_first_loss_is_ln_of_the_classes() -> None:
    """A new model finds every class about equally likely."""
    torch.manual_seed(0)
    loss = F.cross_entropy(ViT(TINY)(pictures().float()), torch.arange(B))
    assert loss.item() == pytest.approx(torch.tensor(7.0).log().item(), abs=0.1)


def test_is_saved_and_read(tmp_path: Any) -> None:
    """What is written is read back with its every number."""
    vit = model()
    vit.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, ViT)
    assert again.config == vit.config
    assert torch.equal(again(pictures()), vit(pictures()))
