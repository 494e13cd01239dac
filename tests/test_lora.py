"""Laws of LoRA: a thin correction beside frozen layers, merged and parted without a trace."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from tinytrans.adapters import (
    LoRALinear,
    adapter_state,
    base_only,
    join,
    load_adapter,
    lora,
    merge,
    save_adapter,
    split,
    trainable_parameters,
    unmerge,
    unwrap,
)
from tinytrans.adapters.lora import correction, lora_linear, lora_size, merged_weight
from tinytrans.config import PRESETS, GPTConfig
from tinytrans.models import load_model
from tinytrans.models.gpt import GPT
from tinytrans.nn.attention import Attention

IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 1]])


def small_gpt(**options: object) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=11, n_layers=2, d_model=6, n_heads=3, **options))


def disturb(model: nn.Module) -> nn.Module:
    """Every adapter as if it had been trained: neither A nor B zero."""
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


@pytest.mark.parametrize("targets", [("qkv",), ("qkv", "head")])
def test_a_merged_model_is_saved_and_read(targets: tuple[str, ...], tmp_path: Path) -> None:
    """Merged, unwrapped, saved and read, a model says the same, though its head has parted from its embedding."""
    model = disturb(lora(small_gpt(), rank=2, targets=targets)).eval()
    with pytest.raises(ValueError, match=r"qkv\.(a|base\.weight).* is .* in the model and missing .* unwrapped"):
        model.save_pretrained(tmp_path)
    expected = model(IDS)
    unwrap(merge(model)).save_pretrained(tmp_path)
    again = load_model(tmp_path)
    torch.testing.assert_close(again(IDS), expected)
    assert again.config.tie is ("head" not in targets)


def test_by_hand() -> None:
    """W x + (alpha / r) B A x, worked by hand with alpha other than r: 3 + 3/2 * (2 * 7 + 1 * 2) = 27."""
    x, weight = torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0]])
    a, b = torch.tensor([[1.0, 1.0], [-2.0, 2.0]]), torch.tensor([[2.0, 1.0]])
    assert lora_linear(x, weight, a, b, alpha=3).tolist() == [27.0]
    assert (merged_weight(weight, a, b, alpha=3) @ x).tolist() == [27.0]


def test_starts_as_the_base() -> None:
    """An adapted model begins by computing exactly what its base computes."""
    base = small_gpt()
    expected = base(IDS)
    assert torch.equal(lora(base, rank=3, alpha=5)(IDS), expected)


def test_only_the_adapter_trains() -> None:
    """After `lora` nothing but A and B trains, and every norm, bias and embedding is frozen."""
    model = lora(small_gpt(bias=True), rank=2)
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert names
    assert all(name.endswith((".a", ".b")) for name in names)


def test_both_factors_learn() -> None:
    """At the start B has a gradient and A has none yet; once B has moved, both have one, and the base never."""
    model = lora(small_gpt(), rank=2, targets=("qkv",))
    model(IDS).square().mean().backward()
    layer = model.blocks[0].attention.qkv
    assert layer.b.grad.abs().sum() > 0
    assert layer.a.grad.abs().sum() == 0
    with torch.no_grad():
        layer.b -= layer.b.grad
    model(IDS).square().mean().backward()
    assert layer.a.grad.abs().sum() > 0
    assert layer.base.weight.grad is None


def test_gradients_are_those_of_the_formula() -> None:
    """The gradient of the correction agrees with finite differences in float64."""
    x, a, b = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 5, 4), (3, 4), (6, 3)))
    assert torch.autograd.gradcheck(lambda x, a, b: correction(x, a, b, 7.0), (x, a, b))


def test_rank_divides_alpha() -> None:
    """Twice the rank, each row of A and column of B repeated, is the same layer: hence the division by r."""
    layer = LoRALinear(nn.Linear(4, 3), rank=2, alpha=5.0)
    disturb(layer)
    x = torch.randn(7, 4)
    double = correction(x, layer.a.repeat(2, 1), layer.b.repeat(1, 2), alpha=5.0)
    torch.testing.assert_close(double, correction(x, layer.a, layer.b, alpha=5.0))


def test_merged_is_wrapped() -> None:
    """A merged model computes what the wrapped one computes, and merging twice adds nothing twice."""
    model = disturb(lora(small_gpt().double(), rank=3, alpha=5))
    expected = model(IDS)
    torch.testing.assert_close(merge(model)(IDS), expected)
    torch.testing.assert_close(merge(model)(IDS), expected)


def test_unmerge_leaves_no_rounding() -> None:
    """Merged and unmerged a hundred times, a model has its weights to the last bit."""
    model = disturb(lora(small_gpt(), rank=3, alpha=5))
    before = copy.deepcopy(model.state_dict())
    for _ in range(100):
        unmerge(merge(model))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_state_dict_does_not_know_of_merging() -> None:
    """The state dict of a merged model is that of the unmerged one: loading it adds no correction twice."""
    model = disturb(lora(small_gpt(), rank=2))
    expected, parted = model(IDS), copy.deepcopy(model.state_dict())
    merged = copy.deepcopy(merge(model).state_dict())
    assert parted.keys() == merged.keys()
    assert all(torch.equal(parted[name], merged[name]) for name in parted)
    model.load_state_dict(merged)
    assert torch.equal(model(IDS), expected)


def test_tied_weights_stay_apart() -> None:
    """Merging an adapted head leaves the embedding that shares its matrix alone, and unmerging ties them again."""
    model = disturb(lora(small_gpt(tie=True), rank=2, targets=("head",)))
    embedding, expected = model.embedding.weight.clone(), model(IDS)
    merge(model)
    assert torch.equal(model.embedding.weight, embedding)
    torch.testing.assert_close(model(IDS), expected)
    unmerge(model)
    assert model.head.base.weight is model.embedding.weight


def test_a_layer_in_two_places_has_one_adapter() -> None:
    """A layer that a model holds twice gets one adapter, the same in both places."""
    shared = nn.Linear(4, 4)
    model = lora(nn.Sequential(shared, nn.ReLU(), shared), rank=2, targets=("0",))
    assert model[0] is model[2]
    assert trainable_parameters(model) == (16, 36)


def test_dropout_only_while_training() -> None:
    """Dropout falls on the correction's input in training, never on the base, in eval mode or in merged weights."""
    layer = LoRALinear(nn.Linear(40, 3), rank=2, dropout=0.5)
    disturb(layer)
    x = torch.randn(5, 40)
    exact = F.linear(x, layer.weight, layer.bias)
    assert not torch.allclose(layer(x), exact)
    torch.testing.assert_close(layer.eval()(x), exact)
    layer.train().merge()
    torch.testing.assert_close(layer(x), exact)
    layer.unmerge()
    nn.init.zeros_(layer.b)
    assert torch.equal(layer(x), layer.base(x))


