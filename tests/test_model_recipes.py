"""Laws of the recipes of single models: comparisons are fair, measures count what they say, nothing held out leaks."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from tinytrans.data.batches import IGNORED
from tinytrans.data.dates import Dates
from tinytrans.data.digits import Digits
from tinytrans.data.docs import LIBRARIES, Paragraph
from tinytrans.data.splits import Pair
from tinytrans.models.bert import BERT
from tinytrans.models.multimodal import Multimodal
from tinytrans.models.vit import patchify, unpatchify
from tinytrans.nn.masks import padding
from tinytrans.recipes import bert, captions, dates, mlm, numbers, vit, words
from tinytrans.recipes.report import Run
from tinytrans.tokenizers import BPETokenizer, CharacterTokenizer, WordPieceTokenizer

QUICK = Run(quick=True)


def test_attention_is_compared_at_equal_size() -> None:
    """The model without attention has as many parameters as the one with it, give or take four in a hundred."""
    letters = dates.Letters(Dates(2000)[:])
    with_, without = (dates.build(kind, letters, Run()).n_params for kind in ("additive", "none"))
    assert without == pytest.approx(with_, rel=0.04)


def test_dates_are_counted_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A date counts in all and among those of its length; lengths that do not occur are left out."""
    pairs = [Pair("7 Nov 2026", "2026-11-07"), Pair("8 Nov 2026", "2026-11-08"), Pair("7 November 2026", "2026-11-07")]
    monkeypatch.setattr(dates, "translate", lambda *_: ["2026-11-07", "2026-11-07", "2026-11-07"])
    letters = dates.Letters(pairs)
    row = dates.measure(dates.build("none", letters, QUICK), pairs, letters)
    assert row == {"exact": pytest.approx(2 / 3), "to 12": 0.5, "13 to 20": 1.0}


def test_dates_are_translated_one_by_one() -> None:
    """A date in company of longer ones is translated as alone, and the model's mode stays."""
    pairs = Dates(12)[:]
    letters = dates.Letters(pairs)
    model = dates.build("additive", letters, QUICK).train()
    together = dates.translate(model, pairs, letters)
    assert together == [text for pair in pairs for text in dates.translate(model, [pair], letters)]
    assert model.training


def test_a_sign_asks_for_the_language() -> None:
    """Sources begin with the sign of their target's language, and targets end."""
    some = {"de": [Pair("two", "zwei")], "pl": [Pair("two", "dwa"), Pair("one", "jeden")]}
    tokenizer = BPETokenizer.train(["two zwei dwa one jeden"], 300, (numbers.END, *numbers.LANGUAGES.values()))
    sources, targets = numbers.encode(some, tokenizer)
    assert [tokenizer.decode(ids) for ids in sources] == ["<|de|>two", "<|pl|>two", "<|pl|>one"]
    assert [ids[0] for ids in sources] == [tokenizer.token_to_id(sign) for sign in ("<|de|>", "<|pl|>", "<|pl|>")]
    assert all(ids.index(tokenizer.token_to_id(numbers.END)) == len(ids) - 1 for ids in targets)


def test_shuffled_sources_know_nothing() -> None:
    """The control sees the same sources and the same targets, but hardly one with its own."""
    some = numbers.pairs(Run(), "train")["fr"]
    mixed = numbers.shuffled(some, Run())
    assert Counter(pair.source for pair in mixed) == Counter(pair.source for pair in some)
    assert [pair.target for pair in mixed] == [pair.target for pair in some]
    assert sum(a == b for a, b in zip(mixed, some, strict=True)) < 10


def test_numbers_are_held_out_in_every_language() -> None:
    """No number that tests was trained on in any language."""
    taught, unseen = (numbers.pairs(Run(), split) for split in ("train", "test"))
    for name in numbers.LANGUAGES:
        assert len(unseen[name]) > 300
        assert not {pair.source for pair in unseen[name]} & {p.source for some in taught.values() for p in some}


@pytest.fixture(scope="module")
def docs() -> list[str]:
    return mlm.corpus("validation", QUICK)[:300]


@pytest.fixture(scope="module")
def tokenizer(docs: list[str]) -> WordPieceTokenizer:
    return WordPieceTokenizer.train(docs, 400)


def test_no_name_is_learned(docs: list[str]) -> None:
    """In what BERT reads no library is named, in pretraining nor later."""
    assert not [text for text in docs for name in LIBRARIES if name in text.lower()]
    assert len(docs) > 200
    assert not {*docs} & {*mlm.corpus("train", QUICK)}


