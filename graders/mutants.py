"""Every exercise's check, proven: each wrong answer rejected and named, none confused, each other right one accepted.

python -m graders.mutants [--json] [concept ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch

from graders.exercise import Exercise, concepts, table
from graders.judge import judge
from graders.subject import Here

SEEDS = (11, 12)
NAMED_SHARE = 0.95


@dataclass(frozen=True)
class Proof:
    """What the check of one exercise does with the wrong and the right answers of its table."""

    exercise: str
    wrong: int
    rejected: int
    named: int
    confused: tuple[str, ...]  # "given -> named as": rejected, but under another mistake's name
    right_variants: int
    accepted: int
    survivors: tuple[str, ...]  # the wrong answers that were accepted
    refused: tuple[str, ...]  # the right answers that were not


def prove(exercise: Exercise, seeds: Sequence[int] = SEEDS) -> Proof:
    """Judge every wrong and every right answer of the table as if a learner had written it."""
    wrong = {w.name: judge(exercise, Here(w.function), seeds) for w in exercise.wrong}
    right = {name: judge(exercise, Here(f), seeds) for name, f in exercise.right.items()}
    return Proof(
        exercise=exercise.id,
        wrong=len(wrong),
        rejected=sum(not outcome.full for outcome in wrong.values()),
        named=sum(outcome.mistake == name for name, outcome in wrong.items()),
        confused=tuple(f"{n} -> {o.mistake}" for n, o in wrong.items() if o.mistake not in (None, n)),
        right_variants=len(right),
        accepted=sum(outcome.full for outcome in right.values()),
        survivors=tuple(name for name, outcome in wrong.items() if outcome.full),
        refused=tuple(f"{name}: {outcome.message}" for name, outcome in right.items() if not outcome.full),
    )


def proven(proofs: Iterable[Proof]) -> bool:
    """Whether all wrong answers are rejected, enough are named, none confused, and all right ones accepted."""
    rows = list(proofs)
    sound = all(p.rejected == p.wrong and p.accepted == p.right_variants and not p.confused for p in rows)
    return sound and sum(p.named for p in rows) >= NAMED_SHARE * sum(p.wrong for p in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one row an exercise (one JSON object a line with --json); exit 1 where a check is not proven."""
    parser = argparse.ArgumentParser(prog="python -m graders.mutants", description=__doc__.split("\n")[0])
    parser.add_argument("concepts", nargs="*", help="the stems of graders/checks/ (all unless given)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # tensors this small gain nothing from a second thread
    proofs = [prove(exercise) for concept in options.concepts or concepts() for exercise in table(concept).values()]
    for proof in proofs:
        print(json.dumps(asdict(proof)) if options.json else line(proof))
    if not options.json:
        wrong, named = sum(p.wrong for p in proofs), sum(p.named for p in proofs)
        rejected, accepted = sum(p.rejected for p in proofs), sum(p.accepted for p in proofs)
        print(f"{len(proofs)} exercises: {rejected} of {wrong} wrong answers rejected, {named} named")
        print(f"{accepted} of {sum(p.right_variants for p in proofs)} right ones accepted")
    return 0 if proven(proofs) else 1


def line(proof: Proof) -> str:
    """One proof as a line of the table, with what is amiss at its end."""
    amiss = "; ".join((*proof.survivors, *proof.confused, *proof.refused))
    wrong = f"rejected {proof.rejected}/{proof.wrong}  named {proof.named}/{proof.wrong}"
    return f"{proof.exercise:<36}{wrong}  accepted {proof.accepted}/{proof.right_variants}  {amiss}".rstrip()


if __name__ == "__main__":
    raise SystemExit(main())
