"""Laws of the encoder-decoder. Oracles: torch's encoder and decoder layers, known counts, doing without a cache."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import PRESETS, EncDecConfig
from tinytrans.models import load_model
from tinytrans.models.encdec import EncoderDecoder, shift_right
from tinytrans.nn import masks
from tinytrans.nn.block import Block
from tinytrans.nn.positions import sinusoidal
from tinytrans.sampling import beam_search, generate, pad_left

V, D, H, FF, B, S, T = 31, 12, 3, 20, 2, 7, 5
ORIGINAL = EncDecConfig(vocab_size=V, n_layers=2, n_decoder_layers=3, d_model=D, n_heads=H, d_ff=FF, max_len=24)
MODERN = {
    "residual": "pre",
    "norm": "rms",
    "feedforward": "swiglu",
    "positions": "rope",
    "bias": False,
    "qk_norm": True,
    "n_kv_heads": 1,
    "scale_embedding": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "original": {},
    "modern": MODERN,
    "pre-norm": {"residual": "pre"},
    "no positions": {"positions": "none"},
    "narrow embedding": {"d_embedding": 8, "head_bias": True},
    "learned positions": {"positions": "learned", "embedding_norm": True, "scale_embedding": False},
}


def ids(rows: int = B, length: int = S, seed: int = 0) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


SOURCE, TARGET = ids(), ids(length=T, seed=1)


def model(name: str = "original", **changes: Any) -> EncoderDecoder:
    """A model of that variant in float64, its weights random enough that every part counts."""
    torch.manual_seed(0)
    encdec = EncoderDecoder(replace(ORIGINAL, **{**VARIANTS[name], **changes})).double().eval()
    for parameter in encdec.parameters():
        nn.init.normal_(parameter, std=0.4)
    return encdec


# ---- sizes and shared weights


@pytest.mark.parametrize(("name", "total"), [("transformer-base", 63_082_496), ("transformer-big", 214_245_376)])
def test_the_originals_are_counted(name: str, total: int) -> None:
    """The base and big model of 2017 have 63,082,496 and 214,245,376 parameters, counted layer by layer."""
    c = PRESETS[name]
    attention, feedforward = 4 * (c.d_model**2 + c.d_model), 8 * c.d_model**2 + 5 * c.d_model
    encoder, decoder = attention + feedforward + 4 * c.d_model, 2 * attention + feedforward + 6 * c.d_model
    with torch.device("meta"):
        assert EncoderDecoder(c).n_params == 37000 * c.d_model + 6 * (encoder + decoder) == total


def test_one_matrix_serves_all_three() -> None:
    """Source, target and softmax share one parameter by identity, also after loading, saving and a change of dtype."""
    tied, free = model(), model(tie=False)
    assert tied.head.weight is tied.embedding.weight
    assert free.n_params - tied.n_params == V * D
    tied.load_state_dict(model().state_dict())
    tied.float()
    assert tied.head.weight.data_ptr() == tied.embedding.weight.data_ptr()


def test_tied_through_a_projection() -> None:
    """Where the embedding is narrower than the stream, it is widened, and the stream narrowed for the same matrix."""
    encdec = model("narrow embedding")
    assert encdec.head.weight is encdec.embedding.weight
    assert encdec.head.weight.shape == (V, 8)
    assert model(d_embedding=8).n_params == model().n_params - V * (D - 8) + 2 * D * 8
    memory = encdec.encode(SOURCE)
    x, _ = encdec.embed(TARGET, torch.arange(T), encdec.place)
    pe = sinusoidal(torch.arange(T), D)
    torch.testing.assert_close(x, math.sqrt(8) * encdec.embedding.weight[TARGET] @ encdec.widen.weight.T + pe)
    expected = encdec.decoder(x, memory) @ encdec.narrow.weight.T @ encdec.embedding.weight.T + encdec.head.bias
    torch.testing.assert_close(encdec(SOURCE, TARGET), expected)


def test_lengths_are_a_mask() -> None:
    """Told the sources' lengths the model does as with the mask of their padding; a mask given beside hides more."""
    encdec, lengths = model(), torch.tensor([S, 4])
    mask = masks.padding(lengths, S)
    expected = encdec(SOURCE, TARGET, source_mask=mask)
    torch.testing.assert_close(encdec(SOURCE, TARGET, lengths=lengths), expected, rtol=0, atol=0)
    assert not torch.equal(encdec(SOURCE, TARGET), expected)
    more = masks.padding(torch.tensor([3, S]), S)
    both = encdec(SOURCE, TARGET, lengths=lengths, source_mask=more)
    torch.testing.assert_close(both, encdec(SOURCE, TARGET, source_mask=masks.padding(torch.tensor([3, 4]), S)))


