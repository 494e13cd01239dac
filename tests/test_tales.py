"""Laws of the tales: every label is true, every verifier can fail, no split sees another."""

from __future__ import annotations

import random
import re
import socket
import string
from collections import Counter
from dataclasses import asdict, replace
from itertools import combinations

import pytest

from tinytrans.data import load
from tinytrans.data.chat import ASSISTANT, END, SPECIAL_TOKENS, USER
from tinytrans.data.tales import SPLITS, Facts, Tale, Tales, casts, document, tell
from tinytrans.data.tales_plots import CLOSE, DAY, HOME, OPENING, PLOTS
from tinytrans.data.tales_verify import BANKS, PRONOUN_OF, consistent, copied, read, verify, wishes, words
from tinytrans.data.tales_words import ENDS, KINDS, NAMES, PRONOUN, SPOTS, WEATHER, a


@pytest.fixture(scope="module")
def tales() -> list[Tale]:
    return list(Tales(4000))


def literals() -> list[tuple[str, str]]:
    """Where -> the words of every surface form, fields left out."""
    forms = [*OPENING, *HOME, *SPOTS, *WEATHER.values()]
    forms += [form for plot in PLOTS.values() for step in asdict(plot).values() for form in step]
    named = [("", form) for form in forms] + [(end, form) for by in (DAY, CLOSE) for end in by for form in by[end]]
    return [(end, " ".join(part for part, *_ in string.Formatter().parse(form))) for end, form in named]


def test_the_world_is_large(tales: list[Tale]):
    """The stories use more than 600 words and at least 10 plots, and none stands twice among 4,000."""
    vocabulary = {word.lower() for tale in tales for word in re.findall(r"[A-Za-z]+", tale.text)}
    assert len(vocabulary) > 600
    assert len({tale.facts.plot for tale in tales}) >= 10
    assert len({tale.text for tale in tales}) == len(tales)


def test_twenty_thousand_are_all_different():
    """20,000 stories are 20,000 texts."""
    assert len({tale.text for tale in Tales(20_000)}) == 20_000


@pytest.mark.parametrize("split", SPLITS)
def test_true_stories_pass_every_verifier(split: str):
    """A story fulfils its instruction and tells all its facts, and keeps to its world: 2,000 of 2,000."""
    for tale in Tales(2000, split=split):
        failed = {**verify(tale.facts, tale.text), **verify(tale.instruction, tale.text), **consistent(tale.text)}
        assert all(failed.values()), (failed, tale)


def test_what_is_read_is_what_was_labelled(tales: list[Tale]):
    """The facts read from a story are those it was made of, also the ones it does not have."""
    for tale in tales[:2000]:
        told = read(tale.text)
        assert {field: vars(tale.facts)[field] for field in told} == told


def test_places_of_hiding_and_morals_are_told(tales: list[Tale]):
    """The hiding place and the moral are labels too, and stand in the text."""
    for tale in tales:
        assert tale.facts.spot in tale.text.lower()
        assert (tale.facts.moral or "") in tale.text
        if not tale.facts.moral:
            assert not any(moral in tale.text for moral in PLOTS[tale.facts.plot].morals)


def test_the_words_to_be_bound_are_repeated(tales: list[Tale]):
    """Half of the sentences name the hero; kind, place and thing (or food) stand three times or more."""
    named = [tale.facts.hero in part for tale in tales for part in re.split(r"(?<=[.!?]) ", tale.text)]
    assert sum(named) > 0.5 * len(named)
    for tale in tales:
        count = Counter(words(tale.text))
        assert count[tale.facts.place] >= 3
        assert count[tale.facts.kind] >= 3
        assert all(count[word] >= 3 for word in (tale.facts.thing, tale.facts.food) if word)


def test_instructions_ask_for_the_place():
    """More than seven instructions in ten name the place, so that copying it is learned."""
    asked = [wishes(tale.instruction) for tale in Tales(1000)]
    assert all("kind" in each for each in asked)
    assert sum("place" in each for each in asked) > 700
    assert {field for each in asked for field in each} == {
        "hero", "kind", "place", "color", "thing", "food", "end", "dialogue",
    }  # fmt: skip


