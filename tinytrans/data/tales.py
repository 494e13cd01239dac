"""Tales: a number -> a small world -> a story of it, an instruction, questions; all labelled.

First the facts are drawn, then told: so every label is true of its text, and every request can be checked.
In the line of bAbI (Weston et al. 2015, arXiv 1502.05698) and TinyStories (Eldan & Li 2023, arXiv 2305.07759).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import TypeVar, overload

from tinytrans.data import tales_words as banks
from tinytrans.data.chat import ASSISTANT, END, USER, prompt
from tinytrans.data.splits import SPLITS
from tinytrans.data.tales_plots import CLOSE, DAY, HOME, OPENING, PLOTS, Forms
from tinytrans.data.tales_words import KINDS, PRONOUN, a

_PLACES, _WEATHER = tuple(banks.PLACES), tuple(banks.WEATHER)
Option = TypeVar("Option")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is true in one story; None where its plot has no such thing."""

    hero: str
    kind: str
    pronoun: str
    friend: str
    friend_kind: str
    adjective: str
    place: str
    spot: str
    weather: str
    color: str | None
    thing: str | None
    food: str | None
    plot: str
    end: str
    dialogue: bool
    moral: str | None


@dataclass(frozen=True)
class Question:
    """A question about a story and its answer, one word or two of the story, or the end's name."""

    text: str
    answer: str


@dataclass(frozen=True)
class Tale:
    """A story, an instruction that it obeys, its facts, and questions that it answers."""

    text: str
    instruction: str
    facts: Facts
    questions: tuple[Question, ...]


def pick(chance: random.Random, options: Sequence[Option]) -> Option:
    """One of the options; by `random()` alone, the one method whose numbers Python promises never to change."""
    return options[int(chance.random() * len(options))]


@cache
def told_about(plot: str) -> frozenset[str]:
    """Which of thing and food a plot tells of."""
    words = " ".join(PLOTS[plot].goal)
    return frozenset(field for field in ("thing", "food") if f"{{{field}}}" in words or f"{{a_{field}}}" in words)


def held_out(pair: tuple[str, str], one_in: int) -> bool:
    """Whether a pair of words is kept from training: by its hash, the same on every machine."""
    return zlib.crc32(" ".join(pair).encode()) % one_in == 0