# ---- equal to torch's layers


def to_torch(block: Block, norm_first: bool) -> nn.Module:
    """torch's layer with a block's weights."""
    kind = nn.TransformerEncoderLayer if block.cross is None else nn.TransformerDecoderLayer
    layer = kind(D, H, FF, 0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64)
    pairs = [(layer.self_attn, block.attention)]
    if block.cross is None:
        layer.norm1, layer.norm2 = block.attention_norm, block.feedforward_norm
    else:
        pairs.append((layer.multihead_attn, block.cross))
        layer.norm1, layer.norm2, layer.norm3 = block.attention_norm, block.cross_norm, block.feedforward_norm
    for theirs, ours in pairs:
        theirs.in_proj_weight, theirs.in_proj_bias = ours.qkv.parameters()
        theirs.out_proj = ours.out
    layer.linear1, layer.linear2 = block.feedforward.up, block.feedforward.down
    return layer.train()  # in eval mode torch takes a path of its own, which wants its own norms


@pytest.mark.parametrize("name", ["original", "pre-norm"])
def test_is_torchs_transformer(name: str) -> None:
    """With its weights in torch's layers the model says the same, padding of the source included.

    Every decoder layer there is given the last encoder output.
    """
    encdec, norm_first = model(name), name == "pre-norm"
    mask = masks.padding(torch.tensor([S, 4]), S)
    hidden = ~mask[:, 0]  # torch says True where nobody may look

    def embed(tokens: Tensor) -> Tensor:
        return encdec.embedding.weight[tokens] * math.sqrt(D) + sinusoidal(torch.arange(tokens.shape[1]), D)

    memory = embed(SOURCE)
    for block in encdec.encoder.blocks:
        memory = to_torch(block, norm_first)(memory, src_key_padding_mask=hidden)
    memory = encdec.encoder.norm(memory)
    x = embed(TARGET)
    for block in encdec.decoder.blocks:
        x = to_torch(block, norm_first)(
            x, memory, tgt_mask=~masks.causal(T), memory_key_padding_mask=hidden, tgt_is_causal=False
        )
    logits = encdec.decoder.norm(x) @ encdec.embedding.weight.T
    torch.testing.assert_close(encdec(SOURCE, TARGET, source_mask=mask), logits)
    assert isinstance(encdec.decoder.norm, nn.Identity) != norm_first  # after the last block only where it is needed


# ---- who sees what


@pytest.mark.parametrize("name", VARIANTS)
def test_no_target_sees_a_later_one(name: str) -> None:
    """A change of target t changes no logits before t, and those at t."""
    encdec = model(name)
    before = encdec(SOURCE, TARGET)
    for t in range(T):
        other = TARGET.clone()
        other[:, t] = (other[:, t] + 1) % V
        after = encdec(SOURCE, other)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.allclose(after[:, t], before[:, t])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_target_sees_the_whole_source(name: str) -> None:
    """A change of any source token changes every logit and every place of the memory: nothing there is causal."""
    encdec = model(name)
    for s in range(S):
        other = SOURCE.clone()
        other[:, s] = (other[:, s] + 1) % V
        assert ((encdec.encode(other) - encdec.encode(SOURCE)).abs().amax(dim=-1) > 1e-9).all()
        assert ((encdec(other, TARGET) - encdec(SOURCE, TARGET)).abs().amax(dim=-1) > 1e-9).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_changes_nothing(name: str) -> None:
    """A source says the same alone as padded in a batch, whatever stands in the padding, for encoder and decoder."""
    encdec, lengths = model(name), torch.tensor([S, 3])
    mask = masks.padding(lengths, S)
    padded = encdec(SOURCE, TARGET, source_mask=mask)
    torch.testing.assert_close(padded[1:], encdec(SOURCE[1:, :3], TARGET[1:]))
    noise = torch.where(mask[:, 0], SOURCE, ids(seed=2))
    torch.testing.assert_close(encdec(noise, TARGET, source_mask=mask), padded)


def test_every_block_reads_the_same_memory() -> None:
    """Each block of the decoder reads the encoder's last output, whatever the one before has made of the target."""
    encdec = model()
    seen: list[Tensor] = []
    for block in encdec.decoder.blocks:
        block.cross.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    memory = encdec.encode(SOURCE)
    encdec.decode(TARGET, memory)
    assert len(seen) == 3
    assert all(read is memory for read in seen)


