"""Numbers: an integer -> its words in any of 87 languages, and pairs of them to translate.

The words are real, from the rules of Unicode's CLDR, which the package unicode-rbnf applies (extra `data`).
English needs no extra: it is spelled here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, overload

from tinytrans.data.splits import Pair, check_split, split_of

DIGITS = "digits"  # the "language" of 352: to read numbers aloud, no language but the target's is needed
INVISIBLE = str.maketrans("", "", "\u00ad\u200b")  # soft hyphen and zero-width space: where a line may be broken

ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
POWERS = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))


def english(n: int) -> str:
    """The English words of an integer from 0 to below 10^12.

    >>> english(352_417)
    'three hundred fifty-two thousand four hundred seventeen'
    """
    if not 0 <= n < 10**12:
        raise ValueError(f"{n} does not lie in 0 ... {10**12 - 1}")
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f"-{ONES[n % 10]}" if n % 10 else "")
    power, name = next((power, name) for power, name in POWERS if power <= n)
    return f"{english(n // power)} {name}" + (f" {english(n % power)}" if n % power else "")


def _package() -> Any:
    try:
        import unicode_rbnf
    except ImportError as error:
        raise ImportError('number words other than English need: pip install "tinytrans[data]"') from error
    return unicode_rbnf


def languages() -> tuple[str, ...]:
    """The languages that can be spelled here and now: with the extra `data` 87, without it English alone."""
    try:
        return tuple(sorted(_package().RbnfEngine.get_supported_languages()))
    except ImportError:
        return ("en",)


@cache
def speller(language: str) -> Callable[[int], str]:
    """The function integer -> words of a language; ValueError when there is no such language."""
    if language == DIGITS:
        return str
    if language == "en":
        return english
    engine_of = _package().RbnfEngine
    if language not in engine_of.get_supported_languages():
        raise ValueError(f"no language {language!r}; there are {', '.join(languages())} and {DIGITS}")
    engine = engine_of.for_language(language)
    rules = [engine.format_number(1234).text_ruleset]  # one set of rules, as for counting aloud, and eight times faster

    @cache
    def spell_one(n: int) -> str:
        return str(engine.format_number(n, ruleset_names=rules).text).translate(INVISIBLE)

    return spell_one


def spell(n: int, language: str = "en") -> str:
    """The words of an integer from 0 on in a language: "de", "fr", "zh", ..., or "digits".

    Raises ImportError without the extra `data`, unless the language is English.

    >>> spell(84), spell(84, "digits")
    ('eighty-four', '84')
    """
    return speller(language)(n)


class Numbers(Sequence[Pair]):
    """The numbers of a split below `limit`, each as a pair: its words in the source and in the target language.

    The number decides the split, so a number held out is held out in every language. Either side may be "digits".

    >>> Numbers("digits", "en", limit=100)[0]
    Pair(source='0', target='zero')
    """

    def __init__(
        self, source: str = "en", target: str = "digits", *, limit: int = 10_000, split: str = "train"
    ) -> None:
        self.source, self.target, self.limit, self.split = source, target, limit, check_split(split)
        self._spell = speller(source), speller(target)
        self.numbers = [n for n in range(limit) if split_of(f"number {n}") == split]

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, i: int) -> Pair: ...
    @overload
    def __getitem__(self, i: slice) -> list[Pair]: ...
    def __getitem__(self, i: int | slice) -> Pair | list[Pair]:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        source, target = self._spell
        return Pair(source(self.numbers[i]), target(self.numbers[i]))

    def __repr__(self) -> str:
        return f"Numbers({self.source!r}, {self.target!r}, limit={self.limit}, split={self.split!r}): {len(self)} pairs"
