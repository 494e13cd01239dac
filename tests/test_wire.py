"""The wire: plain values come through whole, and nothing else does."""

from __future__ import annotations

import json
import math
import socket
import struct
import threading
import time
from enum import IntEnum
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graders.compare import difference
from graders.wire import CAPS, DTYPES, OUTWARD, Caps, NotPlainError, WireError, from_frame, receive, send, to_frame

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(-(2**60) + 1, 2**60 - 1), inner, max_size=4)
    ),
    max_leaves=12,
)


def there_and_back(value: Any) -> Any:
    return from_frame(to_frame(value))


@given(PLAIN)
def test_plain_values(value: Any) -> None:
    """A plain value comes through as an equal value of the same types."""
    assert repr(there_and_back(value)) == repr(json_text(value))


def json_text(value: Any) -> Any:
    """The value itself, with lone surrogates replaced as the wire replaces them."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return type(value)(map(json_text, value))
    return {json_text(k): json_text(v) for k, v in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 1)])
def test_tensors(name: str, shape: tuple[int, ...]) -> None:
    """A tensor of every dtype and shape comes through bit for bit; one without axes keeps none."""
    value = torch.arange(math.prod(shape)).reshape(shape).to(DTYPES[name])
    got = there_and_back(value)
    assert got.dtype == value.dtype
    assert got.shape == value.shape
    assert torch.equal(got, value)


def test_views() -> None:
    """A transposed, conjugated or broadcast view crosses as the numbers that it shows."""
    x = torch.arange(6.0).reshape(2, 3)
    z = torch.complex(x, x)
    for view in (x.T, x[:, ::2], x[:1].expand(4, 3), z.conj(), z.conj().imag):
        assert torch.equal(there_and_back(view), view)


def test_nan_and_infinity() -> None:
    """NaN and infinity come through as numbers and in tensors."""
    numbers = there_and_back([math.nan, math.inf, -math.inf, torch.tensor([math.nan, math.inf])])
    assert math.isnan(numbers[0])
    assert numbers[1:3] == [math.inf, -math.inf]
    assert difference(torch.tensor([math.nan, math.inf]), numbers[3]) is None


class Lying(torch.Tensor):
    """A tensor that gives itself out for whatever is wanted."""

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        return torch.zeros(3)


class Small(IntEnum):
    ONE = 1


def test_subclasses() -> None:
    """Subclasses are reduced to the plain data that they hold, however they answer when asked."""
    lying = torch.arange(3.0).as_subclass(Lying)
    for value, plain in [(lying, torch.arange(3.0)), (torch.nn.Parameter(torch.ones(2)), torch.ones(2))]:
        got = there_and_back(value)
        assert type(got) is torch.Tensor
        assert torch.equal(got, plain)
        assert not got.requires_grad
    assert type(there_and_back(Small.ONE)) is int
    assert type(there_and_back(torch.return_types.max((torch.ones(1), torch.ones(1))))) is tuple


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, len, b"bytes", 1j, {(1, 2): 3}, {2**61: 1}, torch.ones(2).to_sparse(), iter([])]
)
def test_not_plain(value: Any) -> None:
    """What is no plain value raises NotPlainError, anywhere inside a value."""
    with pytest.raises(NotPlainError, match="is no plain value"):
        to_frame({"deep": [value]})


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes(frame: bytes) -> None:
    """Any bytes are a frame or raise WireError, and nothing else."""
    try:
        from_frame(frame)
    except WireError:
        return


TAGS = st.sampled_from(["t", "l", "u", "d", "x"])
NUMBERS = st.integers(-(2**70), 2**70) | st.sampled_from([0, 1, 2**39, 2**61 - 1, -1]) | st.floats()
NODES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.sampled_from([*DTYPES, "object", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TAGS, inner, max_size=2),
    max_leaves=20,
)
SHAPED = st.fixed_dictionaries({"t": st.tuples(st.sampled_from(list(DTYPES)), st.lists(NUMBERS, max_size=14))})


@settings(max_examples=400)
@given(NODES | SHAPED, st.binary(max_size=64))
def test_any_header(header: Any, body: bytes) -> None:
    """Any JSON as a header gives a plain value or raises WireError, whatever sizes, tags and depths it names."""
    try:
        value = from_frame(framed(header, body))
    except WireError:
        return
    to_frame(value)  # what was let in is plain


@settings(max_examples=300)
@given(PLAIN, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.integers(-3, 3))
def test_damaged_frames(value: Any, changes: list[tuple[int, int]], tail: int) -> None:
    """A good frame with bytes changed, cut off or added is a frame or raises WireError, and nothing else."""
    frame = bytearray(to_frame([value, torch.arange(6.0).reshape(2, 3)]))
    for place, byte in changes:
        frame[place % len(frame)] = byte
    frame = frame[:tail] if tail < 0 else frame + bytes(tail)
    try:
        from_frame(bytes(frame))
    except WireError:
        return


def framed(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<II", len(text), len(body)) + text + body


MALFORMED = {
    "no sizes": b"\1\0",
    "cut off": to_frame([1, 2])[:-1],
    "too long": to_frame([1, 2]) + b"!",
    "no JSON": framed(b"{"),
    "no UTF-8": framed(b"\xff\xff"),
    "a deep nest": framed(b"[" * 100_000),
    "a bare list": framed([1]),
    "two tags": framed({"l": [], "u": []}),
    "an unknown tag": framed({"pickle": ["gASVBQ=="]}),
    "a tag without a list": framed({"l": 3}),
    "nested too deep": framed(json.loads('{"l": [' * 20 + "]}" * 20)),
    "a dict entry of three": framed({"d": [[1, 2, 3]]}),
    "a list as key": framed({"d": [[[1], 2]]}),
    "an unknown dtype": framed({"t": ["object", [1]]}, b"12345678"),
    "a negative size": framed({"t": ["int64", [-1]]}, b"12345678"),
    "a float as size": framed({"t": ["int64", [1.0]]}, b"12345678"),
    "a bool as size": framed({"t": ["int64", [True]]}, b"12345678"),
    "many dimensions": framed({"t": ["int64", [1] * 60]}, b"12345678"),
    "a giant shape of nothing": framed({"t": ["int64", [0, 1 << 39, 1 << 39]]}),
    "keys that share a hash": framed({"d": [[i * (2**61 - 1), 0] for i in range(1, 9)]}),
    "a giant shape": framed({"t": ["int64", [1 << 39, 1 << 39]]}),
    "a body too short": framed({"t": ["int64", [2]]}, b"12345678"),
    "a body too long": framed({"t": ["int64", [1]]}, b"1234567890"),
    "an integer of many digits": framed(b"9" * 10_000),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    """A malformed frame raises WireError."""
    with pytest.raises(WireError):
        from_frame(MALFORMED[name])


def test_bool_bytes() -> None:
    """A bool tensor holds True and False only, whatever bytes were sent."""
    got = from_frame(framed({"t": ["bool", [3]]}, b"\0\1\7"))
    assert torch.equal(got, torch.tensor([False, True, True]))
    assert got.view(torch.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize("value", [[0] * 50, [[[[[[0]]]]]], torch.ones(99), "x" * 999, torch.ones(1, 1, 1, 1)])
def test_caps(value: Any) -> None:
    """What is larger than the caps neither leaves nor arrives."""
    small = Caps(header=300, body=64, depth=4, elements=20, dims=3)
    with pytest.raises(WireError):
        to_frame(value, small)
    with pytest.raises(WireError):
        from_frame(to_frame(value), small)


def test_sizes_are_checked_before_reading() -> None:
    """A frame that announces gigabytes is refused from its first eight bytes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack("<II", 100, 0xFFFFFFFF))
        with pytest.raises(WireError, match="4294967295"):
            receive(ours, until=time.monotonic() + 5)


