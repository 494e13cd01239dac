"""Laws of the dates: a wording tells its day, English is babel's, nothing leaks between splits."""

from __future__ import annotations

import sys
import unicodedata
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrans.data.dates import FIRST, FORMS, LAST, LOCALES, Dates, english, locales, write
from tinytrans.data.splits import SPLITS

DAY = date(2026, 11, 7)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra `data`."""
    for name in ("babel", "babel.dates", "babel.localedata"):
        monkeypatch.setitem(sys.modules, name, None)


@given(st.dates(FIRST, LAST), st.sampled_from(FORMS))
def test_english_is_that_of_babel(day: date, form: str) -> None:
    """Our own English is babel's, for every day and form."""
    dates = pytest.importorskip("babel.dates")
    assert english(day, form) == dates.format_date(day, form, locale="en_US")


@pytest.mark.parametrize(
    ("locale", "text"),
    [
        ("fr", "samedi 7 novembre 2026"),
        ("de", "Samstag, 7. November 2026"),
        ("ja", "2026年11月7日土曜日"),
        ("ru", "суббота, 7 ноября 2026 г."),
    ],
)
def test_one_day_by_hand(locale: str, text: str) -> None:
    """7 November 2026 is written as its readers do, a narrow space as a space."""
    pytest.importorskip("babel")
    assert write(DAY, locale, "full") == text


def test_no_wording_means_two_days() -> None:
    """In the languages and forms that are the default no text stands for two days, even across languages."""
    pytest.importorskip("babel")
    meant: dict[str, date] = {}
    days = [date(2021, month, day) for month in range(1, 13) for day in range(1, 13)]
    for day in days:
        for locale in LOCALES:
            for form in FORMS:
                assert meant.setdefault(write(day, locale, form), day) == day, (locale, form)


def test_nothing_invisible_is_left() -> None:
    """No wording in 16 languages holds marks of direction or any white space but the plain one."""
    pytest.importorskip("babel")
    text = "".join(
        write(DAY + timedelta(31 * i), locale, form) for i in range(12) for locale in LOCALES for form in FORMS
    )
    assert {char for char in text if char.isspace()} == {" "}
    assert not [hex(ord(char)) for char in text if unicodedata.category(char) in ("Cf", "Cc")]


def test_the_day_decides_the_split() -> None:
    """No day is in two splits, whatever the language, the seed and the form."""
    pytest.importorskip("babel")
    days = {
        split: {
            data.day(i)
            for data in (Dates(400, split=split), Dates(400, split=split, seed=7, locales=["de"]))
            for i in range(400)
        }
        for split in SPLITS
    }
    assert not days["train"] & days["test"]
    assert not days["train"] & days["validation"]
    assert not days["validation"] & days["test"]
    assert len(days["train"]) > 700


def test_an_example_depends_on_its_number_alone() -> None:
    """Example i is the same however many there are and whatever was asked for before; another seed gives others."""
    few, many = Dates(5, locales=["en"]), Dates(500, locales=["en"])
    assert many[3] == few[3] == few[:4][-1] == few[-2]
    assert list(few) != list(Dates(5, locales=["en"], seed=1))
    with pytest.raises(IndexError):
        few[5]


def test_the_target_is_the_day_in_iso() -> None:
    """The target is the day as YYYY-MM-DD, the source the same day as written there; all languages and forms occur."""
    pytest.importorskip("babel")
    data = Dates(1500)
    written = {
        (locale, form)
        for i, (source, target) in enumerate(data)
        if data.day(i) == date.fromisoformat(target)
        for locale in LOCALES
        for form in FORMS
        if write(date.fromisoformat(target), locale, form) == source
    }
    assert written == {(locale, form) for locale in LOCALES for form in FORMS}
    assert all(FIRST <= date.fromisoformat(target) <= LAST and len(target) == 10 for _, target in data)


def test_any_locale_can_be_chosen() -> None:
    """Hundreds of locales are there, and a learner's own writes the day."""
    pytest.importorskip("babel")
    assert len(locales()) > 500
    assert Dates(3, locales=["is"], forms=["long"])[0].source[-4:].isdigit()


def test_without_the_extra_there_is_english(bare: None) -> None:
    """Without babel the default is English alone; another language says what to install."""
    assert locales() == ("en",)
    data = Dates(20)
    assert data.locales == ("en",)
    assert all(english(date.fromisoformat(pair.target), form) for pair in data for form in FORMS)
    with pytest.raises(ImportError, match=r'pip install "tinytrans\[data\]"'):
        Dates(20, locales=["fr"])


def test_errors_name_what_there_is() -> None:
    """An unknown locale, form or split raises ValueError, at once."""
    pytest.importorskip("babel")
    with pytest.raises(ValueError, match="no locale 'xx_YY'"):
        Dates(locales=["xx_YY"])
    with pytest.raises(ValueError, match="no form 'short'"):
        Dates(forms=["short"])
    with pytest.raises(ValueError, match="no split 'dev'"):
        Dates(split="dev")
    with pytest.raises(ValueError, match="no wording"):
        Dates(locales=[])


def test_a_lone_name_is_one_name() -> None:
    """`locales="en"` means English, and not E and N."""
    assert Dates(n=3, locales="en", forms="long")[:] == Dates(n=3, locales=["en"], forms=["long"])[:]
