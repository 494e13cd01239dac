"""Small trained models that come with the library: a name -> the model and its tokenizer, in a moment.

Each folder holds a saved model in half precision and `made.json`: the command that made it, and what that printed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar, overload

import torch

from tinytrans.files import write_whole
from tinytrans.models.gpt import GPT
from tinytrans.models.pretrained import Pretrained, own_weights
from tinytrans.tokenizers import Tokenizer, load_tokenizer

Model = TypeVar("Model", bound=Pretrained)
HERE = Path(__file__).parent
LARGEST = 5_000_000  # bytes of a folder: everybody who installs the library carries it


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted(path.parent.name for path in HERE.glob("*/config.json"))


@overload
def load(name: str, *, device: torch.device | str = "cpu") -> tuple[GPT, Tokenizer]: ...
@overload
def load(name: str, kind: type[Model], *, device: torch.device | str = "cpu") -> tuple[Model, Tokenizer]: ...
def load(
    name: str, kind: type[Pretrained] = GPT, *, device: torch.device | str = "cpu"
) -> tuple[Pretrained, Tokenizer]:
    """The model of that name in single precision and eval mode, and its tokenizer: `load("mlm", BERT)`.

    Raises ValueError where there is none, or one of another kind.
    """
    if name not in names():
        raise ValueError(f"no checkpoint {name!r} comes with the library; there are {', '.join(names())}")
    return kind.from_pretrained(HERE / name, device=device).float(), load_tokenizer(HERE / name)


def keep(
    name: str, model: Pretrained, tokenizer: Tokenizer, made: str, *, folder: str | os.PathLike[str] = HERE
) -> Path:
    """Store a trained model under a name, in half precision, with the JSON text of how it was made -> its folder.

    Raises ValueError, before anything is written, where it would be larger than 5 MB.
    """
    json.loads(made)
    size = 2 * model.n_params
    if size > LARGEST:
        raise ValueError(f"{model.n_params:,} parameters take {size:,} bytes, more than {LARGEST:,}")
    place = Path(folder, name)
    half = type(model).from_weights(model.config, {k: v.half() for k, v in own_weights(model).items()})
    half.save_pretrained(place, tokenizer)
    write_whole(place / "made.json", made + "\n")
    return place
