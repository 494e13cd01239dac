"""Laws of saved models: what is saved comes back to the bit, and what is damaged is refused by name."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinytrans.config import GPTConfig, LinearScaling
from tinytrans.models import build, load_model, pretrained
from tinytrans.models.gpt import GPT

BASE = GPTConfig(vocab_size=31, n_layers=2, d_model=12, n_heads=3, max_len=20)
IDS = torch.tensor([[1, 2, 3, 4]])


class Words:
    """A tokenizer that writes one line."""

    def __init__(self, text: str = "words") -> None:
        self.text = text

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(self.text, encoding="utf-8")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a saved model and its tokenizer."""
    torch.manual_seed(0)
    GPT(BASE).save_pretrained(tmp_path / "model", Words())
    return tmp_path / "model"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie": False},
        {"positions": "learned", "bias": True},
        {"n_kv_heads": 1, "norm": "rms", "feedforward": "swiglu", "embedding_norm": True},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_round_trip_changes_nothing(tmp_path: Path, changes: dict[str, Any], dtype: torch.dtype) -> None:
    """Saved and loaded, a model has the same config, dtype and logits, is tied if it was, and is in eval mode."""
    gpt = GPT(replace(BASE, **changes)).to(dtype)
    gpt.save_pretrained(tmp_path)
    chance = torch.get_rng_state()
    again = GPT.from_pretrained(tmp_path)
    assert again.config == gpt.config
    assert torch.equal(again(IDS), gpt(IDS))
    assert again(IDS).dtype == dtype
    assert (again.head.weight is again.embedding.weight) == gpt.config.tie
    assert again.n_params == gpt.n_params
    assert all(p.requires_grad and p.device.type == "cpu" for p in again.parameters())
    assert not again.training
    assert torch.equal(torch.get_rng_state(), chance)


def test_the_folder_is_plain(saved: Path) -> None:
    """The folder holds JSON and safetensors and nothing else; the shared matrix stands in the file once."""
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert json.loads((saved / "config.json").read_text(encoding="utf-8")) == {"model": "gpt", **BASE.to_dict()}
    weights = load_file(saved / "model.safetensors")
    assert "head.weight" not in weights
    assert sum(weight.numel() for weight in weights.values()) == GPT(BASE).n_params
    assert (saved / "tokenizer.json").read_text(encoding="utf-8") == "words"


def test_a_loaded_model_can_be_trained(saved: Path) -> None:
    """The loaded weights get gradients."""
    gpt = GPT.from_pretrained(saved).train()
    gpt(IDS).square().sum().backward()
    assert all(p.grad is not None for p in gpt.parameters())


