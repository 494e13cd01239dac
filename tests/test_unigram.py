"""Laws of Unigram: equal to enumerating all segmentations, EM climbs, pruning drops the cheapest, ids are Rust's."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrans.data.docs import Docs
from tinytrans.data.tales import Tales
from tinytrans.tokenizers.base import Tokenizer
from tinytrans.tokenizers.lattice import forward_sums, log_add, piece_counts, sample_segmentation, viterbi
from tinytrans.tokenizers.unigram import (
    UnigramTokenizer,
    bayesian,
    em_step,
    expected_counts,
    prune,
    relative,
    removal_costs,
    seed_pieces,
    split,
    train_unigram,
)

TRICKY = [
    "<unk>",
    "<0x41>",
    "<|end|>",
    "▁",
    "  ",
    "\n",
    "\r\n",
    "\u00a0",
    "e\u0301",
    "字",
    "👩‍👩‍👧",
    "\U00010d40",
    "Ж" * 3,
    "\x00",
]
texts = st.lists(st.sampled_from(TRICKY) | st.text(max_size=8), max_size=8).map("".join)
words = st.text("abc", min_size=1, max_size=8)
pieces = st.dictionaries(st.text("abc", min_size=2, max_size=4), st.floats(-9, -0.1), max_size=12).map(
    lambda scores: {"a": -2.0, "b": -2.5, "c": -3.0} | scores
)


@pytest.fixture(scope="module")
def tokenizer() -> UnigramTokenizer:
    return UnigramTokenizer.train((tale.text for tale in Tales(200)), 600, ["<|end|>"])


@pytest.fixture(scope="module")
def tales_words() -> Counter[str]:
    return Counter(word for tale in Tales(100) for word in split(tale.text))


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYTRANS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return [part.text for part in Docs(libraries=("numpy",))]


def segmentations(word: str, scores: Mapping[str, float]) -> Iterator[list[str]]:
    """Every way to cut a word into pieces."""
    if not word:
        yield []
    for end in range(1, len(word) + 1):
        if word[:end] in scores:
            yield from ([word[:end], *rest] for rest in segmentations(word[end:], scores))


def log_probability(parts: list[str], scores: Mapping[str, float]) -> float:
    return sum(scores[part] for part in parts)


@settings(max_examples=100, deadline=None)
@given(words, pieces)
def test_viterbi_finds_the_best_of_all(word: str, scores: dict[str, float]) -> None:
    """No segmentation is more probable than Viterbi's, and Viterbi's is one of them."""
    every = list(segmentations(word, scores))
    found = viterbi(word, scores)
    assert found in every
    assert log_probability(found, scores) == pytest.approx(max(log_probability(parts, scores) for parts in every))


def test_equals_are_decided_as_in_rust() -> None:
    """Of two equally probable segmentations the one with the longest last piece is taken, by Rust too."""
    scores = {"a": -1.0, "b": -1.0, "c": -1.0, "ab": -2.0, "bc": -2.0}
    assert viterbi("abc", scores) == ["a", "bc"]
    own = UnigramTokenizer(scores)
    assert own.encode("abc") == own.encode_batch(["abc"])[0] == [own.vocab["a"], own.vocab["bc"]]


def test_viterbi_is_not_greedy() -> None:
    """By hand: `ab` is the longest piece to begin with, yet `a bc` is more probable than `ab c`."""
    assert viterbi("abc", {"a": -1.0, "b": -1.0, "c": -5.0, "ab": -1.0, "bc": -1.0}) == ["a", "bc"]


@settings(max_examples=100, deadline=None)
@given(words, pieces)
def test_expected_counts_are_sums_over_all_segmentations(word: str, scores: dict[str, float]) -> None:
    """Forward-backward gives the counts, and the log-probability, of enumerating every segmentation."""
    every = list(segmentations(word, scores))
    weights = [math.exp(log_probability(parts, scores)) for parts in every]
    counts: Counter[str] = Counter()
    for parts, weight in zip(every, weights, strict=True):
        for part in parts:
            counts[part] += weight / sum(weights)
    found, total = piece_counts(word, scores)
    assert found == pytest.approx(dict(counts))
    assert total == pytest.approx(math.log(sum(weights))) == pytest.approx(forward_sums(word, scores)[-1])


def test_expected_counts_are_not_the_counts_of_the_best() -> None:
    """By hand: two equally probable segmentations share the count, where hard EM would give it to one."""
    half = math.log(0.5)
    counts, likelihood = expected_counts({"ab": 2}, {"a": half, "b": half, "ab": math.log(0.25)})
    assert counts == pytest.approx({"a": 1.0, "b": 1.0, "ab": 1.0})
    assert likelihood == pytest.approx(2 * math.log(0.5))


def test_expected_counts_cover_every_character(tales_words: Counter[str]) -> None:
    """Counts times lengths sum to the characters of the texts, whatever the scores."""
    counts, _ = expected_counts(tales_words, seed_pieces(tales_words, 500))
    assert sum(len(piece) * count for piece, count in counts.items()) == pytest.approx(
        sum(len(word) * count for word, count in tales_words.items())
    )


def test_em_never_lowers_the_likelihood(tales_words: Counter[str]) -> None:
    """With relative counts each step of EM makes the texts more probable, or leaves them so."""
    scores = seed_pieces(tales_words, 400)
    likelihoods = []
    for _ in range(6):
        counts, likelihood = expected_counts(tales_words, scores)
        likelihoods.append(likelihood)
        scores = relative(counts)
    assert all(after >= before - 1e-6 for before, after in pairwise(likelihoods))
    assert likelihoods[-1] > likelihoods[0] + 100


def test_probabilities_sum_to_one(tales_words: Counter[str]) -> None:
    """Relative counts divide by the sum of *these* counts; SentencePiece's step takes off, and most from the rare."""
    scores = seed_pieces(tales_words, 300)
    assert sum(map(math.exp, scores.values())) == pytest.approx(1)
    stepped = em_step(tales_words, scores, relative)
    assert sum(map(math.exp, stepped.values())) == pytest.approx(1)
    common, rare = bayesian({"a": 1000.0, "b": 1.0}).values()
    plain_common, plain_rare = relative({"a": 1000.0, "b": 1.0}).values()
    assert abs(common - plain_common) < 0.001
    assert rare < plain_rare - 0.5


