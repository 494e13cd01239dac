"""Multimodal: images (M, C, H, W) and ids (B, T) with room for them -> logits of the next token (B, T, V).

A vision encoder turns each image into N vectors, a projector makes them as wide and as large as embeddings of words,
and there they stand: a decoder reads them as it reads words. The room is N tokens `image_id` for every image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import GPTConfig, MultimodalConfig
from tinytrans.models.gpt import GPT
from tinytrans.models.pretrained import Pretrained
from tinytrans.models.stack import check_ids, may_be_read
from tinytrans.models.vit import ViT
from tinytrans.nn.cache import KVCache
from tinytrans.nn.feedforward import gelu

GELU_SIZE = 0.652  # the root mean square of gelu(x) where x is standard normal


def put_in(x: Tensor, features: Tensor, places: Tensor) -> Tensor:
    """Features take the places of embeddings: x (B, T, D), features (M, N, D), places bool (B, T) -> (B, T, D).

    Row by row, from left to right, the places get the features of the first image, then of the second, ...
    Raises ValueError where there are not as many places as features, or where a row ends in the midst of an image (on a
    GPU, which would have to wait for the answer, nobody looks).

    >>> put_in(torch.zeros(1, 3, 1), torch.tensor([[[7.0], [8.0]]]), torch.tensor([[True, False, True]])).flatten()
    tensor([7., 0., 8.])
    """
    M, N, D = features.shape
    if may_be_read(places):
        check_places(places, M, N)
    order = places.flatten().cumsum(0).sub(1).clamp(0, M * N - 1).view_as(places)  # which feature stands here, if any
    # embedding, not x[places] = ...: neither it nor its gradient has to ask the GPU how many places there are
    return torch.where(places.unsqueeze(-1), F.embedding(order, features.reshape(-1, D)).to(x.dtype), x)


def check_places(places: Tensor, M: int, N: int) -> None:
    """Raise ValueError, naming both numbers, unless places bool (B, T) are room for M whole images of N features."""
    counts = places.sum(dim=1).tolist()
    if sum(counts) != M * N:
        raise ValueError(f"{sum(counts)} placeholders stand for {M * N} features: {M} images of {N} each")
    for row, count in enumerate(counts):
        if count % N:
            raise ValueError(f"row {row} has {count} placeholders, not a multiple of the {N} features of an image")


class Projector(nn.Module):
    """From what an encoder sees to what a decoder reads: (B, N, D_v) -> (B, N, D), through one hidden layer.

    At birth, for inputs of size 1, as a last norm makes them, the outputs have the standard deviation `size`: that of
    the embeddings among which they will stand. Source: Liu et al. 2023 (LLaVA-1.5), section 3.3, arXiv 2310.03744.
    """

    def __init__(self, d_in: int, d_out: int, size: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(d_in, d_out), nn.Linear(d_out, d_out)
        self.init_weights(size)

    def init_weights(self, size: float) -> None:
        """Draw weights under which the outputs are of this size; biases 0."""
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(self.up.in_features))
        nn.init.normal_(self.down.weight, std=size / GELU_SIZE / math.sqrt(self.down.in_features))
        nn.init.zeros_(self.up.bias)
        nn.init.zeros_(self.down.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.down(gelu(self.up(features)))


class Multimodal(Pretrained):
    """A GPT that reads images among its tokens: `model(ids, images)` -> logits.

    A token a patch; the class token stays behind. The decoder is causal among image tokens as among all others: each
    has already seen the whole image within the encoder.
    Source: Liu et al. 2023 (LLaVA), section 4.1, arXiv 2304.08485; a sign in the text for each image: Alayrac et al.
    2022 (Flamingo), arXiv 2204.14198.

    >>> from tinytrans.config import PRESETS
    >>> model = Multimodal(PRESETS["digits-to-words"])
    >>> model(model.in_front(torch.tensor([[1, 2, 3]])), torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 19, 32])
    """

    Config = MultimodalConfig

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__(config)
        self.vision, self.text = ViT(config.vision), GPT(config.text)
        self.vision.head = nn.Identity()  # type: ignore[assignment]  # classes are not asked for
        self.projector = Projector(config.vision.d_model, config.text.d_model, spread(self.text))
        self.vision.requires_grad_(not config.freeze_vision)

    @classmethod
    def of(cls, vision: ViT, text: GPT, *, image_id: int, freeze_vision: bool = True) -> Self:
        """Trained parts, joined by a new projector: their weights are copied; only a ViT's class head is left out."""
        model = cls(
            MultimodalConfig(vision=vision.config, text=text.config, image_id=image_id, freeze_vision=freeze_vision)
        ).to(text.embedding.weight)  # its device and dtype
        seen = {name: weight for name, weight in vision.state_dict().items() if not name.startswith("head.")}
        model.vision.load_state_dict(seen)
        model.text.load_state_dict(text.state_dict())
        model.projector.init_weights(spread(text))
        return model

    def tie(self) -> None:
        """The decoder's head and embedding are one matrix where its config ties them."""
        self.text.tie()

    def as_is(self) -> MultimodalConfig:
        """The config, the decoder's not tied where its head and embedding have come apart."""
        return replace(self.config, text=self.text.as_is())

    def train(self, mode: bool = True) -> Self:
        """As every module's `train`, but a frozen vision encoder stays in eval mode: what it sees does not change."""
        super().train(mode)
        if self.config.freeze_vision:
            self.vision.eval()
        return self

    def forward(
        self,
        ids: Tensor,
        images: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Ids (B, T) and the M images (M, C, H, W) that they have room for -> logits (B, T, V).

        Other arguments as GPT's. With a cache, images come with the ids that have their room, and with no later ones.
        Raises ValueError where the room in the ids is not that of the images, and as GPT and ViT do.
        """
        return self.text.head(self.hidden(ids, images, mask=mask, positions=positions, cache=cache))

    def hidden(
        self,
        ids: Tensor,
        images: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """What the decoder's last norm hands to its head (B, T, D); arguments as in `forward`."""
        check_ids(ids, self.config.text.vocab_size)
        x, places = self.text.embedding(ids), ids == self.config.image_id
        if images is not None:
            x = put_in(x, self.see(images), places)
        elif may_be_read(places):
            check_places(places, 0, self.config.n_image_tokens)
        return self.text.read(x, mask=mask, positions=positions, cache=cache)

    def see(self, images: Tensor) -> Tensor:
        """Images (M, C, H, W) -> what the decoder reads in their place (M, N, D)."""
        return self.projector(self.vision.hidden(images)[:, 1:])

    def in_front(self, ids: Tensor) -> Tensor:
        """Room for one image before each row's text: ids (B, T) -> (B, N + T)."""
        return F.pad(ids, (self.config.n_image_tokens, 0), value=self.config.image_id)

    def given(self, images: Tensor) -> GivenImages:
        """The decoder with these images at hand: `generate(model.given(images), ids, max_new_tokens=20)`."""
        return GivenImages(self, images)

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        """An empty cache for this many sequences of up to max_len positions, those of images counted."""
        return self.text.new_cache(batch, max_len)


class GivenImages:
    """A decoder that knows the images, p(text | images): ids (B, T) with their room -> logits, for `generate`.

    The images are encoded when first needed, and only then. No image is ever said: -inf is the logit of its token.
    All ids must fit max_len: a beginning that is forgotten would take its images along.
    """

    def __init__(self, model: Multimodal, images: Tensor) -> None:
        self.model, self.images = model, images

    @cached_property
    def features(self) -> Tensor:
        """What the decoder reads in the images' places (M, N, D)."""
        return self.model.see(self.images)

    def __call__(
        self,
        ids: Tensor,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        check_ids(ids, self.model.config.text.vocab_size)
        text, x = self.model.text, self.model.text.embedding(ids)
        if cache is None or cache.length == 0:  # later ids are words, and the cache knows the images
            x = put_in(x, self.features, ids == self.model.config.image_id)
        logits = text.head(text.read(x, mask=mask, positions=positions, cache=cache))
        unsaid = torch.arange(logits.shape[-1], device=logits.device) == self.model.config.image_id
        return logits.masked_fill(unsaid, -math.inf)

    @property
    def config(self) -> GPTConfig:
        """The decoder's."""
        return self.model.config.text

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        """An empty cache for this many sequences."""
        return self.model.new_cache(batch, max_len)

    def modules(self) -> Iterator[nn.Module]:
        """The model's parts."""
        return self.model.modules()


def spread(text: GPT) -> float:
    """The standard deviation of a decoder's embeddings."""
    weight = text.embedding.weight
    return 1.0 if weight.is_meta else float(weight.detach().std())  # on the meta device there is nothing to measure