def test_cross_attention_reads_the_adapted_weight() -> None:
    """A cross-attention, which takes the rows of `qkv.weight` apart, computes and learns with the adapter."""
    torch.manual_seed(0)
    attention = Attention(6, 2)
    x, memory = torch.randn(2, 3, 6), torch.randn(2, 4, 6)
    base = attention(x, memory)
    model = disturb(lora(attention, rank=2, targets=("qkv",)))
    wrapped = model(x, memory)
    assert not torch.allclose(wrapped, base)
    wrapped.sum().backward()
    assert model.qkv.a.grad.abs().sum() > 0
    torch.testing.assert_close(merge(model)(x, memory), wrapped)


def test_unwrapped_model_is_plain() -> None:
    """Unwrapped, a model has its old names and trains whole: merged with the adapter in it, else as the base was."""
    base = small_gpt()
    names, expected = list(base.state_dict()), base(IDS)
    model = disturb(lora(copy.deepcopy(base), rank=2))
    adapted = model(IDS)
    plain = unwrap(copy.deepcopy(model))
    assert list(plain.state_dict()) == names
    assert torch.equal(plain(IDS), expected)
    shipped = unwrap(merge(model))
    assert all(weight.requires_grad for weight in shipped.parameters())
    torch.testing.assert_close(shipped(IDS), adapted)


def test_base_only() -> None:
    """Within `base_only` a model is its own reference; afterwards, even after an error, it is adapted again."""
    model = small_gpt()
    expected = model(IDS)
    disturb(lora(model, rank=2))
    adapted = model(IDS)
    with base_only(model):
        assert torch.equal(model(IDS), expected)
        with base_only(model):
            pass
        assert torch.equal(model(IDS), expected)  # one within the other ends with the other
    with pytest.raises(ValueError, match="ids"), base_only(model):
        model(IDS[0])
    assert torch.equal(model(IDS), adapted)
    with pytest.raises(ValueError, match="unmerge"), base_only(merge(model)):
        pass


