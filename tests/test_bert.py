"""Laws of BERT. Oracles: known counts, torch's encoder layer, doing without padding, brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import PRESETS, BERTConfig
from tinytrans.data.masking import join, pad_pairs
from tinytrans.models import load_model
from tinytrans.models.bert import BERT, HEADS, best_span
from tinytrans.nn.masks import padding

V, L, D, H, B, T, C = 31, 2, 12, 3, 4, 7, 5
TINY = BERTConfig(vocab_size=V, n_layers=L, d_model=D, n_heads=H, max_len=16, n_segments=3, n_classes=C)


def ids(rows: int = B, length: int = T, size: int = V, seed: int = 0) -> Tensor:
    return torch.randint(size, (rows, length), generator=torch.Generator().manual_seed(seed))


def model(**changes: Any) -> BERT:
    """A model in float64 whose every part counts."""
    torch.manual_seed(0)
    bert = BERT(replace(TINY, **changes)).double().eval()
    for parameter in bert.parameters():
        nn.init.normal_(parameter, std=0.5)
    return bert


@pytest.mark.parametrize(("name", "total"), [("bert-base", 109_482_240), ("bert-large", 335_141_888)])
def test_has_its_number_of_parameters(name: str, total: int) -> None:
    """The published encoders, the pooler included, have 109,482,240 and 335,141,888 parameters."""
    with torch.device("meta"):
        assert BERT(PRESETS[name]).n_params == total


def test_heads_by_hand() -> None:
    """The pretraining head adds a transform, a norm, a bias for each token and two classes, but no second V D."""
    trunk = BERT(TINY).n_params - (D * D + D)
    sizes = {
        "pooled": D * D + D,
        "pretraining": (D * D + D) + 2 * D + V + (D * D + D) + 2 * D + 2,
        "classifier": (D * D + D) + C * D + C,
        "spans": 2 * D + 2,
    }
    assert sizes.keys() == HEADS.keys()
    for head, size in sizes.items():
        assert BERT(replace(TINY, head=head)).n_params == trunk + size


def test_tokens_are_guessed_one_by_one() -> None:
    """The logits of some tokens alone are those that all together have there."""
    bert, where = model(head="pretraining"), torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < 0.3
    hidden = bert.hidden(ids())
    torch.testing.assert_close(bert.head.guess(hidden[where]), bert(ids())[0][where])


def test_the_head_and_the_data_agree_on_what_follows() -> None:
    """Class 0 is the pair that follows, in the batches as in the published head: trained on them, it says so."""
    pairs = [join([7, word], [word], cls_id=1, sep_id=2, is_next=True) for word in (8, 9)]
    pairs += [join([7, word], [17 - word], cls_id=1, sep_id=2, is_next=False) for word in (8, 9)]
    batch = pad_pairs(pairs, pad_id=0)
    assert batch.unrelated.tolist() == [0, 0, 1, 1]
    torch.manual_seed(0)
    bert = BERT(replace(TINY, head="pretraining", residual="pre", norm_eps=1e-5))
    optimizer = torch.optim.Adam(bert.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(bert(batch.ids, segments=batch.segments)[1], batch.unrelated).backward()
        optimizer.step()
    follows = bert(batch.ids, segments=batch.segments)[1].softmax(dim=-1)[:, 0]
    assert (follows > 0.5).tolist() == [pair.is_next for pair in pairs]


def test_the_tokens_head_is_the_embedding() -> None:
    """The matrix before the masked tokens' softmax is the embedding itself, on any device and after loading a state."""
    bert = BERT(replace(TINY, head="pretraining"))
    assert bert.head.tokens.weight is bert.embedding.weight
    bert.load_state_dict(model(head="pretraining").state_dict())
    bert.double()
    assert bert.head.tokens.weight.data_ptr() == bert.embedding.weight.data_ptr()


