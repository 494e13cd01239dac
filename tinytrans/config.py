"""Configs: a few numbers and names -> all that is needed to build a model, checked at birth.

`PRESETS` are ready-made ones; `dataclasses.replace(PRESETS["tales"], n_layers=2)` makes a variant.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

Norm = Literal["layer", "rms"]
Residual = Literal["pre", "post"]
FeedForward = Literal["gelu", "gelu_tanh", "relu", "relu2", "silu", "swiglu"]
Head = Literal["pooled", "pretraining", "classifier", "spans"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every config can do: check its choices and its sizes at birth, and be written and read as plain values.

    An `int` is a size and must be positive, a `Literal` one of its choices, a config one of its kind; raises
    ValueError, naming the value.
    """

    model: ClassVar[str]

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            check(field.name, getattr(self, field.name), hints[field.name])
        if not 0 <= (dropout := getattr(self, "dropout", 0.0)) < 1:
            raise ValueError(f"dropout {dropout} is not in [0, 1)")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values for a config.json, with the model's name in front: "model": "gpt"."""
        return {"model": self.model, **{field.name: plain(getattr(self, field.name)) for field in fields(self)}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that `to_dict` wrote; raises ValueError for another model, a foreign field or a missing one."""
        given = dict(values)
        if (model := given.pop("model", None)) != cls.model:
            raise ValueError(f"a config of the model {model!r}, not of {cls.model!r}")
        if foreign := given.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"unknown fields: {', '.join(sorted(foreign))}")
        kinds = get_type_hints(cls)
        given = {name: revived(value, configs_of(kinds[name])) for name, value in given.items()}
        try:
            return cls(**given)
        except TypeError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """What a transformer's blocks are built from; raises ValueError, naming the values, for numbers that none can have.

    n_kv_heads and d_ff left None are n_heads and the usual width (`feedforward_width`). `residual` says where the norms
    stand, before each sublayer or after it. `bias` is for every matrix and norm of the blocks.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int | None = None
    d_ff: int | None = None
    norm: Norm = "layer"
    residual: Residual = "pre"
    feedforward: FeedForward = "gelu"
    bias: bool = True
    qk_norm: bool = False
    dropout: float = 0.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        if self.n_heads % self.kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.kv_heads}")
        for name in ("norm_eps", "rope_base"):
            if not getattr(self, name, 1) > 0:
                raise ValueError(f"{name} {getattr(self, name)} is not positive")
        if getattr(self, "positions", None) == "rope" and self.head_width % 2:
            raise ValueError(f"rope turns pairs, but d_model {self.d_model} / n_heads {self.n_heads} is odd")

    @property
    def head_width(self) -> int:
        """K = D / H."""
        return self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """G, the number of heads for keys and values."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def feedforward_width(self) -> int:
        """F: d_ff, or else 4 D; for SwiGLU's three matrices 8/3 D, as many parameters, rounded up to 16s."""
        if self.d_ff is not None:
            return self.d_ff
        return -(-8 * self.d_model // 48) * 16 if self.feedforward == "swiglu" else 4 * self.d_model


@dataclass(frozen=True, kw_only=True)
class GPTConfig(ModelConfig):
    """What a GPT is built from.

    `embedding_norm` normalises the token embeddings. `zero_init` starts every output projection at 0, so that at birth
    each block changes nothing (Zhang et al. 2019, arXiv 1901.09321).
    """

    model = "gpt"

    vocab_size: int
    max_len: int = 256
    positions: Literal["rope", "learned", "sinusoidal", "alibi", "none"] = "rope"
    bias: bool = False
    window: int | None = None
    tie: bool = True
    rope_base: float = 10000.0
    embedding_norm: bool = False
    zero_init: bool = False


@dataclass(frozen=True, kw_only=True)
class BERTConfig(ModelConfig):
    """What a BERT is built from: learned positions and segments, norms after the sublayers, and a head by name.

    n_classes is for the head "classifier".
    """

    model = "bert"

    vocab_size: int
    max_len: int = 512
    n_segments: int = 2
    residual: Residual = "post"
    norm_eps: float = 1e-12
    head: Head = "pooled"
    n_classes: int = 2


@dataclass(frozen=True, kw_only=True)
class ReaderConfig(ModelConfig):
    """What a decoder is built from whose every block reads a memory.

    Its embedding is d_embedding wide (d_model unless given), multiplied by its square root unless scale_embedding is
    off; with `tie` it is the matrix before the softmax as well. `embedding_norm` normalises the sum of embeddings and
    positions.
    """

    vocab_size: int
    max_len: int = 512
    positions: Literal["sinusoidal", "learned", "rope", "none"] = "sinusoidal"
    residual: Residual = "post"
    feedforward: FeedForward = "relu"
    d_embedding: int | None = None
    scale_embedding: bool = True
    tie: bool = True
    head_bias: bool = False
    embedding_norm: bool = False
    rope_base: float = 10000.0

    @property
    def decoder_layers(self) -> int:
        """How many blocks the decoder has."""
        return self.n_layers

    @property
    def embedding_width(self) -> int:
        """E, the width of the embedding."""
        return self.d_model if self.d_embedding is None else self.d_embedding


@dataclass(frozen=True, kw_only=True)
class EncDecConfig(ReaderConfig):
    """What an encoder-decoder is built from: n_layers blocks in the encoder, and in the decoder, unless given.

    Source and target share one vocabulary and one embedding.
    """

    model = "encdec"

    n_decoder_layers: int | None = None

    @property
    def decoder_layers(self) -> int:
        """How many blocks the decoder has."""
        return self.n_layers if self.n_decoder_layers is None else self.n_decoder_layers


@dataclass(frozen=True, kw_only=True)
class ViTConfig(ModelConfig):
    """What a vision transformer is built from: square images, cut into square patches.

    Raises ValueError also where the patches do not fill the image.
    """

    model = "vit"

    image_size: int
    patch_size: int
    n_classes: int
    n_channels: int = 3
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")

    @property
    def n_patches(self) -> int:
        """N, into how many patches an image is cut."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class JointConfig(ReaderConfig):
    """What a decoder is built from that reads several encoders at once: theirs by BERT's and ViT's configs, its own.

    An encoder's width, depth and dropout are those of its own config, and so are its head's, which it will not have.
    """

    model = "joint"

    encoders: tuple[BERTConfig | ViTConfig, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.encoders:
            raise ValueError("encoders is empty: there is nothing to read")


@dataclass(frozen=True, kw_only=True)
class MultimodalConfig(Config):
    """What a decoder that reads images among its tokens is built from: a vision encoder's config and a GPT's.

    An image stands in the text as n_image_tokens tokens `image_id`. With `freeze_vision` training leaves the vision
    encoder as it is.
    """

    model = "multimodal"

    vision: ViTConfig
    text: GPTConfig
    image_id: int
    freeze_vision: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_id >= self.text.vocab_size:
            raise ValueError(f"image_id {self.image_id} is outside the vocabulary of {self.text.vocab_size}")
        if self.n_image_tokens > self.text.max_len:
            raise ValueError(f"{self.n_image_tokens} image tokens do not fit max_len {self.text.max_len}")

    @property
    def n_image_tokens(self) -> int:
        """N, how many tokens one image takes: a token a patch."""
        return self.vision.n_patches


@dataclass(frozen=True, kw_only=True)
class Word2VecConfig(Config):
    """How many words a word2vec knows, and how wide their vectors are."""

    model = "word2vec"

    vocab_size: int
    d_model: int


@dataclass(frozen=True, kw_only=True)
class RNNConfig(Config):
    """What a recurrent encoder-decoder is built from: its cell, and how the decoder reads the source.

    `attention` "additive" looks back at every place of the source before each step; with "none" all that the decoder
    ever knows of the source is the encoder's last state. d_embedding is d_model unless given.
    """

    model = "rnn"

    source_vocab_size: int
    target_vocab_size: int
    d_model: int
    d_embedding: int | None = None
    n_layers: int = 1
    cell: Literal["rnn", "gru", "lstm"] = "gru"
    bidirectional: bool = True
    attention: Literal["additive", "none"] = "additive"
    dropout: float = 0.0

    @property
    def embedding_width(self) -> int:
        """E, the width of the embeddings."""
        return self.d_model if self.d_embedding is None else self.d_embedding

    @property
    def max_len(self) -> int:
        """How long a text may be: a recurrence does not count, and so has no limit."""
        return sys.maxsize

    @property
    def memory_width(self) -> int:
        """How many numbers the encoder says of each place: D, or 2 D where it reads in both directions."""
        return 2 * self.d_model if self.bidirectional else self.d_model


def check(name: str, value: Any, kind: Any) -> None:
    """Raise ValueError unless the value is what a field of this kind may hold: one of its choices, a size, or None."""
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ValueError(f"{name} {value!r} is not one of {', '.join(get_args(kind))}")
    if configs := configs_of(kind):
        check_configs(name, value, configs, several=get_origin(kind) is tuple)
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{name} {value!r} is neither True nor False")
    if kind is float and (isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)):
        raise ValueError(f"{name} {value!r} is not a finite number")
    if name.endswith("_id"):
        check_id(name, value)
    elif kind is int or (kind == int | None and value is not None):
        check_size(name, value)


def configs_of(kind: Any) -> tuple[type[Config], ...]:
    """Of which classes the configs are that a field of this kind holds: `A`, `A | B` or `tuple[A | B, ...]`."""
    if isinstance(kind, type) and issubclass(kind, Config):
        return (kind,)
    return tuple(config for part in get_args(kind) for config in configs_of(part))


def check_configs(name: str, value: Any, configs: tuple[type[Config], ...], *, several: bool) -> None:
    """Raise ValueError unless the value is a config of one of these classes, or a tuple of such."""
    if several and not isinstance(value, tuple):
        raise ValueError(f"{name} is a {type(value).__name__}, not a tuple of configs")
    for one in value if several else (value,):
        if not isinstance(one, configs):
            names = " or ".join(config.__name__ for config in configs)
            raise ValueError(f"{name} is a {type(one).__name__}, not a {names}")


def plain(value: Any) -> Any:
    """A field's value as JSON has it: configs as dicts, tuples as lists."""
    if isinstance(value, Config):
        return value.to_dict()
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def revived(value: Any, configs: tuple[type[Config], ...]) -> Any:
    """What `plain` wrote of a config, or of several -> itself; raises ValueError for none of these classes."""
    if not configs or isinstance(value, Config):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(revived(one, configs) for one in value)
    if not isinstance(value, Mapping):
        return value
    named = [config for config in configs if config.model == value.get("model")]
    return (named or configs)[0].from_dict(value)


def check_id(name: str, value: Any) -> None:
    """Raise ValueError unless the value is an integer from 0 on, as a token's id."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} {value!r} is no id: those count from 0")


def check_size(name: str, value: Any) -> None:
    """Raise ValueError unless the value is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} {value!r} is not a positive integer")


