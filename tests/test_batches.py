"""Laws of batches: targets are the next ids, documents stay apart, and a step is always the same batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrans.config import GPTConfig
from tinytrans.data.batches import (
    IGNORED,
    Batch,
    PackedBatches,
    PaddedBatches,
    WindowBatches,
    pack,
    packed,
    pad,
    windows,
)
from tinytrans.models.gpt import GPT
from tinytrans.training.pretrain import language_model_loss

DOCUMENTS = [[100 * i + j for j in range(2 + i * 7 % 11)] for i in range(1, 24)]
STREAMS = {
    "padded": lambda seed: PaddedBatches(DOCUMENTS, 4, seed=seed),
    "packed": lambda seed: PackedBatches(DOCUMENTS, 16, 3, seed=seed),
    "windows": lambda seed: WindowBatches(torch.arange(97), 8, 5, seed=seed),
}
streams = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
documents = st.lists(st.lists(st.integers(1, 99), min_size=2, max_size=9), min_size=1, max_size=12)


def same(one: Batch, two: Batch) -> bool:
    return all((a is b) or torch.equal(a, b) for a, b in zip(one, two, strict=True))


@given(documents)
def test_a_padded_row_is_its_document(documents: list[list[int]]):
    """Ids and targets of a row are the document without its last and without its first id; the rest is ignored."""
    ids, targets, mask, positions = pad(documents, pad_id=7)
    assert ids.shape == targets.shape == (len(documents), max(map(len, documents)) - 1)
    assert mask is positions is None
    for row, document in enumerate(documents):
        n = len(document) - 1
        assert ids[row].tolist() == document[:-1] + [7] * (ids.shape[1] - n)
        assert targets[row].tolist() == document[1:] + [IGNORED] * (ids.shape[1] - n)


def test_long_documents_are_cut():
    """No row is longer than max_len, and the last target is still the next id."""
    ids, targets, *_ = pad([[1, 2, 3, 4, 5], [6, 7]], max_len=3)
    assert ids.tolist() == [[1, 2, 3], [6, 0, 0]]
    assert targets.tolist() == [[2, 3, 4], [7, IGNORED, IGNORED]]


@given(documents, st.integers(1, 12))
def test_packing_loses_nothing(documents: list[list[int]], T: int):
    """Every document stands in one row, no row is overfull, and no two rows would fit in one."""
    rows = pack(documents, T)
    filled = [sum(min(len(documents[i]) - 1, T) for i in row) for row in rows]
    assert sorted(i for row in rows for i in row) == list(range(len(documents)))
    assert max(filled) <= T
    assert len(filled) < 2 or sum(sorted(filled)[:2]) > T


@given(documents)
@settings(max_examples=40, deadline=None)
def test_packed_documents_do_not_see_each_other(documents: list[list[int]]):
    """A packed document has the ids, the targets and the causal mask that it has alone; nobody sees padding."""
    T = 20
    rows = [[documents[i] for i in row] for row in pack(documents, T)]
    ids, targets, mask, _ = packed(rows, T)
    for r, row in enumerate(rows):
        start = 0
        for document in row:
            here = slice(start, start + len(document) - 1)
            start = here.stop
            assert ids[r, here].tolist() == document[:-1]
            assert targets[r, here].tolist() == document[1:]
            alone = torch.zeros(len(document) - 1, T, dtype=torch.bool)
            alone[:, here] = torch.ones(len(document) - 1, len(document) - 1).tril().bool()
            assert torch.equal(mask[r, here], alone)
        assert (targets[r, start:] == IGNORED).all()
    assert mask.any(dim=-1).all()  # no row of the mask is empty: softmax of nothing is NaN


@given(documents, st.integers(1, 12), st.randoms(use_true_random=False))
def test_only_what_is_learned_is_asked_for(documents: list[list[int]], T: int, chance: random.Random):
    """With `learned`, padded or packed, exactly the learned ids are targets; everything else is as without it."""
    learned = [[chance.random() < 0.5 for _ in ids] for ids in documents]
    rows = pack(documents, T)
    both = [
        (pad(documents, max_len=T), pad(documents, max_len=T, learned=learned)),
        (
            packed([[documents[i] for i in row] for row in rows], T),
            packed(
                [[documents[i] for i in row] for row in rows], T, learned=[[learned[i] for i in row] for row in rows]
            ),
        ),
    ]
    wanted = sorted(
        token
        for ids, these in zip(documents, learned, strict=True)
        for token, true in zip(ids[1 : T + 1], these[1 : T + 1], strict=True)
        if true
    )
    for plain, some in both:
        asked = some.targets != IGNORED
        assert sorted(some.targets[asked].tolist()) == wanted
        assert torch.equal(some.targets[asked], plain.targets[asked])
        assert torch.equal(some.ids, plain.ids)
        for one, other in ((some.mask, plain.mask), (some.positions, plain.positions)):
            assert other is None or torch.equal(one, other)


def test_packed_dialogues_teach_what_they_teach_alone():
    """The loss of packed rows of which the answers are learned is that of the same dialogues one by one."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=20, n_layers=2, d_model=16, n_heads=2, max_len=24)).eval()
    documents = [[1, 5, 6, 2, 7, 8, 3], [1, 9, 2, 4, 3], [1, 5, 5, 5, 2, 6, 3, 1, 7, 2, 8, 3]]
    learned = [[False] * 4 + [True] * 3, [False] * 3 + [True] * 2, [i in (5, 6, 10, 11) for i in range(12)]]
    alone = [
        language_model_loss(model, pad([ids], learned=[these])) for ids, these in zip(documents, learned, strict=True)
    ]
    [batch] = [PackedBatches(documents, 24, 1, learned=learned)[0]]
    total, count = language_model_loss(model, batch)
    assert count == 9 == sum(number for _, number in alone)
    assert total.item() == pytest.approx(sum(part.item() for part, _ in alone), rel=1e-5)
    padded = PaddedBatches(documents, 3, learned=learned)[0]
    assert language_model_loss(model, padded)[0].item() == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.parametrize("make", [partial(PaddedBatches, batch_size=1), partial(PackedBatches, T=8, batch_size=1), pad])
