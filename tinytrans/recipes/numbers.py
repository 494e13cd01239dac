"""Number words: English -> German, French and Polish, as a sign in front asks; numbers that nobody showed the model.

One encoder-decoder learns the three: the units before the tens, four times twenty and ten, and the cases of thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from tinytrans.config import EncDecConfig
from tinytrans.data.chat import END
from tinytrans.data.numbers import Numbers
from tinytrans.data.splits import Pair
from tinytrans.data.translation import TranslationBatches, exact_match, rows_of, until
from tinytrans.models.encdec import EncoderDecoder
from tinytrans.nn.masks import padding
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.sampling import generate
from tinytrans.tokenizers import BPETokenizer, Tokenizer
from tinytrans.training.journal import History
from tinytrans.training.loop import fit
from tinytrans.training.optim import muon, wsd
from tinytrans.training.translation import translation_loss

LANGUAGES = {"de": "<|de|>", "fr": "<|fr|>", "pl": "<|pl|>"}  # language -> the sign that asks for it
BATCH, LONGEST = 48, 40

Pairs = dict[str, list[Pair]]  # language -> numbers in English and in it


def numbers(run: Run) -> Report:
    """An encoder-decoder translates held-out numbers into three languages, exactly or not at all.

    The control: the same training on sources that were shuffled, so that the decoder speaks the language as well, but
    cannot know of what.
    """
    taught, unseen = pairs(run, "train"), pairs(run, "test")
    tokenizer = BPETokenizer.train(
        [text for some in taught.values() for pair in some for text in pair], 512, (END, *LANGUAGES.values())
    )
    model, history = learn(taught, unseen, tokenizer, run)
    deaf, _ = learn({name: shuffled(some, run) for name, some in taught.items()}, unseen, tokenizer, run)
    rows = {
        "translated": measure(model, unseen, tokenizer),
        "control: sources shuffled": measure(deaf, unseen, tokenizer),
    }
    aims = {f"{name} >= 0.95": rows["translated"][name] >= 0.95 for name in LANGUAGES}
    figures: Row = {"parameters": model.n_params, "held out": sum(map(len, unseen.values()))}
    return Report(rows=rows, figures=figures, aims=aims, records=history.records)


def pairs(run: Run, split: str) -> Pairs:
    """The numbers of a split below 10,000; of those that test, every third."""
    step = 1 if split == "train" else 3
    return {name: Numbers("en", name, limit=run.pick(10_000, 100), split=split)[::step] for name in LANGUAGES}


def shuffled(some: Sequence[Pair], run: Run) -> list[Pair]:
    """The same pairs, but each target behind another's source."""
    order = torch.randperm(len(some), generator=torch.Generator().manual_seed(run.seed)).tolist()
    return [Pair(some[i].source, pair.target) for i, pair in zip(order, some, strict=True)]


def encode(some: Pairs, tokenizer: Tokenizer) -> tuple[list[list[int]], list[list[int]]]:
    """Pairs -> sources with the wanted language's sign in front, targets with the sign that ends them."""
    sources = [LANGUAGES[name] + pair.source for name, them in some.items() for pair in them]
    targets = [pair.target + END for them in some.values() for pair in them]
    return tokenizer.encode_batch(sources), tokenizer.encode_batch(targets)


def learn(taught: Pairs, unseen: Pairs, tokenizer: Tokenizer, run: Run) -> tuple[EncoderDecoder, History]:
    """Train a new model on the pairs."""
    torch.manual_seed(run.seed)
    size, steps = run.pick(128, 32), run.pick(500, 4)
    model = EncoderDecoder(
        EncDecConfig(
            vocab_size=tokenizer.vocab_size,
            n_layers=2,
            d_model=size,
            n_heads=4,
            max_len=LONGEST,
            residual="pre",
            norm="rms",
            positions="rope",
            qk_norm=True,
            bias=False,
        )
    ).to(run.device)
    end = tokenizer.token_to_id(END)
    history = fit(
        model,
        TranslationBatches(*encode(taught, tokenizer), BATCH, start=end, seed=run.seed),
        translation_loss,
        steps=steps,
        optimizer=muon(model, 0.02, 4e-3, iterations=4),
        schedule=partial(wsd, warmup=15, total=steps, decay=steps // 2),
        evaluate=lambda _: measure(model, {name: some[::4] for name, some in unseen.items()}, tokenizer),
        every=run.pick(100, 2),
        progress=run.progress,
    )
    return model, to_the_end(history)


def measure(model: EncoderDecoder, unseen: Pairs, tokenizer: Tokenizer) -> Row:
    """The share of numbers whose translation is right to the letter, language by language."""
    return {
        name: exact_match(translate(model, encode({name: some}, tokenizer)[0], tokenizer), [p.target for p in some])
        for name, some in unseen.items()
    }


def translate(model: EncoderDecoder, sources: Sequence[Sequence[int]], tokenizer: Tokenizer) -> list[str]:
    """What the model says of each source, the likeliest token at each step."""
    device, end = model.embedding.weight.device, tokenizer.token_to_id(END)
    source, lengths = rows_of(sources, end).to(device), torch.tensor([len(ids) for ids in sources], device=device)
    given = model.given(source, mask=padding(lengths, source.shape[1]))
    start = torch.full_like(source[:, :1], end)
    said = generate(given, start, max_new_tokens=LONGEST - 1, temperature=0.0, stop=end)[:, 1:]
    return [tokenizer.decode(until(row, end)) for row in said.tolist()]
