"""Logits -> ids: filters that say what may come next, and loops that let a model go on.

`filters` holds pure functions on logits, `generate` the loop over them; a further way to search (beams, a draft model)
is a further file that takes a model, ids and a KV cache, as `generate.stream` does.
"""

from __future__ import annotations

from tinytrans.sampling.generate import generate, sample, stream

__all__ = ["generate", "sample", "stream"]
