"""A submitted file -> a verdict: points, named mistakes and notes, whatever the file holds and its code does."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graders.check import report
from graders.draw import Draw
from graders.exercise import Exercise
from graders.fairness import better, second
from graders.judge import Outcome, Part, judge, observe
from graders.rebuild import Submission, rebuild
from graders.release import Item, Release
from graders.sandbox import SLOWER, CellNote, Child, RemoteSubject, Sandbox, Stopped, readable
from graders.subject import Failure
from graders.trace import ran

# The share of the usual time that an exercise gets after none, one, two, ... of its submission were too slow, so that
# who loops everywhere does not hold up the class.
PATIENCE = (1.0, 1.0, 0.5, 0.25, 0.125)
WHOLE = SLOWER / 5  # a submission may take so many times what all references take: not every answer is that slow
SEEDS = 2  # draws of inputs, so that luck does not pass
TEXT = 800  # characters of a message


@dataclass(frozen=True)
class Graded:
    """One exercise of a verdict. `printed` is what the learner's own cell wrote.

    `twice`, where it was judged twice: the score on the learner's own earlier functions, and that on the reference's.
    """

    outcome: Outcome
    printed: str = ""
    twice: tuple[int, int] | None = None
    judged: bool = True  # whether there was an answer to look at
    review: tuple[str, ...] = ()  # what an instructor should look at: forbidden functions, where and how they were seen


@dataclass(frozen=True)
class Verdict:
    """The verdict on one submission, with the level of isolation that it was reached at, and the seeds."""

    isolation: str
    seeds: tuple[int, ...]
    exercises: dict[str, Graded]
    notes: tuple[str, ...]
    submission: str = ""  # SHA-256 of the file
    used: Mapping[str, float] = field(default_factory=dict)  # seconds of wall and processor time, bytes of memory
    starved: bool = False  # something timed out for want of a processor: to be tried again alone

    @property
    def score(self) -> int:
        return sum(graded.outcome.score for graded in self.exercises.values())

    @property
    def points(self) -> int:
        return sum(graded.outcome.points for graded in self.exercises.values())

    def as_dict(self, *, details: bool = False) -> dict[str, Any]:
        """The verdict as JSON holds it; with `details` also the parts, the report, the level and the seeds."""
        exercises: dict[str, dict[str, Any]] = {}
        for name, graded in self.exercises.items():
            o = graded.outcome
            exercises[name] = {"score": o.score, "max": o.points, "mistake": o.mistake, "message": o.message}
            if graded.twice:
                exercises[name] |= dict(zip(("on_own", "on_reference"), graded.twice, strict=True))
            if graded.review:
                exercises[name]["review"] = list(graded.review)
            if details:
                parts = [asdict(part) for part in o.parts]
                exercises[name] |= {"parts": parts, "report": report(o), "printed": graded.printed}
        found = {"score": self.score, "max": self.points, "exercises": exercises, "notes": list(self.notes)}
        how = {"isolation": self.isolation, "seeds": list(self.seeds), "submission": self.submission}
        return found | how | {"used": dict(self.used)} if details else found


def fresh_seeds(n: int = SEEDS) -> tuple[int, ...]:
    """Seeds that nobody could know before."""
    return tuple(secrets.randbits(40) for _ in range(n))


def grade_submission(
    release: Release,
    path: Path,
    sandboxes: Callable[[], AbstractContextManager[Sandbox]],
    *,
    seeds: Sequence[int] | None = None,
) -> Verdict:
    """Grade the file at `path`: `rebuild`, then `grade`."""
    return grade(release, rebuild(release, path), sandboxes, seeds=seeds)


def grade(
    release: Release,
    submission: Submission,
    sandboxes: Callable[[], AbstractContextManager[Sandbox]],
    *,
    seeds: Sequence[int] | None = None,
) -> Verdict:
    """The verdict on a submission. `sandboxes` starts the box that its code runs in; what is no notebook needs none."""
    seeds = tuple(seeds or fresh_seeds())
    if not submission.readable:
        nothing = {item.name: unjudged(item, submission.notes[0]) for item in release.items}
        return Verdict("not executed", seeds, nothing, submission.notes, submission.digest)
    start = time.monotonic()
    with sandboxes() as sandbox:
        grading = Grading(release, submission, sandbox, seeds)
        grading.read()
        exercises = {item.name: grading.item(item) for item in release.items}
        used = {"cpu": round(sandbox.cpu(), 3), "memory": sandbox.memory}
    used["wall"] = round(time.monotonic() - start, 3)
    of_cells = [f"{name}: {note}" for name, note in submission.cell_notes.items()]
    notes = dict.fromkeys([*submission.notes, *of_cells, *grading.notes, *by_hand(release, submission)])
    told = tuple(readable(note) for note in notes)
    return Verdict(sandbox.level, seeds, exercises, told, submission.digest, used, grading.starved)


def by_hand(release: Release, submission: Submission) -> list[str]:
    """A note on each answer in words: an instructor gives its points, which no verdict counts."""
    given = {n: w for n, w in release.written.items() if submission.sources.get(n, w.stub).strip() != w.stub.strip()}
    return [f"{name}: its {written.points:g} points are given by hand" for name, written in given.items()]


class Grading:
    """One submission in its sandbox, exercise after exercise, each in a fork of its own."""

    def __init__(self, release: Release, submission: Submission, sandbox: Sandbox, seeds: Sequence[int]) -> None:
        self.release, self.submission, self.sandbox, self.seeds = release, submission, sandbox, seeds
        self.seconds = max(sandbox.limits.submission, WHOLE * sum(item.seconds for item in release.items))
        self.until = time.monotonic() + self.seconds
        self.chance = random.Random(f"player {seeds}")  # the Player's seeds must not tell the inputs' seeds
        self.hung: dict[str, Stopped] = {}  # cells that ended their process: not run again
        self.failed: dict[str, Exercise] = {}  # those judged so far that have not all of their points
        self.notes: list[str] = []
        self.children: list[Child] = []
        self.slow = 0  # how many exercises were too slow, with the processor at hand
        self.begun, self.before = time.monotonic(), sandbox.times()
        self.late = False  # the time of the submission ended, the machine took most of it
        self.named: dict[str, tuple[str, ...]] = {}  # name of an exercise -> its lines with what it forbids

    def read(self) -> None:
        """Look for forbidden names in the sources, in a fork that runs none of them: parsing may hurt a process."""
        asking = [i for i in self.release.items if i.exercise.forbidden and i.name in self.submission.sources]
        if not asking:
            return
        child = self.sandbox.fork(self.until)
        with closing(child), suppress(Stopped):
            child.run([], 0)
            for item in asking:
                source = self.submission.sources[item.name]
                with suppress(Failure):  # a cell that is no Python is judged as such
                    found = child.ask("read", item.name, (source, list(item.exercise.forbidden)))
                    self.named[item.name] = lines_of(source, found)

    @property
    def starved(self) -> bool:
        """Whether something timed out that may have had too little of the processor."""
        return self.late or any(child.starved for child in self.children)

    def item(self, item: Item) -> Graded:
        """Judge one exercise, and once more without what went wrong before it where it lost points."""
        graded = self._on_own(item)
        if not graded.outcome.full:
            graded = self._again(item, graded)
        if not graded.outcome.full:
            self.failed[item.name] = item.exercise
        return graded

    def _again(self, item: Item, own: Graded) -> Graded:
        """The better of this outcome and that of a second try, without what went wrong in earlier exercises.

        A choice of letters that was read needs no function: a second try would be a second guess. Of the second try's
        process, which may have seen a reference, nothing is kept but points.
        """
        if item.exercise.question and own.judged:
            return own
        cells = [c for c in self._present(item) if c not in self.hung]
        if item.name not in cells or self.submission.sources[item.name] == self.release.stubs[item.name]:
            return own
        above = item.cells[: item.cells.index(item.name) + 1]
        ground = second(self.failed, above, self.submission.sources)
        if (stopped := self.children[-1].stopped) and stopped.kind == "Timeout":
            ground = replace(ground, idle=())  # who loops owes it to no other cell
        if not ground:
            return own
        try:
            child, note = self._executed(item, [c for c in cells if c not in ground.idle], ground.stand_ins)
        except Stopped:
            return own
        with closing(child):
            again = self._graded(child, item, note).outcome
        best = cleaned(better(own.outcome, again, ground.ground))
        return replace(own, outcome=best, twice=(own.outcome.score, again.score))

    def _present(self, item: Item) -> list[str]:
        return [c for c in item.cells if c in self.submission.sources]

    def _on_own(self, item: Item) -> Graded:
        """Judge one exercise after the learner's own cells. Whatever happens in it costs this exercise only."""
        if item.name not in self.submission.sources:
            return unjudged(item, self.submission.cell_notes[item.name])
        try:
            child, own = self._child(item)
        except Stopped as stopped:
            return unjudged(item, f"its cell was stopped: {stopped.text}")
        with closing(child):
            if own.commands:
                self.notes.append(f"{item.name}: notebook commands are left out in grading: {'; '.join(own.commands)}")
            return self._graded(child, item, own)

    def _child(self, item: Item) -> tuple[Child, CellNote]:
        """A fork that executed the cells up to this exercise's own, but for those that ended a fork before.

        Where the process ends in the exercise's own cell, an earlier one may have prepared that: then again without it.
        """
        cells = self._present(item)
        while time.monotonic() < self.until:
            cells = [c for c in cells if c not in self.hung]
            try:
                return self._executed(item, cells)
            except Stopped as stopped:
                if stopped.cell in cells and stopped.cell != item.name:
                    self._remember(str(stopped.cell), stopped)
                elif stopped.kind == "Timeout" or cells == [item.name]:
                    self._remember(item.name, stopped)
                    raise
                else:
                    cells = [item.name]
        self.late = self.sandbox.times().starved(self.before, time.monotonic() - self.begun)
        raise Stopped("Timeout", f"the {self.seconds:.0f} seconds of the whole submission were used up")

    def _executed(
        self, item: Item, cells: Sequence[str], stand_ins: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[Child, CellNote]:
        """A fork that executed these cells, each stand-in after its cell, whose other names stay."""
        run = [(f"setup {i + 1}", source) for i, source in enumerate(self.release.setup)]
        added: list[str] = []
        for cell in ("", *item.cells):
            own = self.submission.sources[cell] if cell in cells else None
            run += [(cell, source) for source in (own, stand_ins.get(cell)) if source is not None]
            beside = [(f"added {len(added) + i + 1}", s) for i, s in enumerate(self.submission.added.get(cell, ()))]
            added += [name for name, _ in beside]
            run += beside
        if self.children and (stopped := self.children[-1].stopped) and stopped.kind == "Timeout":
            self.slow += not self.children[-1].starved
        child = self.sandbox.fork(self.until, PATIENCE[min(self.slow, len(PATIENCE) - 1)], seconds=item.seconds)
        self.children.append(child)
        notes = child.run(run, self.chance.getrandbits(62), added=added)
        return child, next(note for note in notes if note.name == item.name)

    def _remember(self, cell: str, stopped: Stopped) -> None:
        self.hung[cell] = stopped
        self.notes.append(
            f"{cell}: its cell did not end ({stopped.text}); the exercises after it were graded without it"
        )

    def _graded(self, child: Child, item: Item, own: CellNote) -> Graded:
        if not own.defined:
            why = (
                f"its cell does not run: {': '.join(own.error)}" if own.error else f"its cell defines no `{item.name}`"
            )
            return unjudged(item, why, own.printed)
        question = item.exercise.question
        subject = RemoteSubject(child, item.name, op="value" if question else "call", seed=self.chance.getrandbits(62))
        try:
            if question and (amiss := not_a_choice(subject(), tuple(question.choices))):
                return replace(unjudged(item, amiss, own.printed), judged=True)
            outcome = cleaned(judge(item.exercise, subject, self.seeds))
            return Graded(outcome, own.printed, review=self._review(child, item, outcome))
        except Failure as failure:
            return unjudged(item, str(failure), own.printed)
        except Exception as error:  # a value of a form that the table did not expect
            return unjudged(
                item, f"what it gives has not the form that was asked for ({type(error).__name__})", own.printed
            )

    def _review(self, child: Child, item: Item, outcome: Outcome) -> tuple[str, ...]:
        """Where the answer names or runs what its exercise forbids. One more call, traced, after the judgement."""
        seen = self.named.get(item.name, ())
        if not item.exercise.forbidden or not outcome.score:
            return seen
        ops: set[str] = set()
        subject = RemoteSubject(child, item.name, ran=ops)
        for requirement in item.exercise.requirements:
            observe(requirement, subject, requirement.inputs(Draw(self.seeds[0])))
        return seen + tuple(f"its process says that it ran {name}" for name in ran(ops, item.exercise.forbidden))


def lines_of(source: str, found: Any) -> tuple[str, ...]:
    """What a process read in a source -> sentences that quote its lines; nothing where it is of no such form."""
    lines = source.split("\n")
    pairs = [pair for pair in found if isinstance(pair, tuple) and len(pair) == 2] if isinstance(found, list) else []
    good = [(n, name) for n, name in pairs if type(n) is int and 0 < n <= len(lines) and isinstance(name, str)]
    return tuple(readable(f"line {n} names {name}: {lines[n - 1].strip()[:100]}", 200) for n, name in good[:10])


def not_a_choice(answer: object, choices: Sequence[str]) -> str | None:
    """Why an answer to a question is none of its letters, without a word on which is right; None where it is one."""
    if answer is None:
        return "not answered yet: write the letter of your choice"
    if not isinstance(answer, str) or answer.strip().lower() not in choices:
        return f"the answer must be one of the letters {', '.join(choices)}"
    return None


def unjudged(item: Item, why: str, printed: str = "") -> Graded:
    """No points for an exercise that could not be judged, with the reason as its message."""
    parts = tuple(Part(r.title, r.points, 0, why) for r in item.exercise.requirements)
    return Graded(cleaned(Outcome(item.name, 0, item.exercise.points, parts, None, why)), printed, judged=False)


def cleaned(outcome: Outcome) -> Outcome:
    """The outcome with all texts safe to show: a message may quote what the learner's code gave."""
    parts = tuple(replace(part, message=readable(part.message, TEXT)) for part in outcome.parts)
    return replace(outcome, parts=parts, message=readable(outcome.message, TEXT))
