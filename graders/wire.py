"""Plain values <-> frames on a socket: a JSON header and raw tensor buffers, each bounded before it is read.

Both ends of the sandbox speak this. Nothing but plain values crosses: no object, no code, no pickle either way.
"""

from __future__ import annotations

import ctypes
import json
import math
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SIZES = struct.Struct("<II")  # bytes of the header, bytes of the body
_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*_INTEGERS, *_FLOATS)}
_PLAIN = "tensors, numbers, text, lists, tuples and dicts are"
_ONE_HASH = 1 << 60  # Python hashes an integer modulo 2**61 - 1: below it no two are alike, but for -1 and -2
FUNCTIONS = {"square": torch.square, "tanh": torch.tanh}  # what a judge may hand to an answer, by its name
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class WireError(Exception):
    """What came over the wire is no well-formed frame of plain values, or is larger than allowed."""


class NotPlainError(TypeError):
    """A value that cannot cross: the message names its type."""


@dataclass(frozen=True)
class Caps:
    """The most that one frame may hold."""

    header: int = 1 << 20  # bytes
    body: int = 1 << 24  # bytes: a judge keeps an answer of each draw of each requirement until it has compared them
    depth: int = 16  # containers inside each other
    elements: int = 50_000  # values and keys altogether
    dims: int = 12
    functions: bool = False  # whether one of FUNCTIONS may cross, as its name


CAPS = Caps()
OUTWARD = Caps(header=1 << 26, functions=True)  # from the judge: all cells of a lesson, each as long as a cell may be


def pack(value: Any, caps: Caps = CAPS) -> tuple[Any, list[bytes]]:
    """A plain value -> what JSON can hold, and the tensors' bytes in the order of their mention.

    Subclasses of the plain types are reduced to the plain data that they hold; any other object raises NotPlainError.
    """
    buffers: list[bytes] = []
    return _pack(value, buffers, caps, _counter(caps), 0), buffers


def _counter(caps: Caps) -> Iterator[int]:
    return iter(range(caps.elements))


def _count(counter: Iterator[int], caps: Caps, depth: int) -> None:
    if depth > caps.depth:
        raise WireError(f"values are nested more than {caps.depth} deep")
    if next(counter, None) is None:
        raise WireError(f"more than {caps.elements} values in one frame")


def _pack(value: Any, buffers: list[bytes], caps: Caps, counter: Iterator[int], depth: int) -> Any:
    _count(counter, caps, depth)
    kind = type(value)  # not isinstance: that asks the object, and the object may lie
    if value is None or kind in (bool, int, float, str):
        return value
    if issubclass(kind, Tensor):
        return {"t": _pack_tensor(value, buffers, caps)}
    if issubclass(kind, list | tuple):
        return {"u" if issubclass(kind, tuple) else "l": [_pack(v, buffers, caps, counter, depth + 1) for v in value]}
    if issubclass(kind, dict):
        pairs = [[_key(k), _pack(v, buffers, caps, counter, depth + 1)] for k, v in value.items()]
        return {"d": pairs}
    if caps.functions:
        for name, function in FUNCTIONS.items():
            if value is function:
                return {"f": [name]}
    for plain in (int, float, str):
        if issubclass(kind, plain):
            return plain(value)
    what = "write torch.as_tensor(...) around it" if str(kind.__module__).startswith("numpy") else _PLAIN
    raise NotPlainError(f"a {kind.__name__} is no plain value: {what}")


def _key(key: Any) -> Any:
    if (key is None or type(key) in (bool, int, float, str)) and not _collides(key):
        return key
    raise NotPlainError(
        f"a{' giant' if _collides(key) else ''} {type(key).__name__} as the key of a dict is no plain value"
    )


def _collides(key: Any) -> bool:
    """Whether a key is an integer so large that many of them can share one hash, which makes a dict of them slow."""
    return type(key) is int and abs(key) >= _ONE_HASH


def _pack_tensor(value: Tensor, buffers: list[bytes], caps: Caps) -> list[Any]:
    with torch._C.DisableTorchFunctionSubclass():  # a subclass must not answer for its own data
        try:
            plain = Tensor.detach(value)
            shape, kind = tuple(plain.shape), f"dtype {plain.dtype} and layout {plain.layout} on {plain.device}"
        except RuntimeError as error:  # a nested one has no shape
            raise NotPlainError(f"a tensor that has no shape of its own is no plain value ({error})") from error
        if plain.layout != torch.strided or plain.dtype not in _DTYPE_NAMES or plain.is_meta:
            raise NotPlainError(f"a tensor of {kind} is no plain value")
        if plain.dim() > caps.dims or plain.numel() * plain.element_size() > caps.body:
            raise WireError(f"a tensor of shape {shape} is larger than allowed")
        plain = plain.as_subclass(Tensor).cpu().resolve_conj().resolve_neg().contiguous()
        buffers.append(ctypes.string_at(plain.data_ptr(), plain.nbytes) if plain.numel() else b"")
        return [_DTYPE_NAMES[plain.dtype], list(shape)]


def unpack(header: Any, body: bytes | bytearray, caps: Caps = CAPS) -> Any:
    """What JSON held and the bytes of all tensors -> the value. Raises WireError where they do not fit exactly."""
    reader = _Reader(memoryview(body), caps)
    value = reader.value(header, 0)
    if reader.position != len(body):
        raise WireError(f"{len(body) - reader.position} bytes belong to no tensor")
    return value


