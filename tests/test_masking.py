"""Laws of masking and of sentence pairs: shares as asked, special tokens untouched, negatives from elsewhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinytrans.data.masking import (
    IGNORED,
    MaskedBatch,
    MaskedBatches,
    SentencePair,
    corrupt,
    join,
    next_sentence_pairs,
    pad_pairs,
)

V, MASK, SPECIAL = 50, 4, (0, 1, 2, 3, 4)
CLS, SEP = 2, 3


def draw(shape: tuple[int, ...] = (200, 100), seed: int = 0, **options: float) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, shape, generator=chance)
    return ids, *corrupt(ids, mask_id=MASK, vocab_size=V, special_ids=SPECIAL, generator=chance, **options)


def test_labels_are_the_ids_that_are_asked_for() -> None:
    """A label is the true id or -100, and where it is -100 the input is untouched."""
    ids, inputs, labels = draw()
    asked = labels != IGNORED
    assert torch.equal(labels[asked], ids[asked])
    assert torch.equal(inputs[~asked], ids[~asked])


def test_special_tokens_are_left_alone() -> None:
    """No special token is hidden, asked for or put in, [MASK] excepted, which is put in alone where it is asked."""
    ids, inputs, labels = draw(rate=1.0)
    special = torch.isin(ids, torch.tensor(SPECIAL))
    assert (labels[special] == IGNORED).all()
    assert (labels[~special] != IGNORED).all()
    assert torch.equal(inputs[special], ids[special])
    assert not torch.isin(inputs[~special], torch.tensor([0, 1, 2, 3])).any()


def test_what_cannot_be_masked_is_named() -> None:
    """Ids outside the vocabulary, negative ones too, and a vocabulary of special tokens alone raise ValueError."""
    options = {"mask_id": MASK, "vocab_size": V, "special_ids": SPECIAL}
    for wrong in (-100, V):
        with pytest.raises(ValueError, match=rf"ids from .*{wrong}.* do not lie in 0 ... {V - 1}"):
            corrupt(torch.tensor([[7, wrong]]), **options)
    with pytest.raises(ValueError, match="all 3 tokens are special"):
        corrupt(torch.tensor([[0, 1]]), mask_id=2, vocab_size=3, special_ids=[0, 1])


def test_the_shares_are_as_asked() -> None:
    """Of the ordinary tokens 15 % are asked for; of these 80 % are [MASK], 10 % another, 10 % themselves."""
    ids, inputs, labels = draw((1000, 200))
    asked = labels != IGNORED
    ordinary = ids >= len(SPECIAL)
    assert asked.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.005)
    share = {
        "masked": (inputs == MASK)[asked].float().mean().item(),
        "kept": (inputs == ids)[asked].float().mean().item(),
    }
    assert share["masked"] == pytest.approx(0.8, abs=0.01)
    assert share["kept"] == pytest.approx(0.1 + 0.1 / 45, abs=0.01)  # a random token may be the true one
    everything = draw(rate=0.5, masked=0.0, random=1.0)[1][draw(rate=0.5, masked=0.0, random=1.0)[2] != IGNORED]
    assert everything.unique().tolist() == list(range(5, V))  # any ordinary token is drawn, the last one too


def test_masking_is_dynamic_and_repeatable() -> None:
    """The same generator's next call hides other tokens; the same seed hides the same; the ids stay as they were."""
    ids = torch.arange(5, 45)[None].repeat(4, 1)
    before, chance = ids.clone(), torch.Generator().manual_seed(0)

    def once(chance: torch.Generator) -> Tensor:
        return corrupt(ids, mask_id=MASK, vocab_size=V, special_ids=SPECIAL, generator=chance)[0]

    first, second = once(chance), once(chance)
    assert not torch.equal(first, second)
    assert torch.equal(first, once(torch.Generator().manual_seed(0)))
    assert torch.equal(ids, before)


def test_at_the_ends_of_the_rate() -> None:
    """Rate 0 asks for nothing and rate 1 for everything; shares outside [0, 1] raise ValueError."""
    ids, inputs, labels = draw(rate=0.0)
    assert torch.equal(inputs, ids)
    assert (labels == IGNORED).all()
    for wrong in ({"rate": 1.1}, {"masked": 0.9, "random": 0.2}, {"random": -0.1}):
        with pytest.raises(ValueError, match="are no shares"):
            draw(**wrong)


DOCUMENTS = [[[10 * d + s] * (s + 1) for s in range(4)] for d in range(1, 5)]  # document d, sentence s: ids 10 d + s


def drawn(n: int = 600, seed: int = 0, documents: list[list[list[int]]] = DOCUMENTS) -> list[SentencePair]:
    chance = torch.Generator().manual_seed(seed)
    return next_sentence_pairs(documents, n, cls_id=CLS, sep_id=SEP, generator=chance)