def test_a_word_tells_one_fact():
    """No word stands in two banks or, if it is in a bank, in a template; so words can be verified."""
    for (one, first), (two, second) in combinations(BANKS.items(), 2):
        assert not set(first) & set(second), (one, two)
    reserved = set(PRONOUN_OF).union(*BANKS.values())
    for end, literal in literals():
        assert not reserved & set(words(literal)), literal
        assert not set(words(literal)) & (ENDS["happy"] | ENDS["sad"]) - ENDS.get(end, set()), literal


def test_names_and_kinds_have_no_roles(tales: list[Tale]):
    """She and he are as many, and each is found in every kind and every plot."""
    assert len(NAMES["she"]) == len(NAMES["he"]) == 20
    assert {(t.facts.pronoun, t.facts.kind) for t in tales} == {(p, k) for p in NAMES for k in KINDS}
    assert {(t.facts.pronoun, t.facts.plot) for t in tales} == {(p, q) for p in NAMES for q in PLOTS}


WRONG = {  # verifier -> what is done to a true story of Mei the fox
    "kind": lambda text: text.replace("fox", "goat"),
    "hero": lambda text: text.replace("Mei", "Olga"),
    "friend": lambda text: text.replace("Wei", "Sven"),
    "friend_kind": lambda text: text.replace("owl", "bear"),
    "place": lambda text: text.replace("forest", "desert"),
    "adjective": lambda text: text.replace("shy", "brave"),
    "weather": lambda text: text.replace("rainy", "snowy"),
    "color": lambda text: text.replace("red", "blue"),
    "thing": lambda text: text.replace("kite", "drum", 1),
    "food": lambda text: text + " They ate a plum and a fig.",
    "end": lambda text: text + " But all of them cried.",
    "dialogue": lambda text: text.replace('"', ""),
}


@pytest.fixture(scope="module")
def facts() -> Facts:
    return Facts(
        hero="Mei", kind="fox", pronoun="she", friend="Wei", friend_kind="owl", adjective="shy", place="forest",
        spot=SPOTS[0], weather="rainy", color="red", thing="kite", food=None, plot="lost", end="happy",
        dialogue=True, moral=None,
    )  # fmt: skip


@pytest.mark.parametrize("field", WRONG)
def test_each_verifier_rejects_its_wrong_story(facts: Facts, field: str):
    """A true story in which one fact is changed fails that fact's verifier and no other."""
    true = tell(facts, random.Random(0))
    asked = {name: value for name, value in vars(facts).items() if name in WRONG}
    if field == "food":  # one food at most
        true, asked["food"] = true + " They ate a plum.", "plum"
    assert all(verify(asked, true).values())
    verdicts = verify(asked, WRONG[field](true))
    assert [name for name, right in verdicts.items() if not right] == [field]


@pytest.mark.parametrize("end", ["happy", "sad"])
@pytest.mark.parametrize("dialogue", [True, False])
def test_other_wishes_fail(facts: Facts, end: str, dialogue: bool):
    """The other end, or talk where silence was asked for, is not what was asked for."""
    told = tell(replace(facts, end=end, dialogue=dialogue), random.Random(1))
    verdicts = verify("Tell a story about a fox. The end is sad. Use no dialogue.", told)
    assert verdicts == {"kind": True, "end": end == "sad", "dialogue": not dialogue}


@pytest.mark.parametrize(
    ("check", "more"),
    [("names<=2", " Sven and Olga came."), ("kinds<=2", " A bear and a hen came."), ("things<=1", " It was a drum."),
     ("colors<=1", " It was blue."), ("foods<=1", " A plum fell on a fig."), ("places<=1", " It was in the desert."),
     ("weathers<=1", " It was snowy."), ("adjectives<=1", " They were brave."), ("pronoun", " He slept.")],
)  # fmt: skip
def test_a_story_that_drifts_is_inconsistent(facts: Facts, check: str, more: str):
    """A third name, a second thing, another pronoun: each is seen, alone."""
    true = tell(facts, random.Random(0))
    assert all(consistent(true).values())
    assert [name for name, right in consistent(true + more).items() if not right] == [check]


