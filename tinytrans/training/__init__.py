"""Loss and batches -> weights: one loop for every phase, and what a phase brings to it.

A loss names no model class, and the loop names no loss: `fit(model, batches, loss, steps=200, ...)`.
"""
