"""Captions: a picture of a digit -> its name, spelt letter by letter in a language of your choice.

The picture's patches stand in front of the letters, and a decoder reads them as if they were words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tinytrans.config import PRESETS, MultimodalConfig
from tinytrans.data.batches import Shuffled
from tinytrans.data.chat import END
from tinytrans.data.digits import Digits, jittered
from tinytrans.data.translation import exact_match, until
from tinytrans.models.multimodal import Multimodal
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.sampling import generate
from tinytrans.tokenizers import CharacterTokenizer, Tokenizer
from tinytrans.training.captions import Captions, caption_batch, caption_loss
from tinytrans.training.journal import History
from tinytrans.training.loop import fit
from tinytrans.training.optim import muon, wsd

LANGUAGE = "sw"  # any of tinytrans.data.numbers.languages(), as long as ten names have less than 30 letters
BATCH, LONGEST = 48, 15  # letters


def captions(run: Run) -> Report:
    """A decoder that reads pictures spells the names of digits that it never saw in a language of your choice.

    The control: the same decoder before a blank picture; it still spells, but cannot know what.
    """
    model, tokenizer, history = learn(run)
    unseen = Digits(split="test", seed=run.seed, language=LANGUAGE)
    rows = {
        "names": measure(model, tokenizer, unseen, unseen.images),
        "control: a blank picture": measure(model, tokenizer, unseen, torch.zeros_like(unseen.images)),
    }
    aims = {
        "exact >= 0.95": rows["names"]["exact"] >= 0.95,
        "blank <= 0.15": rows["control: a blank picture"]["exact"] <= 0.15,
    }
    figures: Row = {"parameters": model.n_params, "held out": len(unseen)}
    return Report(rows=rows, figures=figures, aims=aims, records=history.records)


def learn(run: Run) -> tuple[Multimodal, Tokenizer, History]:
    """Train the preset "digits-to-words" on pictures, a little jittered, and their names."""
    taught, checked = (Digits(split=split, seed=run.seed, language=LANGUAGE) for split in ("train", "validation"))
    tokenizer = CharacterTokenizer.train(taught.names, special_tokens=(END,))
    spelt = tokenizer.encode_batch([name + END for name in taught.names])
    torch.manual_seed(run.seed)
    model = Multimodal(shape(tokenizer)).to(run.device)
    order, steps = Shuffled([1] * len(taught), BATCH, seed=run.seed), run.pick(500, 4)
    batch = partial(caption_batch, n_image_tokens=model.config.n_image_tokens, image_id=model.config.image_id)

    def pictures(step: int) -> Captions:
        some = order[step]
        chance = torch.Generator().manual_seed(1000 * run.seed + step)
        images = jittered(taught.images[some], generator=chance)
        return batch(images, [spelt[label] for label in taught.labels[some].tolist()])

    history = fit(
        model,
        pictures,
        caption_loss,
        steps=steps,
        optimizer=muon(model, 0.03, 6e-3),
        schedule=partial(wsd, warmup=15, total=steps, decay=steps * 2 // 3),
        evaluate=lambda _: measure(model, tokenizer, checked, checked.images),
        every=run.pick(100, 2),
        progress=run.progress,
    )
    return model, tokenizer, to_the_end(history)


def shape(tokenizer: Tokenizer) -> MultimodalConfig:
    """The preset with room for the alphabet, and behind it for the token that stands for a patch."""
    config = PRESETS["digits-to-words"]
    assert isinstance(config, MultimodalConfig)
    text, vision = replace(config.text, vocab_size=tokenizer.vocab_size + 1), replace(config.vision, qk_norm=True)
    return replace(config, text=text, vision=vision, image_id=tokenizer.vocab_size)


def measure(model: Multimodal, tokenizer: Tokenizer, digits: Digits, images: Tensor) -> Row:
    """The share of pictures whose name is right to the letter, and of what was said that is a digit's name at all."""
    said = name(model, tokenizer, images)
    wanted = [digits.names[label] for label in digits.labels.tolist()]
    return {"exact": exact_match(said, wanted), "words": sum(word in digits.names for word in said) / len(said)}


def name(model: Multimodal, tokenizer: Tokenizer, images: Tensor) -> Sequence[str]:
    """What the model says of each picture (B, 1, 8, 8), the likeliest letter at each step."""
    end, N = tokenizer.token_to_id(END), model.config.n_image_tokens
    images = images.to(next(model.parameters()).device)
    room = torch.full((len(images), N), model.config.image_id, device=images.device)
    said = generate(model.given(images), room, max_new_tokens=LONGEST, temperature=0.0, stop=end)[:, N:]
    return [tokenizer.decode(until(ids, end)) for ids in said.tolist()]
