"""Laws of recurrent models. Oracles: the readable forms with the same weights, one row at a time, plain loops."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import RNNConfig
from tinytrans.models.encdec import shift_right
from tinytrans.models.rnn import Seq2Seq, teacher_forced_loss, told
from tinytrans.nn.recurrent import additive_scores, attention_pool, gru_step, reverse, unroll
from tinytrans.sampling import beam_search, generate

B, S, T, E, D, M, A, V_S, V_T = 3, 6, 4, 5, 7, 8, 9, 13, 11
LENGTHS = torch.tensor([4, 6, 1])
VARIANTS = [
    {"cell": cell, "bidirectional": both, "attention": attention, "n_layers": n}
    for (cell, both, attention), n in zip(
        product(("rnn", "gru", "lstm"), (True, False), ("additive", "none")), [1, 2] * 6, strict=True
    )
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ids(rows: int, length: int, V: int, seed: int = 0) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def model(**changes: Any) -> Seq2Seq:
    """A tiny model in double precision whose weights are large enough to have opinions."""
    torch.manual_seed(0)
    config = {"source_vocab_size": V_S, "target_vocab_size": V_T, "d_model": D, "d_embedding": E}
    seq2seq = Seq2Seq(RNNConfig(**{**config, **changes})).double().eval()
    for parameter in seq2seq.parameters():
        nn.init.normal_(parameter, std=0.7)
    return seq2seq


def weights_of(rnn: nn.RNNBase, layer: int, end: str = "") -> list[Tensor]:
    """W_x, W_h and the biases of one layer of torch's, or of its reverse direction."""
    return [getattr(rnn, f"{kind}_l{layer}{end}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_encoder_reads_from_both_ends(n_layers: int) -> None:
    """In each layer both directions' last states reach the decoder's, and both outputs the next layer."""
    encoder, source = model(n_layers=n_layers).encoder, ids(B, S, V_S)
    outputs, (state,) = encoder(source, LENGTHS)
    x, zero = encoder.embedding(source), torch.zeros(B, D).double()
    for layer in range(n_layers):
        w, w_back = weights_of(encoder.rnn, layer), weights_of(encoder.rnn, layer, "_reverse")
        forth, end = unroll(x, zero, LENGTHS, *w)
        back, begin = unroll(reverse(x, LENGTHS), zero, LENGTHS, *w_back)
        x = torch.cat((forth, reverse(back, LENGTHS)), dim=-1)
        torch.testing.assert_close(state[layer], encoder.bridge[0](torch.cat((end, begin), dim=-1)).tanh())
    torch.testing.assert_close(outputs, x)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_decoder_step_by_hand(n_layers: int) -> None:
    """The last layer's state before the step asks, the encoder's outputs answer, the cells read token and context."""
    seq2seq = model(n_layers=n_layers)
    decoder, memory = seq2seq.decoder, seq2seq.read(ids(B, S, V_S), LENGTHS)
    token = ids(B, 1, V_T)
    logits, (state,), weights = decoder(token, memory, memory.state)
    attention = decoder.attention
    w = attention.query.weight, attention.key.weight, attention.score.weight[0]
    scores = additive_scores(memory.state[0][-1], memory.values, *w)
    context, expected = attention_pool(scores, memory.values, memory.mask)
    torch.testing.assert_close(weights[:, 0], expected)
    x = torch.cat((decoder.embedding(token[:, 0]), context), dim=-1)
    for layer in range(n_layers):
        x = gru_step(x, memory.state[0][layer], *weights_of(decoder.rnn, layer))
        torch.testing.assert_close(state[layer], x)
    torch.testing.assert_close(logits[:, 0], decoder.head(torch.cat((x, context), dim=-1)))


def test_told_is_the_decoder() -> None:
    """The readable form, told the targets, gives the logits and weights of a decoder that reads them shifted right."""
    seq2seq, source, targets = model(), ids(B, S, V_S), ids(B, T, V_T, seed=1)
    decoder, memory = seq2seq.decoder, seq2seq.read(source, LENGTHS)
    nn.init.zeros_(decoder.head.bias)
    attention = decoder.attention
    look = attention.query.weight, attention.key.weight, attention.score.weight[0]
    logits, weights = told(
        targets, 0, decoder.embedding.weight, memory.state[0][0], memory.values, memory.mask,
        look, weights_of(decoder.rnn, 0), decoder.head.weight,
    )  # fmt: skip
    inputs = shift_right(targets, start=0)
    torch.testing.assert_close(logits, seq2seq(source, inputs, lengths=LENGTHS))
    torch.testing.assert_close(weights, seq2seq.align(source, inputs, lengths=LENGTHS))


def test_the_loss_ends_with_the_first_stop() -> None:
    """Each token up to and with its row's first stop counts once; nothing behind it does; logits of 0 cost ln V."""
    logits, stop = draw(B, T, V_T), 1
    targets = torch.tensor([[5, 1, 1, 7], [4, 3, 2, 1], [1, 9, 9, 9]])
    counted = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    expected = sum(-logits[b, t].log_softmax(0)[targets[b, t]] for b, t in counted) / len(counted)
    torch.testing.assert_close(teacher_forced_loss(logits, targets, stop), expected)
    assert teacher_forced_loss(torch.zeros(B, T, V_T), targets, stop).item() == pytest.approx(math.log(V_T))


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant: dict[str, Any]) -> None:
    """Each row of a padded batch gets the logits that it gets alone, whatever stands in its padding."""
    seq2seq, source, target = model(**variant), ids(B, S, V_S), ids(B, T, V_T, seed=1)
    together = seq2seq(source, target, lengths=LENGTHS)
    assert together.shape == (B, T, V_T)
    for b, n in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(together[b : b + 1], seq2seq(source[b : b + 1, :n], target[b : b + 1]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_step_sees_a_later_target(variant: dict[str, Any]) -> None:
    """Another token at t changes the logits from t on, and none before; every source token matters to all of them."""
    seq2seq, source, target = model(**variant), ids(1, S, V_S), ids(1, T, V_T, seed=1)
    logits = seq2seq(source, target)
    changed = target.clone()
    changed[0, 2] = (changed[0, 2] + 1) % V_T
    gap = (seq2seq(source, changed) - logits).abs().amax(dim=(0, 2))
    assert not gap[:2].any()
    assert (gap[2:] > 1e-9).all()
    for s in range(S):
        other = source.clone()
        other[0, s] = (other[0, s] + 1) % V_S
        assert ((seq2seq(other, target) - logits).abs().amax(dim=(0, 2)) > 1e-9).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_translation_is_teacher_forcing_of_itself(variant: dict[str, Any]) -> None:
    """Told what it has said, the model would say it again, and looks where it looked."""
    seq2seq, source = model(**variant), ids(B, S, V_S)
    said = seq2seq.translate(source, start=0, stop=V_T - 1, max_new_tokens=8, lengths=LENGTHS)
    inputs = shift_right(said.ids, start=0)
    best = seq2seq(source, inputs, lengths=LENGTHS).argmax(-1)
    running = (inputs[:, 1:] != V_T - 1).cumprod(dim=1).bool()  # before anything has stopped
    assert torch.equal(best[:, 0], said.ids[:, 0])
    assert torch.equal(best[:, 1:][running], said.ids[:, 1:][running])
    if variant["attention"] == "none":
        assert said.weights is None
        with pytest.raises(ValueError, match="no attention"):
            seq2seq.align(source, inputs, lengths=LENGTHS)
    else:
        assert said.weights is not None
        looked = seq2seq.align(source, inputs, lengths=LENGTHS)
        torch.testing.assert_close(said.weights, looked)
        torch.testing.assert_close(looked.sum(-1), torch.ones_like(looked[..., 0]))
        assert not looked.transpose(1, 2)[torch.arange(S) >= LENGTHS[:, None]].any()


def test_a_translation_ends_at_its_stop() -> None:
    """A row repeats its stop once it has said it; when all have, or at max_new_tokens, the translation ends."""
    seq2seq, source = model(), ids(8, S, V_S)
    free = seq2seq.translate(source, start=0, stop=V_T + 1, max_new_tokens=9).ids
    assert free.shape == (8, 9)
    for stop in free.unique().tolist():
        said = seq2seq.translate(source, start=0, stop=stop, max_new_tokens=9).ids
        ends = [row.index(stop) + 1 if stop in row else 9 for row in free.tolist()]
        assert said.shape[1] == max(ends)
        for b, end in enumerate(ends):
            assert said[b].tolist() == free[b, :end].tolist() + [stop] * (max(ends) - end)
    assert seq2seq.translate(source, start=0, stop=0, max_new_tokens=0).ids.shape == (8, 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_given_its_source_the_decoder_is_a_language_model(variant: dict[str, Any]) -> None:
    """`generate` says greedily what `translate` says, by a state that is carried on as by reading all anew."""
    seq2seq, source = model(**variant), ids(B, S, V_S)
    start = torch.zeros(B, 1, dtype=torch.long)
    said = seq2seq.translate(source, start=0, stop=V_T - 1, max_new_tokens=8, lengths=LENGTHS).ids
    options = {"max_new_tokens": 8, "temperature": 0.0, "stop": V_T - 1}
    for use_cache in (True, False):
        told = generate(seq2seq.given(source, lengths=LENGTHS), start, use_cache=use_cache, **options)
        assert torch.equal(told[:, 1:], said)


@pytest.mark.parametrize("variant", VARIANTS)
def test_beams_of_a_recurrent_model(variant: dict[str, Any]) -> None:
    """A beam as wide as all there is finds the likeliest target of three tokens, with a cache and without."""
    seq2seq, source = model(**variant), ids(B, S, V_S)
    given, start = seq2seq.given(source, lengths=LENGTHS), torch.zeros(B, 1, dtype=torch.long)
    every = torch.cartesian_prod(*[torch.arange(V_T)] * 3)  # (V^3, 3)
    for use_cache in (True, False):
        found = beam_search(given, start, max_new_tokens=3, beams=V_T**2, length_penalty=0.0, use_cache=use_cache)
        for b in range(B):
            inputs = torch.cat((torch.zeros(len(every), 1, dtype=torch.long), every[:, :2]), dim=1)
            alone = seq2seq.given(source[b : b + 1, : LENGTHS[b]])
            log_p = alone(inputs).log_softmax(-1).gather(-1, every[:, :, None]).sum(dim=(1, 2))
            assert found.ids[b, 0].tolist() == every[log_p.argmax()].tolist()
            torch.testing.assert_close(found.scores[b, 0], log_p.max().to(found.scores.dtype))


def test_a_model_of_nan_does_not_translate() -> None:
    """Logits of NaN or infinity raise FloatingPointError with the step and the row, also behind a row's stop."""
    seq2seq = model(attention="none").eval()
    for value in (float("nan"), float("inf")):
        with torch.no_grad():
            seq2seq.decoder.head.bias[3] = value
        with pytest.raises(FloatingPointError, match="row 0 hold NaN or infinity at step 0"):
            seq2seq.translate(torch.tensor([[1, 2]]), start=0, stop=3, max_new_tokens=4)


def test_a_state_is_all_that_is_kept() -> None:
    """A cache of a recurrent model has one size, begins anew, but cannot go back; rows must be those of the sources."""
    given, start = model().given(ids(B, S, V_S)), torch.zeros(B, 1, dtype=torch.long)
    cache = given.new_cache(B)
    size, first = cache.nbytes, given(start, cache=cache)
    given(start, cache=cache)
    assert (cache.length, cache.nbytes, cache.batch) == (2, size, B)
    with pytest.raises(ValueError, match="cannot rewind to 1: a state of 2 tokens"):
        cache.rewind(1)
    cache.reset()
    assert torch.equal(given(start, cache=cache), first)
    with pytest.raises(ValueError, match=f"{B + 1} rows of ids are not a multiple of the {B} sources"):
        given(torch.zeros(B + 1, 1, dtype=torch.long))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_weight(variant: dict[str, Any]) -> None:
    """The loss of one batch moves every parameter."""
    seq2seq = model(**variant)
    logits = seq2seq(ids(B, S, V_S), ids(B, T, V_T, seed=1), lengths=LENGTHS)
    F.cross_entropy(logits.flatten(0, 1), ids(B, T, V_T, seed=2).flatten()).backward()
    silent = [name for name, p in seq2seq.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_dropout_acts_while_training_only() -> None:
    """In eval mode the same input gives the same logits; in training mode dropout makes them differ."""
    seq2seq, source, target = model(dropout=0.5), ids(B, S, V_S), ids(B, T, V_T)
    assert torch.equal(seq2seq(source, target), seq2seq(source, target))
    seq2seq.train()
    assert not torch.equal(seq2seq(source, target), seq2seq(source, target))


@pytest.mark.parametrize(
    ("source", "target", "lengths", "message"),
    [
        (ids(2, S, V_S), ids(2, T, V_T), torch.tensor([7, 1]), r"\[7, 1\] do not lie in 1 ... 6"),
        (ids(2, S, V_S), ids(2, T, V_T), torch.tensor([0, 1]), r"\[0, 1\] do not lie in 1 ... 6"),
        (ids(2, S, V_S), ids(2, T, V_T), torch.tensor([1]), r"shape \(1,\), but there are 2 sources"),
        (ids(2, S, V_S), ids(3, T, V_T), None, "3 targets do not fit 2 sources"),
        (torch.tensor([[V_S]]), torch.tensor([[0]]), None, f"id {V_S} .* source vocabulary of {V_S}"),
        (torch.tensor([[0]]), torch.tensor([[V_T]]), None, f"id {V_T} .* target vocabulary of {V_T}"),
    ],
)
def test_what_does_not_fit_is_refused(source: Tensor, target: Tensor, lengths: Tensor | None, message: str) -> None:
    """Lengths and ids that do not fit raise ValueError and are named beside what is allowed."""
    with pytest.raises(ValueError, match=message):
        model()(source, target, lengths=lengths)


@pytest.mark.parametrize("variant", VARIANTS[:4])
def test_it_is_saved_and_opened(variant: dict[str, Any], tmp_path: Path) -> None:
    """What was saved says the same when opened again; an unknown cell is refused by name."""
    seq2seq = model(**variant).float()
    seq2seq.save_pretrained(tmp_path)
    opened = Seq2Seq.from_pretrained(tmp_path)
    assert opened.config == seq2seq.config
    source, target = ids(B, S, V_S), ids(B, T, V_T)
    assert torch.equal(opened(source, target), seq2seq(source, target))
    with pytest.raises(ValueError, match="cell 'qrnn' is not one of rnn, gru, lstm"):
        model(cell="qrnn")


@pytest.mark.parametrize("attention", ["additive", "none"])
def test_it_learns(attention: str) -> None:
    """Two dozen sources and what is to be said of them, their reverse and a stop, are learnt by heart."""
    torch.manual_seed(0)
    seq2seq = Seq2Seq(RNNConfig(source_vocab_size=6, target_vocab_size=7, d_model=24, attention=attention))
    source = ids(24, 3, 6)
    target = torch.cat((source.flip(1), torch.full((24, 1), 6)), dim=1)
    optimizer = torch.optim.Adam(seq2seq.parameters(), lr=0.02)
    inputs = shift_right(target, start=6)
    for _ in range(70):
        optimizer.zero_grad()
        F.cross_entropy(seq2seq(source, inputs).flatten(0, 1), target.flatten()).backward()
        optimizer.step()
    said = seq2seq.eval().translate(source, start=6, stop=6, max_new_tokens=9).ids
    assert torch.equal(said, target)
