"""Laws of translation: the decoder reads the right token before each that it is asked for, and nothing at padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tinytrans.config import EncDecConfig, RNNConfig
from tinytrans.data.batches import IGNORED
from tinytrans.data.translation import TranslationBatches, exact_match, rows_of, translation_batch, until
from tinytrans.models.encdec import EncoderDecoder, shift_right
from tinytrans.models.rnn import Seq2Seq
from tinytrans.training.pretrain import next_token_sum
from tinytrans.training.translation import translation_loss

START, PAD = 9, 0
SOURCES = [[1, 2, 3], [4], [5, 6]]
TARGETS = [[7, 8, 3], [2, 3], [1, 2, 1, 3]]


def test_inputs_are_targets_one_step_late() -> None:
    """The decoder reads the start, then each target but the last; nothing is asked for at padding."""
    batch = translation_batch(SOURCES, TARGETS, start=START, pad_id=PAD)
    assert batch.source.tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]]
    assert batch.lengths.tolist() == [3, 1, 2]
    assert batch.targets.tolist() == [[7, 8, 3, IGNORED], [2, 3, IGNORED, IGNORED], [1, 2, 1, 3]]
    asked = batch.targets != IGNORED
    assert torch.equal(batch.inputs[asked], shift_right(batch.targets, START)[asked])


@pytest.mark.parametrize(
    ("sources", "targets", "message"),
    [
        (SOURCES, TARGETS[:2], "3 sources cannot be paired with 2 targets"),
        ([[1], []], [[2], [3]], "source 1 of 2 is empty"),
        ([[1], [2]], [[], [3]], "target 0 of 2 is empty"),
        ([], [], "there are no sequences"),
    ],
)
def test_what_cannot_be_a_pair_is_named(sources: list[list[int]], targets: list[list[int]], message: str) -> None:
    """Unequal numbers and empty sides raise ValueError."""
    with pytest.raises(ValueError, match=message):
        translation_batch(sources, targets, start=START)


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=9))
def test_rows_hold_what_they_were_given(sequences: list[list[int]]) -> None:
    """A row is its sequence and then the filling, as wide as the longest."""
    rows = rows_of(sequences, fill=0).tolist()
    assert {len(row) for row in rows} == {max(map(len, sequences))}
    assert [[*filter(None, row)] for row in rows] == sequences


def test_an_epoch_pairs_each_source_with_its_target() -> None:
    """Every pair comes once an epoch, together, among sources of like length; a step is always the same batch."""
    sources = [[i] * (1 + i * 7 % 13) for i in range(1, 41)]
    stream = TranslationBatches(sources, [[i, 99] for i in range(1, 41)], 4, start=START, seed=3)
    batches = [stream[step] for step in range(stream.per_epoch)]
    assert sorted(int(row[0]) for batch in batches for row in batch.source) == list(range(1, 41))
    assert all(torch.equal(batch.source[:, 0], batch.targets[:, 0]) for batch in batches)
    assert sum(int((batch.source == PAD).sum()) for batch in batches) < 40
    again = TranslationBatches(sources, [[i, 99] for i in range(1, 41)], 4, start=START, seed=3)
    assert torch.equal(again[7].source, batches[7].source)
    assert not torch.equal(stream[0].source, stream[10].source)


def models() -> list[nn.Module]:
    torch.manual_seed(0)
    rnn = RNNConfig(source_vocab_size=10, target_vocab_size=10, d_model=6)
    return [
        Seq2Seq(rnn).double(),
        EncoderDecoder(EncDecConfig(vocab_size=10, n_layers=1, d_model=6, n_heads=2)).double(),
    ]


def alone(model: nn.Module, row: int) -> tuple[Tensor, Tensor]:
    return translation_loss(model, translation_batch(SOURCES[row : row + 1], TARGETS[row : row + 1], start=START))


@pytest.mark.parametrize("kind", [0, 1], ids=["recurrent", "transformer"])
def test_the_loss_of_a_batch_is_that_of_its_pairs(kind: int) -> None:
    """Padding changes nothing: sum and number over a batch are those of its pairs one by one, for either model."""
    model = models()[kind]
    total, count = translation_loss(model, translation_batch(SOURCES, TARGETS, start=START, pad_id=PAD))
    parts = [alone(model, row) for row in range(3)]
    torch.testing.assert_close(total, torch.stack([part for part, _ in parts]).sum())
    assert int(count) == 9 == sum(int(number) for _, number in parts)


def test_teacher_forcing_by_hand() -> None:
    """The loss is that of the model's logits after the right tokens, not after its own."""
    model = models()[0]
    logits = torch.cat([model(torch.tensor([[4]]), torch.tensor([[START, 2][: t + 1]]))[:, -1:] for t in range(2)], 1)
    torch.testing.assert_close(alone(model, 1)[0], next_token_sum(logits, torch.tensor([[2, 3]]))[0])


def test_until_the_stop() -> None:
    """What comes before the first stop sign, and all where there is none."""
    assert until([1, 2, 3, 1, 3], stop=3) == [1, 2]
    assert until([3], stop=3) == []
    assert until((1, 2), stop=3) == [1, 2]


def test_a_translation_is_right_or_wrong() -> None:
    """Exact match counts whole texts; nothing to compare, or unequal numbers, is an error."""
    assert exact_match(["a", "b", "c "], ["a", "b", "c"]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="no translations"):
        exact_match([], [])
    with pytest.raises(ValueError, match="argument 2 is longer"):
        exact_match(["a"], ["a", "b"])
