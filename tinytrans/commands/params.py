"""Params: a preset -> how many parameters it has, part by part."""

from __future__ import annotations

import argparse
import json
from collections import Counter

import torch

from tinytrans.config import PRESETS
from tinytrans.models import build


def run(args: argparse.Namespace) -> int:
    """A preset's parameters, counted on the meta device: nothing is allocated, and a tied matrix counts once."""
    with torch.device("meta"):
        model = build(PRESETS[args.preset])
    parts = Counter({"total": model.n_params})
    for name, weight in model.named_parameters():
        inside = [part for part in ("attention", "cross", "feedforward") if part in name.split(".")]
        parts["norms" if "norm" in name else inside[0] if inside else name.split(".")[0]] += weight.numel()
    if args.json:
        print(json.dumps(parts))
        return 0
    for part, number in parts.items():
        print(f"{part:<12}{number:>16,}{number / parts['total']:>8.1%}")
    return 0