def test_saving_again_replaces(saved: Path) -> None:
    """A second model in the same folder takes the place of the first, and strangers' files stay."""
    (saved / "notes.txt").write_text("mine", encoding="utf-8")
    gpt = GPT(replace(BASE, n_layers=1))
    gpt.save_pretrained(saved)
    assert GPT.from_pretrained(saved).config.n_layers == 1
    assert (saved / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("culprit", ["tokenizer", "weights", "disk"])
def test_a_failure_leaves_the_old_model(saved: Path, monkeypatch: pytest.MonkeyPatch, culprit: str) -> None:
    """Whatever fails while a model is being written, the one that was there is still there, and no scrap beside it."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    words = Words("other")
    if culprit == "tokenizer":
        monkeypatch.setattr(words, "save", fail)
    else:
        monkeypatch.setattr(pretrained, {"weights": "save_file", "disk": "to_disk"}[culprit], fail)
    with pytest.raises(OSError, match="no space"):
        GPT(BASE).save_pretrained(saved, words)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    """A folder without one of the two files raises FileNotFoundError, which names the folder and the file."""
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{saved}.* has no {name}"):
        GPT.from_pretrained(saved)
    with pytest.raises(FileNotFoundError, match=r"nowhere.* has no config.json"):
        GPT.from_pretrained(saved / "nowhere")


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_cut_weights_are_refused(saved: Path, size: int) -> None:
    """A weights file cut short anywhere raises ValueError, which names it."""
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"model.safetensors' is damaged"):
        GPT.from_pretrained(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b"[" * 100_000])
def test_a_damaged_config_is_refused(saved: Path, content: bytes) -> None:
    """A config.json that is no JSON object raises ValueError, which names it."""
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config.json' (is damaged|holds a value of type list)"):
        GPT.from_pretrained(saved)


def test_a_foreign_model_is_refused(saved: Path) -> None:
    """The config of another model raises ValueError."""
    (saved / "config.json").write_text(json.dumps({**BASE.to_dict(), "model": "bert"}), encoding="utf-8")
    with pytest.raises(ValueError, match="'bert'"):
        GPT.from_pretrained(saved)


def test_a_folder_of_hugging_face_says_how(saved: Path) -> None:
    """A folder that transformers wrote raises ValueError, which says how such a model is taken over."""
    (saved / "config.json").write_text('{"model_type": "gpt2", "n_layer": 2}', encoding="utf-8")
    for opened in (GPT.from_pretrained, load_model):
        with pytest.raises(ValueError, match=r"Hugging Face's 'gpt2': .* from_transformers"):
            opened(saved)


def test_weights_must_be_the_configs(saved: Path) -> None:
    """Missing, foreign and misshapen tensors raise ValueError, which names them."""
    path = saved / "model.safetensors"
    weights = load_file(path)
    for change, message in (
        ({"embedding.weight": None}, "lack embedding.weight"),
        ({"stranger": torch.zeros(1)}, "hold stranger"),
        ({"norm.weight": torch.zeros(13)}, r"norm.weight has shape \(13,\).* \(12,\)"),
        ({"norm.weight": torch.zeros(12, dtype=torch.int32)}, r"norm.weight is of dtype torch.int32, not one of"),
        ({"norm.weight": torch.zeros(12).to(torch.float8_e4m3fn)}, r"norm.weight is of dtype torch.float8_e4m3fn"),
    ):
        save_file({name: w for name, w in {**weights, **change}.items() if w is not None}, path)
        with pytest.raises(ValueError, match=message):
            GPT.from_pretrained(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 10**9}, r"n_layers 1000000000 is more than the \d+ weights"),
        ({"d_model": 12 * 10**14, "n_heads": 1}, "no model can be as large as this config"),
        ({"model": ["gpt"]}, r"\['gpt'\]"),
    ],
)
def test_a_strangers_config_costs_nothing(saved: Path, changes: dict[str, Any], message: str) -> None:
    """A config of impossible size or form raises ValueError at once, however the model is opened."""
    (saved / "config.json").write_text(json.dumps({**BASE.to_dict(), **changes}), encoding="utf-8")
    for opened in (GPT.from_pretrained, load_model):
        with pytest.raises(ValueError, match=message):
            opened(saved)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(saved: Path) -> None:
    """A model asked onto a GPU where there is none raises ValueError, which says so."""
    with pytest.raises(ValueError, match="cuda was asked for, and CUDA finds 0 GPUs"):
        GPT.from_pretrained(saved, device="cuda")


def test_a_part_is_no_model() -> None:
    """A config of a part, of RoPE's scaling for one, builds no model, and is named."""
    assert isinstance(build(BASE), GPT)
    with pytest.raises(ValueError, match="a config of 'linear' is for none of the models bert, encdec, gpt"):
        build(LinearScaling(factor=2.0))


def test_a_model_can_be_opened_without_its_numbers(saved: Path) -> None:
    """On "meta" a saved model has its shapes and its ties, and takes no memory for numbers."""
    model = GPT.from_pretrained(saved, device="meta")
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert model.n_params == GPT.from_pretrained(saved).n_params


def test_what_a_killed_save_left_is_swept_up(saved: Path) -> None:
    """A folder that a save was killed over an hour ago is gone after the next; one of a moment ago may be in use."""
    for name, age in (("old", 4000), ("new", 10)):
        left = saved / f".saving-{name}"
        left.mkdir()
        (left / "model.safetensors").write_bytes(b"half")
        for path in (left / "model.safetensors", left):
            os.utime(path, (time.time() - age,) * 2)
    GPT(BASE).save_pretrained(saved)
    assert [path.name for path in saved.glob(".saving-*")] == [".saving-new"]


@pytest.mark.parametrize("how", ["assign", "meta", "empty"])
def test_what_loading_parts_comes_together(how: str) -> None:
    """However weights are loaded, one matrix under two names stays, or becomes again, one parameter."""
    source, model = GPT(BASE), GPT(BASE)
    assert source.head.weight is source.embedding.weight
    if how != "assign":
        with torch.device("meta"):
            model = GPT(BASE)
    if how == "empty":
        model.to_empty(device="cpu")
    model.load_state_dict(source.state_dict(), assign=how != "empty")
    assert model.head.weight is model.embedding.weight
    assert model.n_params == source.n_params
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), source.parameters(), strict=True))


def test_what_differs_stays_apart() -> None:
    """Two matrices that are not the same are both kept, though the config would have one."""
    model, state = GPT(BASE), GPT(BASE).state_dict()
    state["head.weight"] = state["head.weight"] + 1
    model.load_state_dict(state, assign=True)
    assert torch.equal(model.head.weight, state["head.weight"])
    assert torch.equal(model.embedding.weight, state["embedding.weight"])
    assert not model.as_is().tie