def test_targets_are_names() -> None:
    """A target is a name's end, a whole name or a pattern; one that names nothing is an error that lists the names."""
    model = lora(small_gpt(), rank=1, targets=("blocks.0.*", "blocks.1.attention.out"))
    found = {name.rpartition(".")[0] for name in adapter_state(model)}
    assert "blocks.1.attention.out" in found
    assert "blocks.1.attention.qkv" not in found
    assert {"blocks.0.attention.qkv", "blocks.0.attention.out"} < found
    with pytest.raises(ValueError, match=r"'query'.*blocks\.0\.attention\.qkv"):
        lora(small_gpt(), targets=("qkv", "query"))


def test_errors_name_what_is_wrong() -> None:
    """A second adapter, a rank of 0 and a model without adapter are refused before anything changes."""
    model = lora(small_gpt(), rank=1)
    with pytest.raises(ValueError, match="4 adapters already"):
        lora(model)
    plain = small_gpt()
    with pytest.raises(ValueError, match="rank 0"):
        lora(plain, rank=0)
    with pytest.raises(ValueError, match="alpha nan"):
        lora(plain, alpha=float("nan"))
    with pytest.raises(ValueError, match="no pattern chooses none of the model's layers"):
        lora(plain, targets=())
    assert all(weight.requires_grad for weight in plain.parameters())
    for function in (merge, unmerge, unwrap, adapter_state):
        with pytest.raises(ValueError, match="GPT has no adapter"):
            function(plain)


def test_saved_adapter(tmp_path) -> None:
    """A base model and a small file make the adapted model again, wherever the adapter stood and merged or not."""
    base = small_gpt()
    model = disturb(lora(copy.deepcopy(base), rank=3, alpha=5, targets=("qkv", "head")))
    expected, path = model(IDS), tmp_path / "adapter.safetensors"
    save_adapter(merge(model), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter.safetensors"]
    loaded = load_adapter(base, path)
    assert torch.equal(loaded(IDS), expected)
    assert trainable_parameters(loaded) == trainable_parameters(unmerge(model))
    prepared = merge(lora(small_gpt(), rank=3, alpha=5, targets=("qkv", "head")))
    assert torch.equal(load_adapter(prepared, path)(IDS), expected)


def test_a_file_that_does_not_fit_changes_nothing(tmp_path) -> None:
    """A file for other layers, widths, rank or alpha, a truncated and a missing one leave the model untouched."""
    path = tmp_path / "adapter.safetensors"
    save_adapter(lora(small_gpt(), rank=3, alpha=5), path)
    wider = GPT(GPTConfig(vocab_size=11, n_layers=2, d_model=12, n_heads=3))
    names = list(wider.state_dict())
    with pytest.raises(ValueError, match=r"18 x 6 layer as .*here it is 36 x 12"):
        load_adapter(wider, path)
    assert list(wider.state_dict()) == names
    with pytest.raises(ValueError, match=r"blocks\.1\.attention\.qkv"):
        load_adapter(GPT(GPTConfig(vocab_size=11, n_layers=1, d_model=6, n_heads=3)), path)
    with pytest.raises(ValueError, match=r"rank 3 and alpha 5.0 .*rank 2 and alpha 5.0"):
        load_adapter(lora(small_gpt(), rank=2, alpha=5), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not a whole"):
        load_adapter(small_gpt(), path)
    with pytest.raises(FileNotFoundError, match="no adapter"):
        load_adapter(small_gpt(), tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "header", "message"),
    [
        ({"head.a": torch.ones(2, 6)}, {}, r"for head, but \(2, 6\), \(11, 3\)"),
        ({"head.a": torch.ones(18)}, {}, r"for head, but \(18,\)"),
        ({"head.a": torch.ones(3, 6, dtype=torch.int32)}, {}, "numbers of dtype torch.int32 for head"),
        ({}, {"alpha": "{"}, "damaged alphas"),
        ({}, {"alpha": '{"head": NaN}'}, "damaged alphas: one of .nan. is not finite"),
        ({}, {"alpha": '{"head": "5"}'}, "damaged alphas"),
        ({}, {"alpha": "5"}, "damaged alphas"),
        ({}, {"alpha": ""}, "damaged alphas"),
    ],
)
def test_a_strangers_adapter_is_refused(changes: dict, header: dict, message: str, tmp_path) -> None:
    """Factors that do not go together, whole numbers and a damaged header are named, and the model stays as it was."""
    path = tmp_path / "adapter.safetensors"
    save_adapter(lora(small_gpt(), rank=3, alpha=5, targets="head"), path)
    known = {"format": "tinytrans lora 1", "alpha": '{"head": 5.0}'}
    save_file({**load_file(path), **changes}, path, metadata=known | header)
    model = small_gpt()
    names = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        load_adapter(model, path)
    assert list(model.state_dict()) == names


def test_counts() -> None:
    """GPT-2 with rank 8 at its fused projection trains 294,912 weights of 124,439,808, the tied head counted once."""
    with torch.device("meta"):
        model = GPT(PRESETS["gpt2"])
    assert trainable_parameters(lora(model, rank=8, targets=("qkv",))) == (294_912, 124_439_808 + 294_912)
    assert 12 * lora_size(768, 3 * 768, rank=8) == 294_912


def test_split_and_join_change_nothing() -> None:
    """A layer split into parts and joined again computes the same at every stage and keeps its weights to the bit."""
    model = small_gpt(bias=True, n_kv_heads=1)
    before, expected = copy.deepcopy(model.state_dict()), model(IDS)
    split(model, "qkv", {"q": 6, "k": 2, "v": 2})
    torch.testing.assert_close(model(IDS), expected)
    after = join(model).state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ValueError, match="sum to 8, the layer is 10"):
        split(model, "qkv", {"q": 6, "k": 2})
    for name, width in (("q.x", 4), ("weight", 4), ("in_features", 4), ("", 4), ("q", 0), ("q", -4)):
        with pytest.raises(ValueError, match=f"no part can be '{name}' of {width} rows"):
            split(model, "qkv", {name: width, "k": 10 - width})
    with pytest.raises(ValueError, match="2 layers share"):
        split(model, "head", {"first": 5, "second": 6})