def test_characters_are_never_dropped(tales_words: Counter[str]) -> None:
    """Neither EM nor pruning loses a character, so every word keeps a segmentation."""
    characters = {char for word in tales_words for char in word}
    scores = train_unigram(tales_words, len(characters) + 5)
    assert characters <= set(scores)
    assert len(scores) == len(characters) + 5
    assert all(score > -math.inf for score in scores.values())
    with pytest.raises(ValueError, match=f"{len(characters) - 1} is less than the {len(characters)}"):
        train_unigram(tales_words, len(characters) - 1)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(words, st.integers(1, 9), min_size=1, max_size=5), pieces)
def test_a_cost_is_never_less_than_the_true_loss(corpus: dict[str, int], scores: dict[str, float]) -> None:
    """Taking one piece away loses at most its cost, and exactly it where the piece is the whole word."""

    def best(scores: Mapping[str, float]) -> float:
        return sum(count * log_probability(viterbi(word, scores), scores) for word, count in corpus.items())

    for piece, cost in removal_costs(corpus, scores).items():
        loss = best(scores) - best({other: score for other, score in scores.items() if other != piece})
        assert -1e-9 <= loss <= cost + 1e-9
    whole = {"abc": -1.0, "a": -2.0, "b": -2.0, "c": -2.0}
    assert removal_costs({"abc": 3}, whole) == {"abc": pytest.approx(3 * (-1.0 + 6.0))}


def test_pruning_keeps_the_most_useful() -> None:
    """By hand: `ab` saves 10 x 3 and `cd` 1 x 3, so of the two `ab` stays; of an unused piece nothing is lost."""
    scores = dict.fromkeys("abcd", -2.0) | {"ab": -1.0, "cd": -1.0, "ac": -1.0}
    corpus = {"ab": 10, "cd": 1}
    assert removal_costs(corpus, scores) == pytest.approx({"ab": 30.0, "cd": 3.0, "ac": 0.0})
    assert set(prune(corpus, scores, 5)) == {*"abcd", "ab"}
    assert prune(corpus, scores, 5)["ab"] == -1.0


def test_the_seed_holds_what_is_frequent_and_long() -> None:
    """By hand: `ana` stands twice in banana, 6 characters; what stands once is no piece, a character always is."""
    assert list(seed_pieces({"banana": 1}, 4)) == ["a", "b", "n", "ana"]
    assert set(seed_pieces({"banana": 1}, 99)) == {"a", "b", "n", "ana", "an", "na"}


def test_samples_follow_the_probabilities() -> None:
    """A segmentation is drawn as often as its share of p^alpha says; a large alpha draws the best alone."""
    scores = {"a": -1.0, "b": -1.5, "c": -1.2, "ab": -2.0, "bc": -2.1}
    every = list(segmentations("abc", scores))
    for alpha in (1.0, 0.2):
        weights = torch.tensor([alpha * log_probability(parts, scores) for parts in every]).softmax(0)
        chance = torch.Generator().manual_seed(0)
        drawn = Counter(tuple(sample_segmentation("abc", scores, alpha=alpha, generator=chance)) for _ in range(3000))
        for parts, share in zip(every, weights.tolist(), strict=True):
            assert drawn[tuple(parts)] / 3000 == pytest.approx(share, abs=0.04)
    assert sample_segmentation("abc", scores, alpha=500.0) == viterbi("abc", scores)


