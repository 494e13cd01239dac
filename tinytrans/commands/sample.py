"""Sample: a saved model and a prompt -> the text goes on, as it is made."""

from __future__ import annotations

import argparse

from tinytrans.commands.speech import Speaker


def run(args: argparse.Namespace) -> int:
    """A trained model goes on from the prompt."""
    speaker = Speaker(args)
    ids = speaker.tokenizer.encode(args.prompt)
    if not ids:
        raise ValueError("the prompt is empty: a model goes on from at least one token")
    speaker.shows(ids, echo=True)
    return 0
