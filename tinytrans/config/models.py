"""Models: a few numbers and names -> all that is needed to build one, by kind of model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from tinytrans.config.base import Config, check_positive
from tinytrans.config.rope import RopeScaling, YarnScaling

Norm = Literal["layer", "rms"]
"""A name in `tinytrans.nn.norms.NORMS`."""
Residual = Literal["pre", "post"]
"""A name in `tinytrans.nn.block.RESIDUALS`."""
FeedForward = Literal["gelu", "gelu_tanh", "relu", "relu2", "silu", "swiglu"]
"""A name in `tinytrans.nn.feedforward.FEEDFORWARDS`."""
Head = Literal["pooled", "pretraining", "classifier", "spans"]
"""A name in `tinytrans.models.bert.HEADS`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """What a transformer's blocks are built from; raises ValueError, naming the values, for numbers that none can have.

    Left None, n_kv_heads is n_heads, d_head is d_model / n_heads and d_ff the usual width (`feedforward_width`).
    `residual` says where the norms stand, before each sublayer or after it. `bias` is for every matrix and norm of the
    blocks.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int | None = None
    d_head: int | None = None
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
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        if self.n_heads % self.kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.kv_heads}")
        check_positive(self, "norm_eps", *(["rope_base"] if hasattr(self, "rope_base") else []))
        if getattr(self, "positions", None) == "rope" and self.head_width % 2:
            width = (
                f"d_model {self.d_model} / n_heads {self.n_heads}" if self.d_head is None else f"d_head {self.d_head}"
            )
            raise ValueError(f"rope turns pairs, but {width} is odd")

    @property
    def head_width(self) -> int:
        """K: d_head, or else D / H."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

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

    `rope_scaling` is for texts longer than the model was once trained on. `embedding_norm` normalises the token
    embeddings. `zero_init` starts every output projection at 0, so that at birth each block changes nothing (Zhang et
    al. 2019, arXiv 1901.09321). Raises ValueError also for a rope_scaling without rope, or one that the base forbids.
    """

    model = "gpt"

    vocab_size: int
    max_len: int = 256
    positions: Literal["rope", "learned", "sinusoidal", "alibi", "none"] = "rope"
    bias: bool = False
    window: int | None = None
    tie: bool = True
    rope_base: float = 10000.0
    rope_scaling: RopeScaling | None = None
    embedding_norm: bool = False
    zero_init: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rope_scaling is not None and self.positions != "rope":
            name, positions = self.rope_scaling.model, self.positions
            raise ValueError(f"rope_scaling {name!r} has no rope to scale: positions are {positions!r}")
        if isinstance(self.rope_scaling, YarnScaling) and not self.rope_base > 1:
            raise ValueError(f"rope_base {self.rope_base} is not above 1: yarn wants pairs that turn ever more slowly")


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

    An encoder's width, depth and dropout are those of its own config; the head that its config names, it will not have.
    Raises ValueError also where there is no encoder.
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
    encoder as it is. Raises ValueError also where image_id is outside the text's vocabulary, or no image fits max_len.
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