def test_only_hidden_tokens_are_asked_for(tokenizer: WordPieceTokenizer) -> None:
    """The loss at the hidden places alone is that of the whole head with -100 elsewhere, and of what comes next."""
    torch.manual_seed(0)
    batch = mlm.batches("validation", tokenizer, QUICK)(0)
    model = BERT(mlm.shape(tokenizer, QUICK))
    total, count = mlm.pretraining_loss(model, batch)
    mask = padding(batch.lengths, batch.ids.shape[1])
    said, _ = model(batch.ids, mask=mask)
    first, following = model.head.pooler(model.hidden(batch.ids, mask=mask)).chunk(2)
    scores = mlm.SHARP * F.cosine_similarity(first[:, None], following[None], dim=-1)
    right = torch.arange(mlm.BATCH)
    follows = (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2
    torch.testing.assert_close(total / count, F.cross_entropy(said.flatten(0, 1), batch.labels.flatten()) + follows)
    assert count == int((batch.labels != IGNORED).sum())


@pytest.mark.parametrize("near", [1, 8])
def test_a_paragraph_stands_beside_one_of_the_next(tokenizer: WordPieceTokenizer, near: int) -> None:
    """Each row of a batch's second half is one of the `near` that follow its row of the first half, now this, now that.

    The last paragraph stands for those behind it.
    """
    rows = [tuple(row) for row in mlm.read(mlm.corpus("validation", QUICK), tokenizer)]
    batches = mlm.batches("validation", tokenizer, QUICK, near=near)
    found = set()
    for step in range(3):
        batch = batches(step)
        whole = torch.where(batch.labels == IGNORED, batch.ids, batch.labels)
        shown = [tuple(ids[:n].tolist()) for ids, n in zip(whole, batch.lengths, strict=True)]
        assert len(shown) == 2 * mlm.BATCH
        for first, second in zip(shown[: mlm.BATCH], shown[mlm.BATCH :], strict=True):
            places = [i for i, row in enumerate(rows) if row == first]  # two paragraphs may begin alike
            apart = [n for n in range(1, near + 1) for i in places if rows[min(i + n, len(rows) - 1)] == second]
            assert apart
            found.add(apart[0])
    assert found == set(range(1, near + 1))


def test_the_commonest_is_counted(tokenizer: WordPieceTokenizer) -> None:
    """Who always says the same is right as often as that occurs, and finds one next paragraph in a batch."""
    unseen = [*map(mlm.batches("validation", tokenizer, QUICK), range(4))]
    hidden = Counter(int(label) for batch in unseen for label in batch.labels.flatten() if label != IGNORED)
    row = mlm.commonest(unseen)
    assert row == {"words": pytest.approx(max(hidden.values()) / hidden.total()), "next": 1 / mlm.BATCH}


def test_words_are_hidden_while_labels_are_learned(tokenizer: WordPieceTokenizer) -> None:
    """About three words in ten become [MASK], others at each step; the ends, the mask of padding and the label stay."""
    ids = torch.randint(len(tokenizer.special_tokens), tokenizer.vocab_size, (8, 50))
    ids[:, 0], ids[:, -1] = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    labels, mask = torch.arange(8), torch.ones(8, 1, 50, dtype=torch.bool)
    first, second = (
        bert.hidden_in(({"ids": ids, "mask": mask}, labels), s, tokenizer=tokenizer, seed=0) for s in (1, 2)
    )
    hidden = first[0]["ids"] != ids
    assert (first[0]["ids"][hidden] == tokenizer.token_to_id("[MASK]")).all()
    assert 0.2 < float(hidden[:, 1:-1].float().mean()) < 0.4
    assert not hidden[:, [0, -1]].any()
    assert not torch.equal(first[0]["ids"], second[0]["ids"])
    assert first[0]["mask"] is mask
    assert first[1] is labels


def test_the_word_before_tells_something() -> None:
    """A hidden token is guessed as what most often followed the one before it; behind a mask nothing is known."""
    after = mlm.followers([[1, 7, 8, 7, 9, 2], [1, 7, 9, 2]])
    assert after == {1: 7, 7: 9, 8: 7, 9: 2}
    ids = torch.tensor([[1, 7, 4, 4, 2]])  # 4 is the mask
    labels = torch.tensor([[-100, 7, 9, 2, -100]])  # of the three the last stands behind a mask
    assert mlm.by_word_before(after, [mlm.Hidden(ids, torch.tensor([5]), labels)]) == pytest.approx(2 / 3)


def test_known_words_are_counted() -> None:
    """Counts are those of the known words, in their order; others are none, and an empty text has none at all."""
    table = bert.counts([["a", "a", "sum", "tree"], [], [",", "a"]], ["sum", ",", "a"])
    assert table.to_dense().tolist() == [[1, 0, 2], [0, 0, 0], [0, 1, 1]]


def test_naive_bayes_does_the_same_task() -> None:
    """From some labels naive Bayes knows others better than who names the largest library; none is in both."""
    task = bert.ask(QUICK, 6)
    assert not {part.text for part in task.labelled} & {part.text for part in task.unseen}
    assert {part.origin for part in task.labelled} == {*task.libraries}
    assert 0.5 < bert.commonest(task)["right"] < bert.bayes(task)["right"] - 0.1


def test_paragraphs_are_read_without_names(tokenizer: WordPieceTokenizer) -> None:
    """BERT reads [CLS], the paragraph without names and [SEP], padding hidden, and is asked for the library."""
    parts = [Paragraph("NumPy is a graph.", "numpy"), Paragraph("In torch there is no tree of words.", "torch")]
    inputs, labels = bert.encoder_of(parts, bert.Task(("torch", "numpy"), parts, []), tokenizer)([1, 0])
    assert labels.tolist() == [0, 1]
    read = tokenizer.decode(inputs["ids"][1][inputs["mask"][1, 0]].tolist())
    assert read.replace(" ", "") == "[CLS]itisagraph.[SEP]"
    assert inputs["mask"].shape == (2, 1, inputs["ids"].shape[1])


def test_without_positions_a_picture_is_a_bag() -> None:
    """Patches in another order change what the ViT says, and nothing in the control."""
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    patches = patchify(images, 2)
    mixed = unpatchify(patches[:, torch.randperm(16, generator=torch.Generator().manual_seed(1))], 1, 8, 8)
    model, lost = vit.build(QUICK).eval(), vit.build(QUICK).eval()
    lost.position.weight.requires_grad_(False).zero_()
    assert not torch.allclose(model(images), model(mixed), atol=1e-4)
    torch.testing.assert_close(lost(images), lost(mixed))
    vit.learn(lost, vit.by_muon, QUICK)
    assert not lost.position.weight.any()


def test_patches_stand_beside_the_letters() -> None:
    """The token of a patch is none of the alphabet's, every name has room, and an untrained model names nothing."""
    data = Digits(split="test", language=captions.LANGUAGE)
    tokenizer = CharacterTokenizer.train(data.names, special_tokens=(captions.END,))
    config = captions.shape(tokenizer)
    assert config.image_id == tokenizer.vocab_size == config.text.vocab_size - 1
    assert max(map(len, data.names)) < captions.LONGEST
    torch.manual_seed(0)
    model = Multimodal(config)
    row = captions.measure(model, tokenizer, data, data.images)
    assert row["exact"] <= row["words"] <= 1


def test_names_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong digit's name is a word, but not exact; letters that are no name are neither."""
    data = Digits(split="test", language=captions.LANGUAGE)
    right = [data.names[label] for label in data.labels.tolist()]
    wrong = [data.names[(label + 1) % 10] for label in data.labels.tolist()]
    third = len(right) // 3
    said = right[:third] + wrong[third : 2 * third] + ["xx"] * (len(right) - 2 * third)
    monkeypatch.setattr(captions, "name", lambda *_: said)
    tokenizer = CharacterTokenizer.train(data.names, special_tokens=(captions.END,))
    row = captions.measure(Multimodal(captions.shape(tokenizer)), tokenizer, data, data.images)
    assert row == {"exact": third / len(right), "words": 2 * third / len(right)}


def test_purity_of_vectors_that_know() -> None:
    """Vectors that are the same within a bank and unlike between banks are pure; vectors by chance are not."""
    bank_of = {word: i for i, members in enumerate(words.BANKS.values()) for word in members}
    known = sorted(bank_of)
    index = {word: i for i, word in enumerate(known)}
    chance = torch.Generator().manual_seed(0)
    noise = torch.randn(len(known), 16, generator=chance)
    row = words.purity(10 * torch.eye(16)[[bank_of[word] for word in known]] + 0.1 * noise, index)
    assert row.keys() == {"all", *words.BANKS}
    assert set(row.values()) == {1.0}
    assert words.purity(noise, index)["all"] < 0.35


def test_scattered_words_are_the_same_words() -> None:
    """The control reads every word as often, in sentences of the same lengths, and in other company."""
    sentences = [[i, i + 1, i + 2] if i % 2 else [i] for i in range(200)]
    mixed = words.scattered(sentences, Run())
    assert [len(ids) for ids in mixed] == [len(ids) for ids in sentences]
    assert Counter(i for ids in mixed for i in ids) == Counter(i for ids in sentences for i in ids)
    assert sum(a == b for a, b in zip(mixed, sentences, strict=True)) < 20