class _Reader:
    def __init__(self, body: memoryview, caps: Caps) -> None:
        self.body, self.caps, self.position, self.counter = body, caps, 0, _counter(caps)

    def value(self, node: Any, depth: int) -> Any:
        _count(self.counter, self.caps, depth)
        if node is None or isinstance(node, bool | int | float):
            return node
        if isinstance(node, str):
            return _text(node)
        if not isinstance(node, dict) or len(node) != 1:
            raise WireError("a value is neither a scalar nor one tagged container")
        tag, content = next(iter(node.items()))
        if not isinstance(content, list):
            raise WireError(f"the content of {tag!r:.20} is no list")
        if tag == "t":
            return self.tensor(content)
        if tag in ("l", "u"):
            values = [self.value(item, depth + 1) for item in content]
            return tuple(values) if tag == "u" else values
        if tag == "d":
            return dict(self.pair(item, depth) for item in content)
        if tag == "f" and self.caps.functions and content in [[name] for name in FUNCTIONS]:
            return FUNCTIONS[content[0]]
        raise WireError(f"there is no tag {tag!r:.20}")

    def pair(self, item: Any, depth: int) -> tuple[Any, Any]:
        if not isinstance(item, list) or len(item) != 2 or isinstance(item[0], list | dict) or _collides(item[0]):
            raise WireError("an entry of a dict is no pair of a plain key and a value")
        return (_text(item[0]) if isinstance(item[0], str) else item[0]), self.value(item[1], depth + 1)

    def tensor(self, content: list[Any]) -> Tensor:
        if len(content) != 2 or not isinstance(content[0], str) or content[0] not in DTYPES:
            raise WireError("a tensor needs a dtype of the list, and a shape")
        dtype, shape = DTYPES[content[0]], content[1]
        if not isinstance(shape, list) or len(shape) > self.caps.dims:
            raise WireError(f"a shape must be a list of at most {self.caps.dims} sizes")
        if not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
            raise WireError("a size must be an integer, not negative")
        if math.prod(size or 1 for size in shape) >= 1 << 48:  # strides of an empty tensor overflow too
            raise WireError(f"a tensor of shape {shape} is larger than allowed")
        length = math.prod(shape) * dtype.itemsize
        if length > len(self.body) - self.position:
            raise WireError(f"a tensor of {length} bytes is longer than the {len(self.body) - self.position} left")
        part = bytearray(self.body[self.position : self.position + length])
        self.position += length
        if not part:
            return torch.empty(shape, dtype=dtype)
        if dtype == torch.bool:  # any other byte than 0 and 1 would be a bool that is neither
            return (torch.frombuffer(part, dtype=torch.uint8) != 0).reshape(shape)
        return torch.frombuffer(part, dtype=dtype).reshape(shape)


def _text(text: str) -> str:
    """The text without lone surrogates, which no file could hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def to_frame(value: Any, caps: Caps = CAPS) -> bytes:
    """A plain value -> one frame: two sizes, the JSON header, the tensors' bytes.

    >>> from_frame(to_frame({"x": (1, 2.5, None)}))
    {'x': (1, 2.5, None)}
    """
    node, buffers = pack(value, caps)
    try:
        header, body = json.dumps(node).encode(), b"".join(buffers)
    except ValueError as error:  # an integer of more digits than Python writes
        raise WireError(str(error)) from error
    _check_sizes(len(header), len(body), caps)
    return _SIZES.pack(len(header), len(body)) + header + body


def from_frame(frame: bytes, caps: Caps = CAPS) -> Any:
    """One frame -> the value. Raises WireError, and nothing else, for any other bytes."""
    if len(frame) < _SIZES.size:
        raise WireError(f"a frame of {len(frame)} bytes has no sizes")
    header, body = _SIZES.unpack_from(frame)
    _check_sizes(header, body, caps)
    if len(frame) != _SIZES.size + header + body:
        raise WireError(f"a frame of {len(frame)} bytes says that it has {_SIZES.size + header + body}")
    return _decode(frame[_SIZES.size : _SIZES.size + header], frame[_SIZES.size + header :], caps)


def _check_sizes(header: int, body: int, caps: Caps) -> None:
    if header > caps.header or body > caps.body:
        raise WireError(f"a frame of {header} + {body} bytes; at most {caps.header} + {caps.body} are allowed")


def _decode(header: bytes, body: bytes, caps: Caps) -> Any:
    try:
        return unpack(json.loads(header.decode("utf-8")), body, caps)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise WireError(f"the header is no JSON: {str(error)[:100]}") from error


def send(sock: socket.socket, value: Any, caps: Caps = CAPS) -> None:
    """Send one value as a frame."""
    sock.sendall(to_frame(value, caps))


def receive(sock: socket.socket, *, until: float | None = None, caps: Caps = CAPS) -> Any:
    """Receive one value, all of it before the moment `until` of time.monotonic().

    Raises EOFError where the other end is gone, TimeoutError at the deadline, WireError for anything but a good frame.
    """
    header, body = _SIZES.unpack(_exactly(sock, _SIZES.size, until))
    _check_sizes(header, body, caps)
    return _decode(_exactly(sock, header, until), _exactly(sock, body, until), caps)


def _exactly(sock: socket.socket, n: int, until: float | None) -> bytes:
    content = bytearray()  # grows with what arrives, so that a size alone allocates nothing, and nor do many drops
    while (missing := n - len(content)) > 0:
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            sock.settimeout(left)
        part = sock.recv(min(missing, 1 << 20))
        if not part:
            raise EOFError("the other end is gone")
        content += part
    return bytes(content)