def test_is_written_out() -> None:
    """Norm of the sum of three embeddings, torch's post-norm layers, tanh of the first place: that is all."""
    bert = model(feedforward="relu", norm_eps=0.1)
    segments = ids(size=3, seed=1)
    x = bert.embedding.weight[ids()] + bert.position.weight[:T] + bert.segment.weight[segments]
    x = F.layer_norm(x, (D,), bert.embedding_norm.weight, bert.embedding_norm.bias, 0.1)
    for block in bert.encoder.blocks:
        layer = nn.TransformerEncoderLayer(
            D, H, 4 * D, dropout=0.0, layer_norm_eps=0.1, batch_first=True, dtype=torch.float64
        )
        layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias = block.attention.qkv.parameters()
        layer.self_attn.out_proj = block.attention.out
        layer.norm1, layer.norm2 = block.attention_norm, block.feedforward_norm
        layer.linear1, layer.linear2 = block.feedforward.up, block.feedforward.down
        x = layer.train()(x)  # in eval mode torch takes a path of its own, which wants its own norms
    torch.testing.assert_close(bert.hidden(ids(), segments=segments), x)
    pooled = torch.tanh(x[:, 0] @ bert.head.pooler.dense.weight.T + bert.head.pooler.dense.bias)
    torch.testing.assert_close(bert(ids(), segments=segments), pooled)


def test_each_token_knows_all_the_others() -> None:
    """A change at the last place is seen at the first, and one at the first at the last: nothing is causal."""
    bert = model()
    for changed, seen in ((T - 1, 0), (0, T - 1)):
        other = ids()
        other[:, changed] = (other[:, changed] + 1) % V
        assert not torch.allclose(bert.hidden(ids())[:, seen], bert.hidden(other)[:, seen])


def test_padding_changes_nothing() -> None:
    """A sentence says the same alone as padded in a batch, whatever stands in the padding."""
    bert = model(head="pretraining")
    lengths = torch.tensor([T, 3, 5, 1])
    tokens, follows = bert(ids(), mask=padding(lengths, T))
    for row, n in enumerate(lengths.tolist()):
        alone, alone_follows = bert(ids()[row : row + 1, :n])
        torch.testing.assert_close(tokens[row, :n], alone[0])
        torch.testing.assert_close(follows[row], alone_follows[0])


def test_segments_count() -> None:
    """Without segments all tokens are of the first one; another segment gives other vectors."""
    bert = model()
    first = torch.zeros_like(ids())
    assert torch.equal(bert.hidden(ids()), bert.hidden(ids(), segments=first))
    assert not torch.allclose(bert.hidden(ids()), bert.hidden(ids(), segments=first + 1))


def test_heads_have_their_shapes() -> None:
    """Heads answer for each token, for the sequence, or both."""
    shapes = {"pooled": (B, D), "classifier": (B, C)}
    for head, shape in shapes.items():
        assert model(head=head)(ids()).shape == shape
    assert [tuple(x.shape) for x in model(head="pretraining")(ids())] == [(B, T, V), (B, 2)]
    assert [tuple(x.shape) for x in model(head="spans")(ids())] == [(B, T), (B, T)]


def test_the_span_head_reads_each_place_alone() -> None:
    """Start and end logits are two linear views of each place's vector."""
    bert = model(head="spans")
    start, end = bert(ids())
    expected = bert.hidden(ids()) @ bert.head.ends.weight.T + bert.head.ends.bias
    torch.testing.assert_close(start, expected[..., 0])
    torch.testing.assert_close(end, expected[..., 1])


def test_the_first_loss_is_ln_v() -> None:
    """A new model finds every token and both answers equally likely: losses ln V and ln 2."""
    torch.manual_seed(0)
    tokens, follows = BERT(replace(TINY, head="pretraining"))(ids())
    loss = F.cross_entropy(tokens.flatten(0, 1), ids(seed=1).flatten())
    assert loss.item() == pytest.approx(torch.tensor(float(V)).log().item(), abs=0.05)
    assert F.cross_entropy(follows, ids(size=2)[:, 0]).item() == pytest.approx(0.6931, abs=0.05)