def sentences(pair: SentencePair) -> tuple[list[int], list[int]]:
    end = pair.ids.index(SEP)
    return pair.ids[1:end], pair.ids[end + 1 : -1]


def test_half_of_the_pairs_follow_each_other() -> None:
    """Labels are balanced and true: a positive is the document's next sentence, a negative is from another document."""
    pairs = drawn()
    assert sum(pair.is_next for pair in pairs) / len(pairs) == pytest.approx(0.5, abs=0.06)
    for pair in pairs:
        a, b = sentences(pair)
        if pair.is_next:
            assert b[0] == a[0] + 1
        else:
            assert b[0] // 10 != a[0] // 10


def test_every_document_gives_negatives() -> None:
    """Each other document is drawn alike, the last one too, and sentences from its beginning and its end."""
    pairs = [sentences(pair) for pair in drawn(3000) if not pair.is_next]
    origins = [(a[0] // 10, b[0] // 10) for a, b in pairs]
    for one in range(1, 5):
        for other in range(1, 5):
            share = origins.count((one, other)) / len(origins)
            assert share == pytest.approx(0 if one == other else 1 / 12, abs=0.025)
    assert {b[0] % 10 for _, b in pairs} == {0, 1, 2, 3}


def test_pairs_are_repeatable_and_need_two_documents() -> None:
    """The seed decides; with one document there is no honest negative, and without two sentences no positive."""
    assert drawn(20) == drawn(20)
    assert drawn(20) != drawn(20, seed=1)
    with pytest.raises(ValueError, match="want two and one"):
        drawn(5, documents=DOCUMENTS[:1])
    with pytest.raises(ValueError, match="want two and one"):
        drawn(5, documents=[[[7]], [[8]]])


@given(st.integers(0, 12), st.integers(0, 12), st.integers(3, 20))
def test_a_pair_is_cut_fairly(n: int, m: int, max_len: int) -> None:
    """[CLS] a [SEP] b [SEP] never exceeds max_len, loses nothing that fits, and the longer sentence pays first."""
    pair = join(list(range(100, 100 + n)), list(range(200, 200 + m)), cls_id=CLS, sep_id=SEP, max_len=max_len)
    a, b = sentences(pair)
    assert len(pair.ids) == min(n + m + 3, max_len) == len(pair.segments)
    assert a == list(range(100, 100 + len(a)))
    assert b == list(range(200, 200 + len(b)))
    if len(a) < n and len(b) < m:
        assert abs(len(a) - len(b)) <= 1
    assert pair.segments == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    with pytest.raises(ValueError, match="max_len 2"):
        join([7], [8], cls_id=CLS, sep_id=SEP, max_len=2)


def test_a_batch_is_padded_at_the_end() -> None:
    """Rows are as long as the longest; lengths say how much of each is real, class 1 is what does not follow."""
    pairs = drawn(5)
    batch = pad_pairs(pairs, pad_id=0)
    for row, pair in enumerate(pairs):
        n = len(pair.ids)
        assert batch.ids[row, :n].tolist() == pair.ids
        assert (batch.ids[row, n:] == 0).all()
        assert batch.segments[row, :n].tolist() == pair.segments
        assert (batch.lengths[row], batch.unrelated[row]) == (n, not pair.is_next)
    assert batch.ids.shape == batch.segments.shape == (5, max(len(pair.ids) for pair in pairs))
    with pytest.raises(ValueError, match="there are no pairs"):
        pad_pairs([], pad_id=0)


def masked(pairs: list[SentencePair], seed: int = 0) -> MaskedBatches:
    return MaskedBatches(pairs, 4, pad_id=0, mask_id=MASK, vocab_size=V, special_ids=SPECIAL, rate=0.5, seed=seed)


def test_pairs_are_masked_anew_each_time() -> None:
    """A step is always the same batch; the next epoch shows the same pairs with other tokens hidden."""
    pairs = drawn(12)
    one, two = masked(pairs), masked(pairs)
    assert one.per_epoch == 3
    shown = [one[step] for step in range(6)]
    assert all(torch.equal(a, b) for step in (5, 0, 3) for a, b in zip(two[step], shown[step], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(masked(pairs, seed=1)[0], shown[0], strict=True))

    def told(batches: list[MaskedBatch]) -> list[list[int]]:
        """The pairs behind the masks."""
        rows = []
        for batch in batches:
            whole = torch.where(batch.labels == IGNORED, batch.ids, batch.labels).tolist()
            rows += [row[:n] for row, n in zip(whole, batch.lengths.tolist(), strict=True)]
        return sorted(rows)

    assert told(shown[:3]) == told(shown[3:]) == sorted(pair.ids for pair in pairs)
    hidden = [sorted(row for batch in part for row in batch.ids.tolist()) for part in (shown[:3], shown[3:])]
    assert hidden[0] != hidden[1]
