"""Tokenize: data -> a tokenizer; or a text -> its ids, or its tokens in quotes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tinytrans.commands.texts import read_texts, standard_input, train_tokenizer
from tinytrans.tokenizers import load_tokenizer


def run(args: argparse.Namespace) -> int:
    """Learn a tokenizer from data; or show how one takes a text apart, as ids or token by token."""
    if args.action == "train":
        learnt = train_tokenizer(read_texts(args.data)[0], args.vocab_size)
        file = Path(args.out)
        file.parent.mkdir(parents=True, exist_ok=True)
        print(f"{learnt.save(file)}: {learnt.vocab_size:,} tokens")
        return 0
    tokenizer = load_tokenizer(args.tokenizer)
    text = standard_input().read() if args.text is None else args.text
    ids = tokenizer.encode(text)
    if args.action == "encode":
        print(*ids)
    else:
        print(*(json.dumps(tokenizer.decode([i]), ensure_ascii=False) for i in ids))
        print(f"{len(ids)} tokens for {len(text)} characters", file=sys.stderr)
    return 0
