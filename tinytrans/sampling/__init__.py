"""Logits -> ids: filters that say what may come next, and loops that let a model go on.

`filters` holds pure functions on logits, `generate` the loop over them, `beam` the search for the likeliest answer,
`speculative` the loop with a draft model.
"""

from __future__ import annotations

from tinytrans.sampling.beam import beam_search
from tinytrans.sampling.choose import sample
from tinytrans.sampling.generate import generate, pad_left, stream
from tinytrans.sampling.speculative import speculate

__all__ = ["beam_search", "generate", "pad_left", "sample", "speculate", "stream"]