@given(st.floats(-800, 800), st.floats(-800, 800))
def test_logs_are_added_without_overflow(a: float, b: float) -> None:
    """log_add is torch's logaddexp, with -inf for a probability of zero."""
    expected = torch.logaddexp(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)).item()
    assert log_add(a, b) == pytest.approx(expected)
    assert log_add(a, -math.inf) == a == log_add(-math.inf, a)


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_ids_are_those_of_rust_and_lose_nothing(tokenizer: UnigramTokenizer, text: str) -> None:
    """Any text has Rust's ids and comes back from them, but for a literal ▁; no text spells out a byte or <unk>."""
    for special in (True, False):
        ids = tokenizer.encode(text, special=special)
        assert ids == tokenizer.encode_batch([text], special=special)[0]
        assert tokenizer.decode(ids) == text.replace("▁", " ")
    assert tokenizer.token_to_id("<unk>") not in tokenizer.encode(text, special=False)


@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_without_bytes_a_run_of_unknowns_is_one_unknown(text: str) -> None:
    """With `byte_fallback=False` the ids are still Rust's, and neighbours that are no piece share one <unk>."""
    own = UnigramTokenizer({"a": -1.0, "b": -2.0, "ab": -2.5, "▁": -3.0}, byte_fallback=False)
    assert own.encode(text) == own.encode_batch([text])[0]
    assert own.encode("aЖЖb字") == [own.vocab["a"], 0, own.vocab["b"], 0]


def test_real_text_has_the_ids_of_rust(prose: list[str]) -> None:
    """On the documentation of numpy every paragraph is segmented as Rust does, to the last id."""
    own = UnigramTokenizer.train(prose[:100], 600)
    assert [own.encode(text) for text in prose[:1000]] == own.encode_batch(prose[:1000])


def test_training_is_as_good_as_the_rust_trainer(prose: list[str]) -> None:
    """With as many pieces, learned from the same texts, unseen text is as probable as with Rust's: within 3 %."""
    train, unseen = prose[:200], prose[200:400]
    own = train_unigram(Counter(word for text in train for word in split(text)), 299)
    rust = tokenizers.Tokenizer(tokenizers.models.Unigram())
    rust.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    rust.train_from_iterator(train, trainer)
    theirs = {k: v for k, v in json.loads(rust.to_str())["model"]["vocab"] if k != "<unk>"}
    corpus = Counter(word for text in unseen for word in split(text) if set(word) <= set(own) & set(theirs))
    assert expected_counts(corpus, own)[1] > 1.03 * expected_counts(corpus, theirs)[1]


def test_training_is_deterministic(tales_words: Counter[str]) -> None:
    """The same words in another order give the same pieces in the same order, with scores equal to rounding."""
    once = train_unigram(tales_words, 150, seed_size=400)
    again = train_unigram(dict(sorted(tales_words.items())), 150, seed_size=400)
    assert set(once) == set(again)
    assert once == pytest.approx(again)


def test_a_file_is_read_by_ours_and_by_rust(tokenizer: UnigramTokenizer, tmp_path: Path) -> None:
    """Saved and loaded, here or by Rust alone, it gives the same ids and the same text."""
    tokenizer.save(tmp_path)
    text = "Mei met a fox.<|end|> Жук! <unk>"
    for loaded in (UnigramTokenizer.load(tmp_path), Tokenizer.load(tmp_path)):
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text)) == text
        assert loaded.special_tokens == tokenizer.special_tokens
    assert tokenizer.decode(tokenizer.encode(text), special=False) == "Mei met a fox. Жук! "


def test_only_its_own_kind_is_loaded() -> None:
    """A Unigram with another treatment of spaces, or another algorithm, raises ValueError."""
    fast = UnigramTokenizer({"a": -1.0}).fast
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    with pytest.raises(ValueError, match="pre_tokenizer"):
        UnigramTokenizer.from_fast(fast)
    with pytest.raises(ValueError, match="WordLevel"):
        UnigramTokenizer.from_fast(tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>")))


@pytest.mark.oracle
def test_real_text_is_segmented_as_sentencepiece_does(prose: list[str], tmp_path: Path) -> None:
    """With SentencePiece's pieces, 99 % of words are cut as it cuts them; the others, to float32, are as probable."""
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(prose[:300]),
        model_prefix=str(tmp_path / "model"),
        vocab_size=600,
        model_type="unigram",
        normalization_rule_name="identity",
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "model.model"))
    scores = {theirs.id_to_piece(i): theirs.get_score(i) for i in range(3, theirs.vocab_size())}
    found = sorted({word for text in prose[:1000] for word in text.split() if set(word) <= set(scores)})
    same = 0
    for word in found:
        ours, other = viterbi(f"▁{word}", scores), theirs.encode(word, out_type=str)
        same += ours == other
        assert log_probability(ours, scores) == pytest.approx(log_probability(other, scores), rel=1e-5)
    assert len(found) > 2000
    assert same >= 0.99 * len(found)


def test_without_bytes_the_name_of_a_byte_is_text() -> None:
    """Where characters do not fall back to bytes, a piece "<0x41>" is these six characters, in Rust too."""
    own = UnigramTokenizer.train(["<0x41> <0x41> or <0x41>"] * 9, 40, byte_fallback=False)
    ids = own.encode("<0x41> or")
    assert own.decode(ids) == own.fast.decode(ids) == "<0x41> or"