@cache
def casts(split: str) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """The (kind, plot) pairs and the (hero, friend) pairs that a split's stories draw from.

    Validation has the kinds and plots of training, but pairs of names that never met there;
    test has animals in plots where training never saw them. So no story can stand in two splits.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    roles = [pair for pair in product(KINDS, PLOTS) if held_out(pair, 8) == (split == "test")]
    names = list(permutations(PRONOUN, 2))
    if split != "test":
        names = [pair for pair in names if held_out(pair, 20) == (split == "validation")]
    return tuple(roles), tuple(names)


def imagine(chance: random.Random, split: str = "train") -> Facts:
    """Draw the facts of a story, each independently of the others."""
    roles, names = casts(split)
    kind, plot = pick(chance, roles)
    hero, friend = pick(chance, names)
    about = told_about(plot)
    return Facts(
        hero=hero,
        kind=kind,
        pronoun=PRONOUN[hero],
        friend=friend,
        friend_kind=KINDS[(KINDS.index(kind) + 1 + int(chance.random() * (len(KINDS) - 1))) % len(KINDS)],
        adjective=pick(chance, banks.ADJECTIVES),
        place=pick(chance, _PLACES),
        spot=pick(chance, banks.SPOTS),
        weather=pick(chance, _WEATHER),
        color=pick(chance, banks.COLORS) if "thing" in about else None,
        thing=pick(chance, banks.THINGS) if "thing" in about else None,
        food=pick(chance, banks.FOODS) if "food" in about else None,
        plot=plot,
        end=pick(chance, ("happy", "sad")),
        dialogue=chance.random() < 0.6,
        moral=pick(chance, PLOTS[plot].morals) if chance.random() < 0.3 else None,
    )


def outline(facts: Facts) -> list[Forms]:
    """The steps of the story of these facts, each in all its surface forms."""
    plot, happy = PLOTS[facts.plot], facts.end == "happy"
    talk = [plot.ask, plot.yes if happy else plot.no] if facts.dialogue else [plot.quiet]
    act = [plot.goal, plot.trouble, plot.meet, *talk, plot.attempt, plot.happy if happy else plot.sad]
    return [OPENING, HOME, DAY[facts.end], *act, CLOSE[facts.end], *([(facts.moral,)] if facts.moral else [])]


def fields(facts: Facts) -> dict[str, str]:
    """The words that fill the fields of a surface form."""
    words = {key: str(value) for key, value in vars(facts).items()}
    return words | {
        "he": facts.pronoun,
        "He": facts.pronoun.capitalize(),
        "him": banks.OBJECTIVE[facts.pronoun],
        "his": banks.POSSESSIVE[facts.pronoun],
        "a_kind": a(facts.kind),
        "a_adjective": a(facts.adjective),
        "a_color": a(words["color"]),
        "a_food": a(words["food"]),
        "a_weather": a(facts.weather),
        "place": banks.PLACES[facts.place],
        "place_name": facts.place,
        "spot_start": facts.spot.capitalize(),
        "sky": banks.WEATHER[facts.weather],
    }


def tell(facts: Facts, chance: random.Random) -> str:
    """The story of the facts, one surface form for each step."""
    words = fields(facts)
    return " ".join(pick(chance, forms).format_map(words) for forms in outline(facts))


def instruct(facts: Facts, chance: random.Random) -> str:
    """An instruction that asks for some of the facts: always the kind, mostly hero, place and end."""
    words = fields(facts)
    parts = [pick(chance, ("Tell a story about {a_kind}", "Write a story about {a_kind}", "I want a tale of {a_kind}"))]
    if chance.random() < 0.7:
        parts.append(pick(chance, (" named {hero}", " called {hero}")))
    if chance.random() < 0.8:
        parts.append(" {place}")
    if chance.random() < 0.4:
        parts.append(" with {a_color} {thing}" if facts.thing else " with {a_food}")
    parts.append(".")
    if chance.random() < 0.75:
        parts.append(pick(chance, (" Give it a {end} end.", " The end is {end}.", " It has a {end} end.")))
    if chance.random() < 0.4:
        parts.append(" Use dialogue." if facts.dialogue else " Use no dialogue.")
    return "".join(parts).format_map(words)


def ask(facts: Facts) -> tuple[Question, ...]:
    """All questions that the facts answer."""
    hero, friend, thing = facts.hero, facts.friend, facts.thing
    questions = [
        Question(f"What is {hero}?", a(facts.kind)),
        Question(f"What is {friend}?", a(facts.friend_kind)),
        Question(f"Who does {hero} meet?", friend),
        Question(f"Where does {hero} live?", banks.PLACES[facts.place]),
        Question(f"How is the weather in the story of {hero}?", facts.weather),
        Question("Is the end happy or sad?", facts.end),
    ]
    if thing and facts.color:
        questions.append(Question(f"What color is the {thing}?", facts.color))
    if facts.food:
        questions.append(Question("Which food is in the story?", a(facts.food)))
    return tuple(questions)


def tale(chance: random.Random, split: str = "train") -> Tale:
    """Draw one tale."""
    facts = imagine(chance, split)
    return Tale(tell(facts, chance), instruct(facts, chance), facts, ask(facts))


def document(tale: Tale, *, instructed: bool = False, question: Question | None = None, chat: bool = True) -> str:
    """The training text of a tale: its instruction in front if wanted, a question and its answer behind.

    `<|user|>instruction<|assistant|>story<|user|>question<|assistant|>answer<|end|>`, or, as in a book, where nobody
    chats: the instruction as a heading, a line of its own, and after the story `question answer`.
    """
    text = f"{prompt(tale.instruction) if chat else heading(tale.instruction)}{tale.text}" if instructed else tale.text
    if question:
        text += f"{USER}{question.text}{ASSISTANT}{question.answer}" if chat else f" {question.text} {question.answer}"
    return text + END


def heading(instruction: str) -> str:
    """The instruction as a line above its story.

    >>> heading("Tell a story about a fox.")
    'Tell a story about a fox.\\n'
    """
    return f"{instruction}\n"


class Tales(Sequence[Tale]):
    """n tales of a split; each is made when it is asked for, from (seed, split, its number) alone.

    >>> Tales(n=3, seed=1)[2] == Tales(n=100, seed=1)[2]
    True
    """

    def __init__(self, n: int = 20_000, *, seed: int = 0, split: str = "train") -> None:
        casts(split)  # raises on an unknown split
        self.n, self.seed, self.split = n, seed, split

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, i: int) -> Tale: ...
    @overload
    def __getitem__(self, i: slice) -> list[Tale]: ...
    def __getitem__(self, i: int | slice) -> Tale | list[Tale]:
        if isinstance(i, slice):
            return [self[j] for j in range(self.n)[i]]
        return tale(self._chance("tale", range(self.n)[i]), self.split)

    def __repr__(self) -> str:
        return f"Tales(n={self.n}, seed={self.seed}, split={self.split!r})"

    def _chance(self, what: str, i: int) -> random.Random:
        return random.Random(f"{what} {self.seed} {self.split} {i}")

    def documents(self, *, instructed: float = 0.7, questioned: float = 0.1, chat: bool = True) -> list[str]:
        """The training texts, a share of them with the instruction in front and a share with a question behind.

        Copying a fact from the instruction is learned from such documents, hence the large share.
        """
        return [self._document(i, instructed, questioned, chat) for i in range(self.n)]

    def _document(self, i: int, instructed: float, questioned: float, chat: bool) -> str:
        chance, one = self._chance("document", i), self[i]
        asked, question = chance.random() < instructed, pick(chance, one.questions)
        return document(one, instructed=asked, question=question if chance.random() < questioned else None, chat=chat)
