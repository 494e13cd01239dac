"""Verifiers: what was asked for, a story -> which wishes the story fulfils.

They read words, not meanings: each word of a bank stands in one bank only and in no template.
A true story of its own facts passes them all.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

from tinytrans.data import tales_words as banks
from tinytrans.data.tales import Facts
from tinytrans.data.tales_words import OBJECTIVE, POSSESSIVE, PRONOUN

BANKS: dict[str, Container[str]] = {
    "name": PRONOUN,
    "kind": frozenset(banks.KINDS),
    "place": banks.PLACES,
    "adjective": frozenset(banks.ADJECTIVES),
    "color": frozenset(banks.COLORS),
    "thing": frozenset(banks.THINGS),
    "food": frozenset(banks.FOODS),
    "weather": banks.WEATHER,
}
PRONOUN_OF = {form: pronoun for pronoun in OBJECTIVE for form in (pronoun, OBJECTIVE[pronoun], POSSESSIVE[pronoun])}

_SINGLE = ("place", "adjective", "color", "thing", "food", "weather")  # a story has one of each at most
_READABLE = ("hero", "friend", "kind", "friend_kind", "end", "dialogue", *_SINGLE)

Wishes = Mapping[str, str | bool | None]


def words(text: str) -> list[str]:
    """The words of a text, names with their capital, others in lower case."""
    return [word if word in PRONOUN else word.lower() for word in re.findall(r"[A-Za-z]+", text)]


def mentioned(text: str) -> dict[str, list[str]]:
    """Which words of each bank a text mentions, in order of first mention, each once.

    >>> mentioned("Mei the fox met a red cat.")["kind"]
    ['fox', 'cat']
    """
    unique = dict.fromkeys(words(text))
    return {field: [word for word in unique if word in bank] for field, bank in BANKS.items()}


def told_end(text: str) -> str | None:
    """How a story ends, by the words that only such an end uses; None when it has no end, or two."""
    ends = [end for end, signs in banks.ENDS.items() if signs & set(words(text))]
    return ends[0] if len(ends) == 1 else None


def wishes(instruction: str) -> dict[str, str | bool]:
    """What an instruction asks for: field -> value.

    >>> wishes("Tell a story about a fox named Mei. Use no dialogue.")
    {'hero': 'Mei', 'kind': 'fox', 'dialogue': False}
    """
    found = mentioned(instruction)
    asked: dict[str, str | bool] = {"hero": found["name"][0]} if found["name"] else {}
    asked |= {field: found[field][0] for field in ("kind", "place", "color", "thing", "food") if found[field]}
    end = re.search(r"\b(happy|sad) end\b|\bend is (happy|sad)\b", instruction)
    if end:
        asked["end"] = end[1] or end[2]
    if "dialogue" in instruction:
        asked["dialogue"] = "no dialogue" not in instruction
    return asked


def read(text: str) -> dict[str, str | bool | None]:
    """The facts that a story tells: the first name is the hero's, the second the friend's, and so on.

    A field is None when the story tells nothing of it, and also when it tells two different things.
    """
    found = mentioned(text)
    name, kind = [*found["name"], None, None], [*found["kind"], None, None]
    single = {field: found[field][0] if len(found[field]) == 1 else None for field in _SINGLE}
    first = {"hero": name[0], "friend": name[1], "kind": kind[0], "friend_kind": kind[1]}
    return first | single | {"end": told_end(text), "dialogue": '"' in text}


def consistent(text: str) -> dict[str, bool]:
    """Whether a story keeps to its own world: two names and two kinds at most, one thing, one pronoun, ..."""
    found, said = mentioned(text), {PRONOUN_OF[word] for word in words(text) if word in PRONOUN_OF}
    limits = {"name": 2, "kind": 2} | dict.fromkeys(_SINGLE, 1)
    hero = found["name"][:1]
    checks = {f"{field}s<={limit}": len(found[field]) <= limit for field, limit in limits.items()}
    return checks | {"pronoun": said <= {PRONOUN[name] for name in hero}}


def verify(asked: Facts | Wishes | str, text: str) -> dict[str, bool]:
    """Which wishes a story fulfils: an instruction, or a mapping of wishes, or all facts -> field -> bool.

    `all(verify(instruction, story).values())` is "it obeys".
    """
    if isinstance(asked, Facts):
        asked = {field: value for field, value in vars(asked).items() if value is not None and field in _READABLE}
    elif isinstance(asked, str):
        asked = wishes(asked)
    told = read(text)
    unknown = asked.keys() - told.keys()
    if unknown:
        raise ValueError(f"no verifier for {sorted(unknown)}; there are {sorted(told)}")
    return {field: told[field] == value for field, value in asked.items()}


def copied(text: str, corpus: Container[str]) -> bool:
    """Whether a story stands word for word in the corpus (a set of texts)."""
    return text.strip() in corpus
