"""Dates: a day -> how people write it in many languages, and ISO 8601, to translate the one into the other.

"samedi 21 novembre 2026" -> "2026-11-21". The wordings are real, from Unicode's CLDR by babel (extra `data`).
English needs no extra: it is written here. The short form is left out: 11/12/26 is two days.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any, overload

from tinytrans.data.splits import Pair, check_split, split_of

FORMS = ("full", "long", "medium")
LOCALES = ("en", "fr", "de", "es", "it", "pt", "pl", "ru", "tr", "ar", "hi", "id", "sw", "vi", "ja", "zh")
FIRST, LAST = date(1950, 1, 1), date(2049, 12, 31)

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# Marks of direction are invisible; narrow and no-break spaces look like a space, and so become one.
PLAIN = str.maketrans(dict.fromkeys("\u200e\u200f\u061c") | dict.fromkeys("\u00a0\u202f\u2009", " "))


def english(day: date, form: str = "long") -> str:
    """A day in American English.

    >>> english(date(2026, 11, 21), "full")
    'Saturday, November 21, 2026'
    """
    month = MONTHS[day.month - 1]
    text = f"{month[:3] if form == 'medium' else month} {day.day}, {day.year}"
    return f"{WEEKDAYS[day.weekday()]}, {text}" if form == "full" else text


def _package() -> Any:
    try:
        import babel.dates
        import babel.localedata
    except ImportError as error:
        raise ImportError('dates in other languages than English need: pip install "tinytrans[data]"') from error
    return babel


def locales() -> tuple[str, ...]:
    """The locales that can be written here and now: with the extra `data` about 1,000, without it English alone."""
    try:
        return tuple(sorted(_package().localedata.locale_identifiers()))
    except ImportError:
        return ("en",)


def write(day: date, locale: str = "en", form: str = "long") -> str:
    """A day as the people of a locale write it, without invisible characters.

    Raises ValueError on an unknown locale or form, ImportError without the extra `data` unless the locale is English.

    >>> write(date(2026, 11, 21), form="medium")
    'Nov 21, 2026'
    """
    if form not in FORMS:
        raise ValueError(f"no form {form!r}; there are {', '.join(FORMS)}")
    if locale == "en":
        return english(day, form)
    return str(_package().dates.format_date(day, form, locale=_locale(locale))).translate(PLAIN)


@cache
def _locale(name: str) -> Any:
    babel = _package()
    try:
        return babel.Locale.parse(name)
    except (babel.UnknownLocaleError, ValueError) as error:
        raise ValueError(f"no locale {name!r}; `locales()` lists those that there are") from error


class Dates(Sequence[Pair]):
    """n dates of a split in the locales and forms given, each a pair: as written there, and in ISO 8601.

    An example depends on (seed, split, its number) alone; the day decides the split, so a day held out is held out
    in every language. `locales` of None means 16 languages in 5 scripts, or, without the extra `data`, English alone.

    >>> Dates(n=2, locales=["en"])[0]
    Pair(source='April 12, 2021', target='2021-04-12')
    """

    def __init__(
        self,
        n: int = 20_000,
        *,
        locales: Sequence[str] | None = None,
        forms: Sequence[str] = FORMS,
        seed: int = 0,
        split: str = "train",
    ) -> None:
        self.n, self.forms, self.seed, self.split = n, tuple(forms), seed, check_split(split)
        self.locales = tuple(locales) if locales is not None else default_locales()
        for locale in self.locales:
            for form in self.forms:
                write(FIRST, locale, form)  # raises now rather than in the middle of a training
        if not self.locales or not self.forms:
            raise ValueError(f"no wording: locales {self.locales}, forms {self.forms}")

    def day(self, i: int) -> date:
        """The day that example i is about."""
        return self._draw(range(self.n)[i])[0]

    def _draw(self, i: int) -> tuple[date, str, str]:
        chance = random.Random(f"date {self.seed} {self.split} {i}")
        days = (LAST - FIRST).days + 1
        while True:
            day = FIRST + timedelta(days=int(chance.random() * days))
            if split_of(f"date {day.isoformat()}") == self.split:
                break
        locale = self.locales[int(chance.random() * len(self.locales))]
        return day, locale, self.forms[int(chance.random() * len(self.forms))]

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, i: int) -> Pair: ...
    @overload
    def __getitem__(self, i: slice) -> list[Pair]: ...
    def __getitem__(self, i: int | slice) -> Pair | list[Pair]:
        if isinstance(i, slice):
            return [self[j] for j in range(self.n)[i]]
        day, locale, form = self._draw(range(self.n)[i])
        return Pair(write(day, locale, form), day.isoformat())

    def __repr__(self) -> str:
        return f"Dates(n={self.n}, locales={list(self.locales)}, seed={self.seed}, split={self.split!r})"


def default_locales() -> tuple[str, ...]:
    """The 16 languages of LOCALES; without the extra `data` English alone."""
    return LOCALES if len(locales()) > 1 else ("en",)
