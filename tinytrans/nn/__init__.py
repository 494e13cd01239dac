"""Tensor -> tensor: the parts of which every model is built.

One alphabet, in code, docstrings and lessons alike:

    B batch          T queries (target positions)   S keys (source positions)
    D width          H heads                        G key/value heads
    K head width     F feed-forward width           V vocabulary

A mask is a bool tensor, True = may look, of shape (T, S) or (B, T, S); masks combine with `&`.
"""
