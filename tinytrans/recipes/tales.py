"""The base models: tales -> a GPT that tells stories and does what an instruction in front of them says.

Other recipes of the tales start from one; what it costs is paid once and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tinytrans import checkpoints
from tinytrans.config import PRESETS, GPTConfig
from tinytrans.data.batches import IGNORED, Batch, PaddedBatches, pad
from tinytrans.data.chat import ASSISTANT, SPECIAL_TOKENS, USER, prompt
from tinytrans.data.tales import Tales, heading
from tinytrans.data.tales_verify import consistent, copied
from tinytrans.models.gpt import GPT
from tinytrans.recipes.answers import LONGEST, obedience, sample_answers, texts
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.tokenizers import BPETokenizer, Tokenizer, load_tokenizer
from tinytrans.training.journal import History
from tinytrans.training.pretrain import pretrain

BATCH, STEPS = 12, 1800


def tales(run: Run) -> Report:
    """A GPT of a million parameters learns from tales in minutes, and stories obey instructions that it never saw.

    The control: the same stories, held against instructions that were not theirs.
    """
    model, tokenizer, history = train_base(run, "tales")
    instructions = held_out(run)
    stories = texts(tokenizer, answers_to(model, tokenizer, instructions, run))
    told = obedience(instructions, stories)
    control = obedience(instructions[1:] + instructions[:1], stories)
    rows = {"tales": told | soundness(stories, run), "control: another's story": control}
    return Report(rows=rows, figures=figures(model, history), aims=aims(told), records=history.records)


def stories(run: Run) -> Report:
    """The same model learns from books: above most tales an instruction stands as a heading, and nobody ever chats.

    It writes what a heading says. Asked in a chat, the control, it does so much less: that is for instruction tuning.
    """
    model, tokenizer, history = train_base(run, "stories")
    instructions = held_out(run)
    rows = {
        "under a heading": obedience(
            instructions, texts(tokenizer, answers_to(model, tokenizer, instructions, run, heading))
        ),
        "control: in a chat": obedience(
            instructions, texts(tokenizer, answers_to(model, tokenizer, instructions, run))
        ),
    }
    return Report(
        rows=rows, figures=figures(model, history), aims=aims(rows["under a heading"]), records=history.records
    )


def aims(told: Row) -> dict[str, bool]:
    """What a base model should have learned: each wish, and the four that most instructions hold."""
    each = {f"{wish} obeyed >= 0.90": told.get(wish, 0.0) >= 0.9 for wish in ("kind", "name", "place", "end")}
    return each | {"these four obeyed together >= 0.80": told["these four"] >= 0.8}


def train_base(run: Run, name: str) -> tuple[GPT, Tokenizer, History]:
    """Train the base model "tales" or "stories" and keep it in the run's folder; what was broken off goes on."""
    chat = name == "tales"
    documents = Tales(run.pick(30_000, 200), seed=run.seed).documents(instructed=0.8, chat=chat)
    unseen = Tales(run.pick(240, 12), seed=run.seed, split="validation").documents(instructed=0.8, chat=chat)
    config = shape(run)
    tokenizer = BPETokenizer.train(documents[::6], config.vocab_size, SPECIAL_TOKENS)
    model = GPT(replace(config, vocab_size=tokenizer.vocab_size)).to(run.device)
    ids, rows = tokenizer.encode_batch(documents), tokenizer.encode_batch(unseen)
    batches = PaddedBatches(ids, BATCH, max_len=config.max_len, seed=run.seed)
    validation = [pad(rows[i : i + BATCH], max_len=config.max_len) for i in range(0, len(rows), BATCH)]
    checkpoint = run.folder(name) / "checkpoint.safetensors"
    history = pretrain(
        model,
        lambda step: unasked(batches[step], tokenizer),
        steps=run.pick(STEPS, 6),
        validation=[unasked(batch, tokenizer) for batch in validation],
        stable=0.5,
        every=run.pick(200, 3),
        checkpoint=checkpoint,
        resume=True,
        progress=run.progress,
    )
    to_the_end(history)
    model.save_pretrained(run.folder(name), tokenizer)
    checkpoint.unlink()
    return model, tokenizer, history


def unasked(batch: Batch, tokenizer: Tokenizer) -> Batch:
    """The same batch, but the instruction in front of a tale is no target.

    What somebody will ask for is chance, and chance is noise in the gradient: without it the story's words are bound
    to the instruction's sooner.
    """
    user, assistant, line = tokenizer.token_to_id(USER), tokenizer.token_to_id(ASSISTANT), tokenizer.encode("\n")[0]
    headed = (batch.ids[:, :1] == user) | (batch.ids == line).any(dim=1, keepdim=True)
    above = ((batch.ids == assistant) | (batch.ids == line)).cumsum(dim=1) == 0
    return Batch(batch.ids, batch.targets.masked_fill(headed & above, IGNORED))


def shape(run: Run) -> GPTConfig:
    """The preset "tales"; in a quick run a quarter of it."""
    full = PRESETS["tales"]
    assert isinstance(full, GPTConfig)
    return replace(full, vocab_size=400, n_layers=2, d_model=32) if run.quick else full


def load_base(run: Run, name: str = "tales") -> tuple[GPT, Tokenizer]:
    """The base model in eval mode: this run's own, else that which comes with the library (of seed 0), else trained."""
    folder = run.folder(name)
    if not (folder / "config.json").exists():
        if run.seed == 0 and not run.quick:
            return checkpoints.load(name, device=run.device)
        train_base(run, name)
    return GPT.from_pretrained(folder, device=run.device), load_tokenizer(folder)


def held_out(run: Run) -> list[str]:
    """Instructions of stories that no model was trained on: animals in plots where training never saw them.

    One in sixteen is so short that training has the same words, with another story.
    """
    return [tale.instruction for tale in Tales(run.pick(400, 8), seed=run.seed + 1, split="test")]


def answers_to(
    model: GPT, tokenizer: Tokenizer, instructions: list[str], run: Run, asked: Callable[[str], str] = prompt
) -> list[list[int]]:
    """The answers by which a model is measured: the same chance for all models that are compared."""
    longest, generator = run.pick(LONGEST, 12), run.generator()
    return sample_answers(model, tokenizer, instructions, generator=generator, longest=longest, asked=asked)


def soundness(stories: list[str], run: Run) -> Row:
    """The share of stories that keep to their own world, and of those that stand in the training texts."""
    corpus = {tale.text for tale in Tales(run.pick(30_000, 200), seed=run.seed)}
    whole = [all(consistent(story).values()) for story in stories]
    return {"consistent": sum(whole) / len(whole), "copied": sum(copied(s, corpus) for s in stories) / len(stories)}


def figures(model: GPT, history: History) -> Row:
    """What the training was like in single numbers."""
    last = history.records[-1]
    speed = history.seen / history.seconds
    told = {"parameters": model.n_params, "tokens": history.seen, "tokens_per_second": speed}
    told["training_seconds"] = history.seconds
    return told | {name: last[name] for name in ("loss", "validation", "perplexity")}