# ---- generation


def count_calls(module: nn.Module, counts: dict[str, int], name: str) -> None:
    module.register_forward_hook(lambda *_: counts.update({name: counts.get(name, 0) + 1}))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_cache_changes_nothing(name: str) -> None:
    """Decoding in pieces with a cache and a remembered memory gives the logits of decoding all at once."""
    encdec, mask = model(name), masks.padding(torch.tensor([S, 4]), S)
    expected = encdec(SOURCE, TARGET, source_mask=mask)
    memory = encdec.decoder.remember(encdec.encode(SOURCE, mask=mask))
    cache = encdec.new_cache(B, T)
    pieces = [
        encdec.decode(piece, memory, memory_mask=mask, cache=cache)
        for piece in (TARGET[:, :2], TARGET[:, 2:3], TARGET[:, 3:])
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected)
    assert cache.length == T


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_is_the_argmax_at_every_step(name: str, use_cache: bool) -> None:
    """Generation appends at each step the token that the whole model, run anew, finds likeliest."""
    encdec, mask = model(name), masks.padding(torch.tensor([S, 4]), S)
    said = torch.full((B, 1), 1)
    for _ in range(12):
        said = torch.cat((said, encdec(SOURCE, said, source_mask=mask)[:, -1:].argmax(dim=-1)), dim=1)
    given = encdec.given(SOURCE, mask=mask)
    start = torch.full((B, 1), 1)
    assert torch.equal(generate(given, start, max_new_tokens=12, temperature=0.0, use_cache=use_cache), said)


def test_the_source_is_read_once() -> None:
    """A generation runs the encoder once, and makes each block's keys and values of the memory once."""
    encdec, counts = model(), dict[str, int]()
    count_calls(encdec.encoder, counts, "encoder")
    count_calls(encdec.decoder, counts, "decoder")
    made = []
    for block in encdec.decoder.blocks:
        original = block.cross.keys_values
        block.cross.keys_values = lambda memory, make=original: made.append(1) or make(memory)
    generate(encdec.given(SOURCE), TARGET, max_new_tokens=9)
    assert counts == {"encoder": 1, "decoder": 9}
    assert len(made) == 3


def test_generation_is_without_dropout() -> None:
    """A model in training mode generates without dropout, in the encoder too, and is in training mode afterwards."""
    encdec = model(dropout=0.5)
    expected = generate(encdec.given(SOURCE), TARGET, max_new_tokens=6, temperature=0.0)
    encdec.train()
    assert torch.equal(generate(encdec.given(SOURCE), TARGET, max_new_tokens=6, temperature=0.0), expected)
    assert all(module.training for module in encdec.modules())


def test_a_source_may_stand_for_several_rows() -> None:
    """Rows of ids that are k times the sources read each source k times in turn, as beams do."""
    encdec, mask = model(), masks.padding(torch.tensor([S, 4]), S)
    rows = ids(rows=6, length=T, seed=3)
    expected = encdec(SOURCE.repeat_interleave(3, 0), rows, source_mask=mask.repeat_interleave(3, 0))
    torch.testing.assert_close(encdec.given(SOURCE, mask=mask)(rows), expected)
    with pytest.raises(ValueError, match="3 rows of ids are not a multiple of the 2 sources"):
        encdec.given(SOURCE)(rows[:3])


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_padding_on_the_left_changes_nothing(name: str, use_cache: bool) -> None:
    """Beginnings of unequal length, padded on the left, go on as each alone, in greedy and in beam search."""
    encdec, mask = model(name), masks.padding(torch.tensor([S, 4]), S)
    begun, pads = pad_left([[1, 5, 9], [1]])
    options: dict[str, Any] = {"max_new_tokens": 6, "use_cache": use_cache}
    together = generate(encdec.given(SOURCE, mask=mask), begun, temperature=0.0, pads=pads, **options)
    beams = beam_search(encdec.given(SOURCE, mask=mask), begun, beams=3, pads=pads, **options)
    for row, n in enumerate(pads.tolist()):
        given = encdec.given(SOURCE[row : row + 1], mask=mask[row : row + 1])
        alone = generate(given, begun[row : row + 1, n:], temperature=0.0, **options)
        assert torch.equal(together[row, n:], alone[0])
        found = beam_search(given, begun[row : row + 1, n:], beams=3, **options)
        assert torch.equal(beams.ids[row], found.ids[0])