def test_copies_are_found(tales: list[Tale]):
    """A story of the corpus is copied, one that differs by a word is not."""
    corpus = {tale.text for tale in tales}
    assert copied(f" {tales[5].text}\n", corpus)
    assert not copied(tales[5].text.replace(tales[5].facts.hero, "Max"), corpus)


def test_unknown_wishes_are_named():
    """A wish that no verifier knows is an error, never a silent pass."""
    with pytest.raises(ValueError, match=r"no verifier for \['length'\]"):
        verify({"length": "short"}, "Once.")


def test_splits_are_disjoint():
    """Test holds animals in plots, and validation pairs of names, that training never meets."""
    train, validation, test = (
        {(tale.facts.kind, tale.facts.plot, tale.facts.hero, tale.facts.friend) for tale in Tales(3000, split=split)}
        for split in SPLITS
    )
    assert not {each[:2] for each in test} & {each[:2] for each in train | validation}
    assert not {each[2:] for each in validation} & {each[2:] for each in train}
    texts = [{tale.text for tale in Tales(2000, split=split)} for split in SPLITS]
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]


def test_training_meets_every_word():
    """Every kind, plot and name is trained on; only combinations are held out, 5 to 20 % of them."""
    roles, names = casts("train")
    assert {kind for kind, _ in roles} == set(KINDS)
    assert {plot for _, plot in roles} == {plot for _, plot in casts("test")[0]} == set(PLOTS)
    assert {hero for hero, _ in names} == {friend for _, friend in names} == set(PRONOUN)
    assert 0.05 < len(casts("test")[0]) / (len(KINDS) * len(PLOTS)) < 0.2
    assert 0.03 < len(casts("validation")[1]) / (40 * 39) < 0.08


def test_a_tale_depends_on_its_number_alone():
    """Tales are a sequence: any order, slices and negative numbers give the same tales; another seed others."""
    tales = Tales(50, seed=3)
    assert tales[-1] == tales[49] == list(tales)[49] == tales[40:50][9] == Tales(1000, seed=3)[49]
    assert tales[0] != Tales(50, seed=4)[0]
    assert len(tales) == 50
    with pytest.raises(IndexError):
        tales[50]
    with pytest.raises(ValueError, match="no split 'dev'; there are train, validation, test"):
        Tales(split="dev")


def test_the_first_tale_never_changes():
    """The same number gives the same story on every machine and with every Python."""
    assert Tales(1)[0].text.startswith("Do you know Lina, the brave turtle? Lina had a small house in the town.")


def test_answers_stand_in_the_story(tales: list[Tale]):
    """Every question but the one about the end is answered by words of the story."""
    for tale in tales[:1000]:
        assert len(tale.questions) >= 7
        for question in tale.questions:
            answer = question.answer.removeprefix("an ").removeprefix("a ")
            assert answer in tale.text or answer == tale.facts.end


def test_documents_are_chat():
    """A document is the story, for a share with the instruction before it, a question behind it, and always an end."""
    tales = Tales(1000)
    documents = tales.documents(instructed=0.7, questioned=0.1)
    asked = sum(text.startswith(USER) for text in documents)
    assert 650 < asked < 750
    assert 60 < sum(text.count(ASSISTANT) for text in documents) - asked < 140
    assert all(text.endswith(END) and tale.text in text for text, tale in zip(documents, tales, strict=True))
    one = tales[0]
    assert document(one, instructed=True) == f"<|user|>{one.instruction}<|assistant|>{one.text}<|end|>"
    assert set(re.findall(r"<\|\w+\|>", "".join(documents))) < set(SPECIAL_TOKENS)


def test_articles():
    """A vowel takes `an`."""
    assert [a(word) for word in ("owl", "orange", "fox")] == ["an owl", "an orange", "a fox"]
    assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", " ".join(tale.text for tale in Tales(1000)))


def test_no_network_is_needed(monkeypatch: pytest.MonkeyPatch):
    """Loading works where no socket can be opened, and an unknown name lists the known ones."""
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a socket was opened"))
    assert load("tales", n=3, split="test")[0].text
    with pytest.raises(ValueError, match=r"no data set 'tails'; there are .*docs.*tales"):
        load("tails")