PRESETS: dict[str, Any] = {  # of several kinds of config: `GPT(PRESETS["tales"])` is fine by any type checker
    # Devlin et al. 2018, arXiv 1810.04805, with the pooler and no further head: 109,482,240 and 335,141,888 parameters.
    "bert-base": BERTConfig(vocab_size=30522, n_layers=12, d_model=768, n_heads=12, dropout=0.1),
    "bert-large": BERTConfig(vocab_size=30522, n_layers=24, d_model=1024, n_heads=16, dropout=0.1),
    "bert-tiny": BERTConfig(
        vocab_size=2048, n_layers=4, d_model=128, n_heads=4, max_len=128, dropout=0.1, head="pretraining",
    ),
    # Radford et al. 2019, the smallest GPT-2: 124,439,808 parameters.
    "gpt2": GPTConfig(
        vocab_size=50257, n_layers=12, d_model=768, n_heads=12, max_len=1024,
        positions="learned", feedforward="gelu_tanh", bias=True, dropout=0.1,
    ),
    # A Llama in miniature: RMSNorm, SwiGLU, grouped heads (Touvron et al. 2023, arXiv 2302.13971 and 2307.09288).
    "llama-tiny": GPTConfig(
        vocab_size=2048, n_layers=4, d_model=128, n_heads=4, n_kv_heads=2, norm="rms", feedforward="swiglu",
    ),
    # A handwritten digit becomes its name, spelt: 16 patches of 2 x 2 pixels stand before the letters.
    "digits-to-words": MultimodalConfig(
        vision=ViTConfig(image_size=8, patch_size=2, n_channels=1, n_classes=10, n_layers=2, d_model=64, n_heads=4),
        text=GPTConfig(
            vocab_size=32, n_layers=2, d_model=64, n_heads=4, max_len=32, qk_norm=True, embedding_norm=True,
            zero_init=True,
        ),
        image_id=31,
    ),
    # Characters of Shakespeare, GPT-2's design in minutes on a laptop.
    "nano-shakespeare": GPTConfig(
        vocab_size=65, n_layers=4, d_model=128, n_heads=4, max_len=64, positions="learned",
    ),
    # Learns the fastest of all on a CPU: everything that steadies the first steps.
    "tales": GPTConfig(
        vocab_size=2048, n_layers=4, d_model=128, n_heads=4, qk_norm=True, embedding_norm=True, zero_init=True,
    ),
    # Vaswani et al. 2017, arXiv 1706.03762, table 3: 37,000 shared tokens, one matrix for both embeddings and the
    # softmax. 63,082,496 and 214,245,376 parameters, "65" and "213" million in the table. Every matrix has a bias, as
    # in most later code; the paper writes them for the feed-forward layers alone (36,864 and 73,728 fewer).
    "transformer-base": EncDecConfig(vocab_size=37000, n_layers=6, d_model=512, n_heads=8, dropout=0.1),
    "transformer-big": EncDecConfig(vocab_size=37000, n_layers=6, d_model=1024, n_heads=16, dropout=0.3),
    # The original's design in miniature, and what one would build today.
    "transformer-tiny": EncDecConfig(vocab_size=2048, n_layers=2, d_model=128, n_heads=4, dropout=0.1),
    "transformer-tiny-modern": EncDecConfig(
        vocab_size=2048, n_layers=2, d_model=128, n_heads=4, residual="pre", norm="rms", feedforward="swiglu",
        positions="rope", scale_embedding=False, bias=False, qk_norm=True,
    ),
    # Dosovitskiy et al. 2020, arXiv 2010.11929: 86,567,656 parameters.
    "vit-b-16": ViTConfig(image_size=224, patch_size=16, n_classes=1000, n_layers=12, d_model=768, n_heads=12),
    # For scikit-learn's digits: 8 x 8 pixels of one channel.
    "vit-digits": ViTConfig(
        image_size=8, patch_size=2, n_channels=1, n_classes=10, n_layers=3, d_model=64, n_heads=4,
    ),
}  # fmt: skip