def test_queries_and_values_alone() -> None:
    """Split first, adapters at queries and values leave the keys as they were, in self- and in cross-attention."""
    torch.manual_seed(0)
    attention = Attention(6, 2)
    x, memory = torch.randn(2, 3, 6), torch.randn(2, 4, 6)
    weight = attention.qkv.weight.detach().clone()
    model = disturb(lora(split(attention, "qkv", {"q": 6, "k": 6, "v": 6}), rank=2, targets=("qkv.q", "qkv.v")))
    changed = (model.qkv.weight != weight).any(dim=1)
    assert changed.tolist() == [True] * 6 + [False] * 6 + [True] * 6
    assert trainable_parameters(model)[0] == 2 * lora_size(6, 6, rank=2)
    alone, crossed = model(x), model(x, memory)
    with pytest.raises(ValueError, match="unwrap"):
        join(model)
    plain = join(unwrap(merge(model)))
    torch.testing.assert_close(plain(x), alone)
    torch.testing.assert_close(plain(x, memory), crossed)


def test_the_draw_is_the_generators() -> None:
    """Two adapters drawn from generators of one seed are equal, and the global source of chance is not touched."""
    states = []
    for _ in range(2):
        model = small_gpt()
        before = torch.get_rng_state()
        states.append(adapter_state(lora(model, generator=torch.Generator().manual_seed(5))))
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    a = LoRALinear(nn.Linear(400, 3), rank=50, generator=torch.Generator().manual_seed(0)).a.detach()
    assert abs(float(a.std()) - 400**-0.5) < 0.002


@pytest.mark.oracle
def test_peft_computes_the_same() -> None:
    """With the same A, B, rank, alpha and targets peft's LoRA computes the same and trains as many weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and what it imports warn of their own deprecations
        peft = pytest.importorskip("peft")

        def body() -> nn.Module:
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))

        theirs = peft.get_peft_model(body(), peft.LoraConfig(r=3, lora_alpha=5, target_modules=["0", "2"]))
        ours = disturb(lora(body(), rank=3, alpha=5, targets=("0", "2")))
        for name in ("0", "2"):
            layer = theirs.base_model.model.get_submodule(name)
            layer.lora_A["default"].weight.data = ours.get_submodule(name).a.data
            layer.lora_B["default"].weight.data = ours.get_submodule(name).b.data
        x = torch.randn(5, 6)
        torch.testing.assert_close(ours(x), theirs(x))
        assert trainable_parameters(ours) == theirs.get_nb_trainable_parameters()


def test_a_rank_is_a_whole_number() -> None:
    """Half a dimension is refused by its value, not by torch's shapes."""
    for rank in (2.5, True):
        with pytest.raises(ValueError, match=f"rank {rank} is not a whole number"):
            LoRALinear(nn.Linear(3, 3), rank=rank)  # type: ignore[arg-type]