def test_every_parameter_learns() -> None:
    """Both lessons of pretraining together reach every parameter of the model."""
    bert = model(head="pretraining")
    tokens, follows = bert(ids(), segments=ids(size=3, seed=1))
    (tokens.square().mean() + follows.square().mean()).backward()
    idle = [name for name, parameter in bert.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert idle == []


def test_with_head_keeps_what_was_learnt() -> None:
    """Another head on the same encoder: vectors and pooler stay, the rest of the head is new, and nothing is shared."""
    bert = model(head="pretraining")
    tuned = bert.with_head("classifier", n_classes=6)
    assert tuned.config == replace(bert.config, head="classifier", n_classes=6)
    torch.testing.assert_close(tuned.hidden(ids()), bert.hidden(ids()))
    assert torch.equal(tuned.head.pooler.dense.weight, bert.head.pooler.dense.weight)
    assert tuned(ids()).shape == (B, 6)
    before = bert.hidden(ids())
    for parameter in tuned.parameters():
        parameter.data.zero_()
    assert torch.equal(bert.hidden(ids()), before)


@pytest.mark.parametrize("head", HEADS)
def test_is_saved_and_read(head: str, tmp_path: Any) -> None:
    """What is written is read back with its head, its ties and its every number."""
    bert = model(head=head)
    bert.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, BERT)
    assert again.config == bert.config
    assert again.n_params == bert.n_params
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), bert.parameters(), strict=True))


def test_spans_that_cannot_be_are_refused() -> None:
    """An answer of no token, logits of other places and a mask of other places raise ValueError with both values."""
    logits = torch.zeros(2, 5)
    with pytest.raises(ValueError, match="max_len 0 counts from 1"):
        best_span(logits, logits, max_len=0)
    for end, mask in ((torch.zeros(2, 4), None), (logits, torch.ones(1, 5, dtype=torch.bool))):
        with pytest.raises(ValueError, match=r"of one shape \(B, T\), not \(2, 5\), "):
            best_span(logits, end, mask=mask)
    nowhere = torch.zeros(2, 5, dtype=torch.bool)
    assert best_span(logits + torch.arange(5), logits, mask=nowhere).tolist() == [[0, 0], [0, 0]]


def test_the_best_span_is_the_best_by_trying_all() -> None:
    """Of all spans that begin before they end, stand in the mask and are short enough, the best is taken."""
    generator = torch.Generator().manual_seed(0)
    start, end = (torch.randn(B, T, generator=generator) for _ in range(2))
    mask = padding(torch.tensor([7, 3, 1, 5]), T)[:, 0]
    for longest in (None, 1, 2):
        found = best_span(start, end, mask=mask, max_len=longest).tolist()
        for row in range(B):
            spans = [
                (i, j)
                for i in range(T)
                for j in range(i, T if longest is None else min(T, i + longest))
                if mask[row, i] and mask[row, j]
            ]
            assert tuple(found[row]) == max(spans, key=lambda s: (start[row, s[0]] + end[row, s[1]]).item())


@pytest.mark.parametrize(
    ("given", "segments", "message"),
    [
        (ids(length=17), None, "17 positions are more than max_len 16"),
        (ids() + 25, None, f"outside the vocabulary of {V}"),
        (ids(), ids(size=3) + 2, "outside the segments of 3"),
        (ids(), ids(length=6, size=3), r"\(4, 6\), the ids \(4, 7\)"),
        (ids()[0], None, r"\(7,\)"),
        (ids().double(), None, "float64"),
    ],
)
def test_what_cannot_be_read_is_refused(given: Tensor, segments: Tensor | None, message: str) -> None:
    """Ids and segments that do not fit raise ValueError and name both sizes."""
    with pytest.raises(ValueError, match=message):
        BERT(TINY)(given, segments=segments)
