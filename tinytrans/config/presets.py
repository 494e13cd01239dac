"""Presets: names -> configs, the papers' own with their exact counts, and tiny ones."""

from __future__ import annotations

from typing import Any

from tinytrans.config.models import BERTConfig, EncDecConfig, GPTConfig, MultimodalConfig, ViTConfig

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