def test_what_is_learned_is_told_of_every_id(make: Callable):
    """`learned` of another length raises ValueError, which names the document and both lengths."""
    with pytest.raises(ValueError, match="learned tells of 1 documents, and there are 2"):
        make([[1, 2], [3, 4]], learned=[[True, True]])
    with pytest.raises(ValueError, match="learned tells of 3 ids of document 1, which has 2"):
        make([[1, 2], [3, 4]], learned=[[True, True], [True] * 3])


def test_windows_are_pieces_of_the_text():
    """A window's targets are its ids one further, and the last start reaches the last id."""
    ids = torch.arange(50, 60)
    inputs, targets = windows(ids, torch.tensor([0, 6]), 3)
    assert inputs.tolist() == [[50, 51, 52], [56, 57, 58]]
    assert targets.tolist() == [[51, 52, 53], [57, 58, 59]]
    for start in (-1, 7):
        with pytest.raises(ValueError, match=r"do not lie in 0 \.\.\. 6"):
            windows(ids, torch.tensor([start]), 3)


def test_windows_reach_both_ends():
    """Every window can be drawn, the first and the last too, and none beyond; one more id than T is enough."""
    stream = WindowBatches(torch.arange(12), 8, 50)
    starts = {row[0] for row in stream[0].ids.tolist()}
    assert starts == {0, 1, 2, 3}
    assert WindowBatches(torch.arange(9), 8, 2)[0].targets[0].tolist() == list(range(1, 9))
    with pytest.raises(ValueError, match="8 ids hold no window of 8 and its target"):
        WindowBatches(torch.arange(8), 8, 2)


@streams
def test_batches_are_numbered_from_0(stream):
    """A step below 0 raises ValueError and is named: a stream without end has no last batch."""
    with pytest.raises(ValueError, match="step -1: batches are numbered from 0"):
        stream(0)[-1]


@streams
def test_a_step_is_always_the_same_batch(stream):
    """Batch `step` depends on seed and step alone, not on what was asked for before; another seed gives others."""
    one, two = stream(0), stream(0)
    walked = list(islice(one, 30))
    assert all(same(two[step], walked[step]) for step in reversed(range(30)))
    assert not same(walked[0], walked[29])
    assert not all(same(stream(1)[step], walked[step]) for step in range(5))


@streams
def test_a_stream_resumes_exactly(stream):
    """A stream that is stopped and loaded goes on with the batch that would have come; another seed is refused."""
    whole = stream(5)
    for _ in range(9):
        next(whole)
    resumed = stream(5).load_state_dict(whole.state_dict())
    assert all(same(next(resumed), next(whole)) for _ in range(9))
    with pytest.raises(ValueError, match="seed 5 cannot go on in one of seed 6"):
        stream(6).load_state_dict(whole.state_dict())


def test_an_epoch_shows_each_document_once():
    """Within an epoch no document comes twice, and over many epochs none is forgotten."""
    stream = PaddedBatches(DOCUMENTS, 4)
    epochs = [[i for step in range(5 * e, 5 * e + 5) for i in stream.numbers(step)] for e in range(20)]
    assert stream.per_epoch == 5
    assert all(max(Counter(epoch).values()) == 1 for epoch in epochs)
    assert {i for epoch in epochs for i in epoch} == set(range(len(DOCUMENTS)))
    assert epochs[0] != epochs[1]


def test_sorting_saves_padding():
    """Documents of like length come together, so a smaller share of the batch is padding."""
    many = [[1] * (2 + i * 37 % 101) for i in range(400)]

    def padding(sort: int) -> int:
        stream = PaddedBatches(many, 8, sort=sort)
        return sum(int((stream[step].targets == IGNORED).sum()) for step in range(stream.per_epoch))

    assert 3 * padding(16) < padding(1)


def test_too_few_documents_are_named():
    """Fewer documents than a batch holds is an error that names both numbers."""
    with pytest.raises(ValueError, match="23 rows do not fill one batch of 24"):
        PaddedBatches(DOCUMENTS, 24)


def test_a_batch_moves_whole():
    """All tensors of a batch move to the device, and an absent mask stays absent."""
    assert {part.device.type for part in packed([[[1, 2]]], 3).to("meta")} == {"meta"}
    assert pad([[1, 2]]).to("meta").mask is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pad([]), "0 documents, max_len None"),
        (lambda: pad([[1], [2]]), "2 documents, max_len None: no token follows another"),
        (lambda: pad([[1, 2]], max_len=0), "max_len 0"),
        (lambda: PaddedBatches(DOCUMENTS, 0), "batch_size 0 counts from 1"),
        (lambda: PaddedBatches([], 2), "0 rows do not fill one batch of 2"),
        (lambda: PackedBatches([[1, 2], []], 4, 1), "documents of at least 2 ids"),
        (lambda: PackedBatches(DOCUMENTS, 0, 1), "rows of 0 positions"),
        (lambda: WindowBatches(torch.arange(9), 3, -1), "batch_size -1"),
        (lambda: WindowBatches(torch.arange(3), 3, 1), "3 ids hold no window of 3"),
    ],
)
def test_what_fills_no_batch_is_refused(make: Callable[[], object], message: str) -> None:
    """No documents, empty ones and sizes below 1 raise ValueError and name the numbers."""
    with pytest.raises(ValueError, match=message):
        make()
