"""Eval: a saved model and held-out texts -> how well it predicts them."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from tinytrans import device
from tinytrans.commands.speech import opened
from tinytrans.commands.texts import place_of, read_pieces, read_texts
from tinytrans.commands.train import held_out_batches, read_settings
from tinytrans.data import TEXTS
from tinytrans.training.journal import Record
from tinytrans.training.pretrain import evaluate


def run(args: argparse.Namespace) -> int:
    """Print the mean loss in nats a token, the perplexity, and of how many texts and tokens."""
    place = device.pick(args.device)
    model, tokenizer = opened(args.model, place)
    texts = unseen(args)
    batches = held_out_batches(tokenizer, texts, args.batch, model.config.max_len)
    found = evaluate(model, batches)
    tokens = sum(int((batch.targets >= 0).sum()) for batch in batches)
    if args.json:
        print(json.dumps({**only_finite(found), "texts": len(texts), "tokens": tokens}))
        return 0
    figures = f"loss {found['validation']:.3f}, perplexity {found['perplexity']:.2f}"
    print(f"{figures} over {tokens:,} tokens of {len(texts):,} texts")
    return 0


def only_finite(record: Record) -> dict[str, float | None]:
    """A record as JSON has it: an infinite perplexity, or what is no number, is null there.

    >>> only_finite({"validation": 900.0, "perplexity": math.inf})
    {'validation': 900.0, 'perplexity': None}
    """
    return {name: number if math.isfinite(number) else None for name, number in record.items()}


def unseen(args: argparse.Namespace) -> list[str]:
    """The texts to measure on: those held out from training, or all of a file that training has never read."""
    run_file = Path(args.model, "run.json")
    trained_on = read_settings(run_file)["data"] if run_file.exists() else "tales"
    data = trained_on if args.data is None else place_of(args.data)
    if data in TEXTS or data == trained_on:
        return read_texts(data)[1]
    return read_pieces(data)