def test_learned_positions_end() -> None:
    """Beyond max_len a learned position raises ValueError with both numbers, in the source and in the target."""
    encdec = model("learned positions", max_len=4)
    with pytest.raises(ValueError, match="7 positions are more than max_len 4"):
        encdec.encode(SOURCE)
    with pytest.raises(ValueError, match="5 positions are more than max_len 4"):
        encdec(SOURCE[:, :4], TARGET)


def test_a_cache_of_another_decoder_is_refused() -> None:
    """A cache with fewer layers than the decoder raises ValueError, and names both."""
    encdec = model()
    cache = model(n_decoder_layers=1).new_cache(len(TARGET))
    with pytest.raises(ValueError, match=r"cache for 1 layers .* does not fit a model of 3 layers"):
        encdec.decode(TARGET, encdec.encode(SOURCE), cache=cache)


# ---- learning


def test_shifted_right_by_hand() -> None:
    """The decoder reads the start token and all targets but the last; -100 becomes the start token."""
    targets = torch.tensor([[5, 6, 7], [8, -100, -100]])
    assert shift_right(targets, start=2).tolist() == [[2, 5, 6], [2, 8, 2]]
    assert targets.tolist() == [[5, 6, 7], [8, -100, -100]]


def test_a_place_without_loss_is_seen_by_none_with_one() -> None:
    """What `shift_right` puts for -100 at the end of a row changes no logits where a loss is taken."""
    encdec = model()
    targets = torch.tensor([[5, 6, 7, 8, 9], [8, 4, -100, -100, -100]])
    read = shift_right(targets, start=2)
    other = read.clone()
    other[1, 3:] = 17  # what was read for the second and third -100
    with_loss = targets >= 0
    assert torch.equal(encdec(SOURCE, read)[with_loss], encdec(SOURCE, other)[with_loss])


def test_embeddings_are_as_large_as_positions() -> None:
    """At birth scaled embeddings and sines have a mean square of 1 and 1/2, and the first loss is about ln V + 1/2."""
    torch.manual_seed(0)
    encdec = EncoderDecoder(replace(ORIGINAL, vocab_size=500, d_model=48))
    assert (encdec.embedding.weight * math.sqrt(48)).square().mean().item() == pytest.approx(1.0, abs=0.03)
    source, target, label = (torch.randint(500, (64, 6)) for _ in range(3))
    loss = F.cross_entropy(encdec(source, target).flatten(0, 1), label.flatten())
    assert loss.item() == pytest.approx(math.log(500) + 0.5, abs=0.1)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_learns(name: str) -> None:
    """The logits' gradient reaches every parameter, the encoder's through cross-attention."""
    encdec = model(name)
    encdec(SOURCE, TARGET).square().sum().backward()
    idle = [n for n, parameter in encdec.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert idle == []


# ---- saved, and refused


@pytest.mark.parametrize("name", VARIANTS)
def test_is_saved_and_read(name: str, tmp_path: Any) -> None:
    """What is written is read back with its ties, and says the same."""
    encdec = model(name)
    encdec.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, EncoderDecoder)
    assert again.config == encdec.config
    assert again.head.weight is again.embedding.weight
    assert torch.equal(again(SOURCE, TARGET), encdec(SOURCE, TARGET))


def test_what_does_not_fit_is_refused() -> None:
    """Ids outside the vocabulary, another number of rows and a full cache raise ValueError and name both sides."""
    encdec = model()
    with pytest.raises(ValueError, match=f"id {V} is outside the vocabulary of {V}"):
        encdec(SOURCE.clone().fill_(V), TARGET)
    with pytest.raises(ValueError, match=rf"mask of the memory has shape \(1, {B}, 2\), not"):
        encdec.decode(TARGET, encdec.encode(SOURCE), memory_mask=torch.ones(1, B, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"lengths have shape \(1,\), the source \(2, 7\)"):
        encdec(SOURCE, TARGET, lengths=torch.tensor([3]))
    with pytest.raises(ValueError, match="id -100 is outside"):
        encdec(SOURCE, TARGET.clone().fill_(-100))
    with pytest.raises(ValueError, match="a target of 1 rows does not fit a memory of 2"):
        encdec(SOURCE, TARGET[:1])
    with pytest.raises(ValueError, match="0 positions and 5 new ones exceed the cache's max_len 4"):
        encdec.decode(TARGET, encdec.encode(SOURCE), cache=encdec.new_cache(B, 4))
    for source, target in (([[1, 2]], TARGET), (SOURCE, [[1, 2]]), (SOURCE, None)):
        with pytest.raises(ValueError, match="not a tensor"):
            encdec(source, target)
