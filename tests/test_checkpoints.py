"""Laws of the small models that come with the library: they are small, and one knows how they were made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tinytrans import checkpoints
from tinytrans.config import GPTConfig
from tinytrans.models import BERT, GPT, load_model
from tinytrans.tokenizers import CharacterTokenizer, Tokenizer

Kept = tuple[GPT, Tokenizer]


@pytest.fixture
def newborn() -> Kept:
    tokenizer = CharacterTokenizer.train(["a fox met an owl"])
    return GPT(GPTConfig(vocab_size=tokenizer.vocab_size, n_layers=1, d_model=8, n_heads=2)), tokenizer


@pytest.mark.parametrize("name", checkpoints.names())
def test_a_checkpoint_can_be_used_at_once(name: str) -> None:
    """Each loads in single precision and eval mode, with a tokenizer of its size, and is under 5 MB on the disk."""
    kind = type(load_model(checkpoints.HERE / name))
    model, tokenizer = checkpoints.load(name, kind)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not model.training
    assert tokenizer.vocab_size == model.config.vocab_size
    assert sum(file.stat().st_size for file in (checkpoints.HERE / name).iterdir()) < checkpoints.LARGEST


@pytest.mark.parametrize("name", checkpoints.names())
def test_one_knows_how_it_was_made(name: str) -> None:
    """Beside each stands what its recipe printed: a full run that reached all its aims."""
    made = json.loads((checkpoints.HERE / name / "made.json").read_text(encoding="utf-8"))
    assert made["recipe"] == name
    assert not made["quick"]
    assert all(made["aims"].values())


def test_what_is_kept_comes_back(newborn: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was kept gives the same logits as its weights in half precision, and its name is known."""
    checkpoints.keep("newborn", *newborn, "{}", folder=tmp_path)
    monkeypatch.setattr(checkpoints, "HERE", tmp_path)
    assert checkpoints.names() == ["newborn"]
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(checkpoints.load("newborn")[0](ids), newborn[0].half().float().eval()(ids))


def test_a_large_model_is_refused(newborn: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be too heavy for everybody's installation is not written, and both sizes are named."""
    monkeypatch.setattr(checkpoints, "LARGEST", 100)
    with pytest.raises(ValueError, match=r"bytes, more than 100$"):
        checkpoints.keep("newborn", *newborn, "{}", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_kind_is_refused() -> None:
    """Asking for a GPT's checkpoint as a BERT names both."""
    with pytest.raises(ValueError, match="a config of the model 'gpt', not of 'bert'"):
        checkpoints.load("tales", BERT)


def test_an_unknown_name_is_named() -> None:
    """Asking for a checkpoint that is not there says which are."""
    with pytest.raises(ValueError, match="no checkpoint 'gpt5' comes with the library; there are"):
        checkpoints.load("gpt5")