def test_drops_are_no_burden() -> None:
    """A frame that comes byte by byte takes no more room than its bytes."""
    ours, theirs = socket.socketpair()
    frame = to_frame("x" * 2000)
    with ours, theirs:
        sender = threading.Thread(target=lambda: [theirs.send(frame[i : i + 1]) for i in range(len(frame))])
        sender.start()
        assert receive(ours, until=time.monotonic() + 20) == "x" * 2000
        sender.join()


def test_deadline() -> None:
    """The deadline is for the whole frame: drops of bytes do not extend it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\1")
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            receive(ours, until=start + 0.2)
        assert time.monotonic() - start < 2


def test_the_other_end_is_gone() -> None:
    """A closed socket raises EOFError, in the midst of a frame too."""
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(to_frame([1, 2, 3])[:-2])
        theirs.close()
        with pytest.raises(EOFError):
            receive(ours)


def test_one_after_the_other() -> None:
    """Frames that were sent in a row are received one by one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for i in range(3):
            send(theirs, {"i": torch.tensor(i)})
        assert [int(receive(ours)["i"]) for _ in range(3)] == [0, 1, 2]


def test_a_function_crosses_outward_by_its_name() -> None:
    """The judge hands over torch's tanh, a learner's process hands back none; any other function crosses nowhere."""
    frame = to_frame([torch.tanh, 1], OUTWARD)
    assert from_frame(frame, OUTWARD) == [torch.tanh, 1]
    with pytest.raises(WireError, match="no tag"):
        from_frame(frame)
    for function, caps in ((torch.tanh, CAPS), (torch.load, OUTWARD), (eval, OUTWARD)):
        with pytest.raises(NotPlainError, match="is no plain value"):
            to_frame(function, caps)
    for named in ("load", ["tanh"], None):
        header = json.dumps({"f": [named]}).encode()
        with pytest.raises(WireError):
            from_frame(struct.pack("<II", len(header), 0) + header, OUTWARD)
