"""BERT's pretraining: documentation as it is -> an encoder that guesses hidden words and what belongs together.

Nobody labels anything; the names of the libraries are taken out, so that the model cannot read off what it will be
asked later. What it costs is paid once and kept: `bert` starts from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans import checkpoints
from tinytrans.config import BERTConfig
from tinytrans.data.docs import LIBRARIES, Docs, without_names
from tinytrans.data.masking import IGNORED, MaskedBatch, MaskedBatches, SentencePair, next_sentence_pairs
from tinytrans.models.bert import BERT, PretrainingHead
from tinytrans.nn.masks import padding
from tinytrans.recipes.report import Report, Row, Run
from tinytrans.tokenizers import Tokenizer, WordPieceTokenizer, load_tokenizer
from tinytrans.tokenizers.pair_scores import frequency
from tinytrans.training.feed import to_device
from tinytrans.training.journal import History
from tinytrans.training.loop import evaluating, fit
from tinytrans.training.optim import muon, wsd

BATCH, STEPS, MAX_LEN = 32, 1800, 96
TOGETHER = 8  # paragraphs that stand behind each other make a document
RATE = 0.25  # hidden: more than BERT's 0.15, as a short training wants more to guess (Wettig et al. 2022, 2202.08005)


def mlm(run: Run) -> Report:
    """BERT's two lessons on documentation; words that were hidden and pairs of paragraphs that it never saw.

    The control: always to guess what is most frequent.
    """
    model, tokenizer, history = pretrain(run)
    unseen = batches(paragraphs("validation", tokenizer, run), tokenizer, run)
    some = [unseen[i] for i in range(run.pick(50, 2))]
    rows = {"BERT": guesses(model, some), "control: the commonest": commonest(some)}
    ours, control = rows.values()
    aims = {
        "words >= 0.30": ours["words"] >= 0.3,
        "follows >= 0.10 above the commonest": ours["follows"] >= control["follows"] + 0.1,
    }
    figures = {"parameters": model.n_params, "targets": history.seen, "training_seconds": history.seconds}
    return Report(rows=rows, figures=figures, aims=aims, records=history.records)


def pretrain(run: Run) -> tuple[BERT, Tokenizer, History]:
    """Train the encoder on the paragraphs of the training split, and keep it in the run's folder."""
    texts = corpus("train", run)
    size = run.pick(8192, 300)
    tokenizer = WordPieceTokenizer.train(texts[::4], size, score=frequency)
    taught = batches(tokenizer.encode_batch(texts), tokenizer, run)
    checked = batches(paragraphs("validation", tokenizer, run), tokenizer, run)
    torch.manual_seed(run.seed)
    model = BERT(shape(tokenizer, run)).to(run.device)
    steps = run.pick(STEPS, 4)
    history = fit(
        model,
        taught,
        pretraining_loss,
        steps=steps,
        optimizer=muon(model, 0.02, 4e-3, betas=(0.9, 0.99), iterations=4),
        schedule=partial(wsd, warmup=20, total=steps, decay=steps // 2),
        evaluate=lambda _: guesses(model, (checked[i] for i in range(run.pick(5, 1)))),
        every=run.pick(200, 2),
        progress=run.progress,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    model.save_pretrained(run.folder("mlm"), tokenizer)
    return model, tokenizer, history


def load_pretrained(run: Run) -> tuple[BERT, Tokenizer]:
    """The encoder in eval mode: this run's own, else that which comes with the library (of seed 0), else trained."""
    folder = run.folder("mlm")
    if not (folder / "config.json").exists():
        if run.seed == 0 and not run.quick and "mlm" in checkpoints.names():
            return checkpoints.load("mlm", BERT, device=run.device)
        pretrain(run)
    return BERT.from_pretrained(folder, device=run.device), load_tokenizer(folder)


def shape(tokenizer: Tokenizer, run: Run) -> BERTConfig:
    """A small BERT with norms before the sublayers, which bears a high rate."""
    return BERTConfig(
        vocab_size=tokenizer.vocab_size,
        n_layers=2,
        d_model=run.pick(128, 32),
        n_heads=4,
        max_len=MAX_LEN,
        residual="pre",
        norm_eps=1e-5,
        qk_norm=True,
        bias=False,
        head="pretraining",
    )


def documentation(split: str, run: Run) -> Docs:
    """The paragraphs of a split; for a quick run those of two small libraries alone."""
    return Docs(("networkx", "numpy") if run.quick else LIBRARIES, split=split)


def corpus(split: str, run: Run) -> list[str]:
    """The same as texts without names."""
    return [without_names(part.text) for part in documentation(split, run)[: run.pick(10**6, 400)]]


def paragraphs(split: str, tokenizer: Tokenizer, run: Run) -> list[list[int]]:
    """The same as ids."""
    return tokenizer.encode_batch(corpus(split, run))


def batches(ids: Sequence[Sequence[int]], tokenizer: Tokenizer, run: Run) -> MaskedBatches:
    """Pairs of paragraphs, half of which stand behind each other, as many as there are paragraphs, and masked."""
    documents = [ids[i : i + TOGETHER] for i in range(0, len(ids), TOGETHER)]
    pad, cls, sep, mask = (tokenizer.token_to_id(token) for token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]"))
    pairs: list[SentencePair] = next_sentence_pairs(
        documents,
        len(ids),
        cls_id=cls,
        sep_id=sep,
        max_len=MAX_LEN,
        generator=torch.Generator().manual_seed(run.seed),
    )
    return MaskedBatches(
        pairs,
        BATCH,
        pad_id=pad,
        mask_id=mask,
        vocab_size=tokenizer.vocab_size,
        special_ids=list(tokenizer.special_tokens.values()),
        rate=RATE,
        seed=run.seed,
    )


def asked(model: nn.Module, batch: MaskedBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the hidden tokens alone (N, V), what they were (N,), and logits of "follows" (B, 2)."""
    assert isinstance(model, BERT)
    assert isinstance(model.head, PretrainingHead)
    mask = padding(batch.lengths, batch.ids.shape[1])
    hidden = model.hidden(batch.ids, segments=batch.segments, mask=mask)
    wanted = batch.labels != IGNORED
    return model.head.guess(hidden[wanted]), batch.labels[wanted], model.head.follows(model.head.pooler(hidden))


def pretraining_loss(model: nn.Module, batch: MaskedBatch) -> tuple[Tensor, int]:
    """What `fit` differentiates: the mean surprise at hidden tokens and that at the pairs' classes, added."""
    guessed, labels, follows = asked(model, batch)
    loss = F.cross_entropy(guessed, labels) + F.cross_entropy(follows, batch.unrelated)
    return loss * len(labels), len(labels)


def guesses(model: BERT, unseen: Iterable[MaskedBatch]) -> Row:
    """The share of hidden tokens that are guessed, and of pairs of which it is known whether they follow."""
    words: list[Tensor] = []
    pairs: list[Tensor] = []
    with evaluating(model):
        for each in unseen:
            batch = to_device(each, model.embedding.weight.device)
            guessed, labels, follows = asked(model, batch)
            words.append(guessed.argmax(dim=-1) == labels)
            pairs.append(follows.argmax(dim=-1) == batch.unrelated)
    return {"words": float(torch.cat(words).float().mean()), "follows": float(torch.cat(pairs).float().mean())}


def commonest(unseen: Sequence[MaskedBatch]) -> Row:
    """The same for who always says what is most often right."""
    hidden = torch.cat([batch.labels[batch.labels != IGNORED] for batch in unseen])
    classes = torch.cat([batch.unrelated for batch in unseen])
    return {
        "words": float(hidden.bincount().max() / len(hidden)),
        "follows": float(classes.bincount().max() / len(classes)),
    }
