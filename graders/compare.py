"""Two values -> None where they agree, else a sentence that says where they part."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Attention in single precision is off by at most 1.4e-6 (3,000 draws of up to 64 x 64, against double): seven times
# that, and a relative part for what is larger.
RELATIVE, ABSOLUTE = 1e-4, 1e-5


def difference(expected: Any, got: Any, *, relative: float = RELATIVE, absolute: float = ABSOLUTE) -> str | None:
    """None where `got` agrees with `expected`: the same structure, shapes and kinds, finite, close; else what differs.

    Tensors agree in shape and kind (bool, integer, float; not in width); a number and a tensor of one number may stand
    for each other, but no float for a whole number; lists and tuples too. NaN and infinity are looked at before
    closeness: each agrees with itself.
    """
    if isinstance(expected, Tensor) and isinstance(got, Tensor):
        return _tensors(expected.detach(), got.detach(), relative, absolute)
    if isinstance(expected, Tensor) and expected.dim() == 0 and _is_number(got):
        return difference(expected.item(), got, relative=relative, absolute=absolute)
    if _is_number(expected) and isinstance(got, Tensor) and got.dim() == 0:
        return difference(expected, got.item(), relative=relative, absolute=absolute)
    if type(expected) is int and isinstance(got, float) and expected == got:
        return f"expected the whole number {expected}, got the float {got}: a count is an int, so divide with `//`"
    if _is_number(expected) and _is_number(got):
        if not _close(expected, got, relative, absolute) or (isinstance(expected, int) and expected != got):
            return f"expected {expected}, got {got}"
        return None
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        return _sequences(expected, got, relative, absolute)
    if isinstance(expected, dict) and isinstance(got, dict):
        if set(expected) != set(got):
            return _keys(expected, got)
        return _sequences(list(expected.values()), [got[key] for key in expected], relative, absolute)
    if type(expected) is not type(got):
        return f"expected {_kind(expected)}, got {_kind(got)}"
    return None if expected == got else f"expected {expected!r}, got {got!r}"


def agree(a: Any, b: Any) -> bool:
    """Whether two values are the same within the tolerance."""
    return difference(a, b) is None


def _close(expected: float, got: float, relative: float, absolute: float) -> bool:
    try:
        return expected == got or math.isclose(expected, got, rel_tol=relative, abs_tol=absolute)
    except OverflowError:  # an integer beyond what a float can hold
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing (None): is a `return` missing?"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' or name == 'ndarray' else 'a'} {name}"


def _sequences(expected: Any, got: Any, relative: float, absolute: float) -> str | None:
    if len(expected) != len(got):
        return f"expected {len(expected)} values, got {len(got)}"
    for i, (a, b) in enumerate(zip(expected, got, strict=True)):
        if (found := difference(a, b, relative=relative, absolute=absolute)) is not None:
            return f"value {i}: {found}"
    return None


def _keys(expected: dict[Any, Any], got: dict[Any, Any]) -> str:
    missing, more = ([str(key) for key in one if key not in other] for one, other in ((expected, got), (got, expected)))
    said = [
        f"{', '.join(names)} {what}" for names, what in ((missing, "is missing"), (more, "is not asked for")) if names
    ]
    return f"{' and '.join(said)} (expected {', '.join(map(str, expected)) or 'no key'})"


def _family(tensor: Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "bool"
    if tensor.is_complex():
        return "complex"
    return "float" if tensor.is_floating_point() else "integer"


def _tensors(expected: Tensor, got: Tensor, relative: float, absolute: float) -> str | None:
    if expected.shape != got.shape:
        return f"expected shape {tuple(expected.shape)}, got {tuple(got.shape)}{_lost_axis(expected, got)}"
    if _family(expected) != _family(got):
        return f"expected dtype {expected.dtype}, got {got.dtype}"
    if expected.is_complex():  # real and imaginary part, side by side
        expected, got = (torch.view_as_real(x.to(torch.complex128).resolve_conj()) for x in (expected, got))
    a, b = expected.to(torch.float64), got.to(torch.float64)
    same = (a == b) | (a.isnan() & b.isnan())
    close = (
        a - b
    ).abs() <= absolute + relative * a.abs()  # False where either is NaN, and inf <= inf where a is infinite
    wrong = ~(same | (close & a.isfinite() & b.isfinite()))
    if not wrong.any():
        return None
    place = wrong.nonzero()[0].tolist()
    where, index = (f"at {place}: ", tuple(place)) if place else ("", ())
    share = f"{int(wrong.sum())} of {wrong.numel()} differ"
    return f"{where}expected {_show(expected[index])}, got {_show(got[index])} ({share})"


def _lost_axis(expected: Tensor, got: Tensor) -> str:
    """What to say where all that differs is that axes of size 1 are gone."""
    left = [[size for size in tensor.shape if size != 1] for tensor in (expected, got)]
    gone = left[0] == left[1] and got.dim() < expected.dim()
    return ": an axis of size 1 is gone; `squeeze()` without an axis drops all of them" if gone else ""


def _show(value: Tensor) -> str:
    number = value.item()
    return f"{number:.5g}" if isinstance(number, float) else str(number)
