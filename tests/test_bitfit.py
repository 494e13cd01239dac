"""Laws of BitFit: of a trained model only the biases train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tinytrans.adapters import bias_names, bitfit, trainable_parameters
from tinytrans.config import PRESETS, GPTConfig
from tinytrans.models.gpt import GPT


def trains(model: nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_biases_alone_train() -> None:
    """Every bias trains, those of norms too; no matrix, no embedding and no gain does."""
    model = GPT(GPTConfig(vocab_size=11, n_layers=2, d_model=6, n_heads=3, bias=True))
    names = trains(bitfit(model))
    assert names == set(bias_names(model))
    assert "norm.bias" in names
    assert all(name.endswith(".bias") for name in names)
    assert not any(weight.dim() > 1 for weight in model.parameters() if weight.requires_grad)


def test_a_step_moves_biases_alone() -> None:
    """After a step of an optimiser that got every weight, only biases have moved."""
    model = bitfit(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    (model(torch.randn(8, 3)) - 1).square().sum().backward()
    optimizer.step()
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {"0.bias", "1.bias", "2.bias"}


def test_a_new_head_trains_whole() -> None:
    """What is named in `also` trains beside the biases, all of it."""
    model = nn.ModuleDict({"body": nn.Linear(3, 4), "head": nn.Linear(4, 2)})
    assert trains(bitfit(model, also=("head",))) == {"body.bias", "head.bias", "head.weight"}
    with pytest.raises(ValueError, match=r"'heads'.*head\.weight"):
        bitfit(model, also=("heads",))


def test_biases_of_torch_modules_count() -> None:
    """Biases that torch calls in_proj_bias and bias_ih_l0 are biases."""
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "lstm": nn.LSTM(4, 4)})
    assert set(bias_names(model)) == {
        "attention.in_proj_bias",
        "attention.out_proj.bias",
        "lstm.bias_ih_l0",
        "lstm.bias_hh_l0",
    }


def test_without_biases_there_is_nothing_to_train() -> None:
    """A model without biases is refused with their number, and stays trainable as it was."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    with pytest.raises(ValueError, match="none of the model's 2 weights is a bias"):
        bitfit(model)
    assert trainable_parameters(model) == (20, 20)


def test_counts() -> None:
    """GPT-2 has 102,144 numbers in biases, 0.082 % of its 124,439,808."""
    with torch.device("meta"):
        model = GPT(PRESETS["gpt2"])
    assert trainable_parameters(bitfit(model)) == (102_144, 124_439_808)


@pytest.mark.oracle
def test_hugging_face_model_counts_the_same() -> None:
    """Hugging Face's own GPT-2 has as many numbers in biases, found by the same names."""
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    assert trainable_parameters(bitfit(model)) == (102_144, 124_439_808)
