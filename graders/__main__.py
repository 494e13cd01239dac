"""graders check | autograde | feedback | doctor | nbgrader: from submitted notebooks to grades, on the command line."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path

from tqdm import tqdm

from graders.check import VISIBLE_SEEDS, report
from graders.collect import collect
from graders.doctor import examine
from graders.grade import Verdict, grade, grade_submission
from graders.levels import missing
from graders.rebuild import rebuild
from graders.release import Release, ReleaseError, load
from graders.sandbox import IsolationError, Sandbox
from graders.selftest import once

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0: done (broken submissions are notes); 1: it could not be done, with the reason on stderr."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["nbgrader"]:  # its arguments are its own
        return run_nbgrader(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (IsolationError, ReleaseError, FileNotFoundError) as error:
        print(f"graders: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graders", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--course", type=Path, default=ROOT, help="the course root, which holds course/")
        return made

    check = command("check", run_check, "judge your own notebook and say what is still amiss")
    check.add_argument("notebook", type=Path)
    check.add_argument("--assignment", help="the lesson, where the file is not named after it")

    auto = command("autograde", run_autograde, "grade a folder of submissions into a gradebook")
    auto.add_argument("--assignment", required=True, help="the lesson, as its folder in course/ is named")
    auto.add_argument(
        "--submissions", type=Path, required=True, help="ID/NAME/NAME.ipynb (nbgrader's shape) or ID.ipynb"
    )
    auto.add_argument(
        "--out", type=Path, required=True, help="gets gradebook.db, verdicts.json, autograded/, feedback/"
    )
    auto.add_argument("--json", action="store_true", help="print the verdicts, and nothing else, as one JSON object")
    auto.add_argument("--feedback", action="store_true", help="write a page of feedback for each submission")
    auto.add_argument(
        "--seed", type=int, action="append", help="draw inputs from this seed, again and again if repeated"
    )
    auto.add_argument("--trust", action="store_true", help="run the code WITHOUT isolation: only if you trust it")

    feedback = command("feedback", run_feedback, "write the feedback pages of an earlier autograde")
    feedback.add_argument("--assignment", required=True)
    feedback.add_argument("--out", type=Path, required=True, help="the folder that autograde wrote")

    command("doctor", run_doctor, "say what is there, what is missing, and the line that mends it")
    commands.add_parser(
        "nbgrader", help="stock nbgrader with this course's configuration: graders nbgrader autograde NAME"
    )
    return parser


def run_check(options: argparse.Namespace) -> int:
    """A learner's own notebook, in the box where there is one: one's own code is trusted either way."""
    release = _release(options.course, options.assignment or options.notebook.stem)
    level = "none" if missing() else "bwrap"
    verdict = grade_submission(release, options.notebook, lambda: Sandbox(level), seeds=VISIBLE_SEEDS)
    for graded in verdict.exercises.values():
        print(report(graded.outcome))
    for note in verdict.notes:
        print(f"note: {note}")
    print(f"{release.name}: {verdict.score} of {verdict.points} points")
    return 0


def run_autograde(options: argparse.Namespace) -> int:
    """Grade all, write verdicts.json, then nbgrader's gradebook and pages from it."""
    from graders.bridge import post  # nbgrader takes seconds to import, and `check` can do without

    release = _release(options.course, options.assignment)
    level = "none" if options.trust else "bwrap"
    once(level, options.course)
    files = collect(options.submissions, release.name)
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    submissions = {student: rebuild(release, path) for student, path in files.items()}
    verdicts: dict[str, Verdict] = {}
    box = partial(Sandbox, level, hidden=[options.course.resolve(), options.submissions.resolve(), out])
    for student in tqdm(submissions, desc=release.name, unit="submission", file=sys.stderr):
        verdicts[student] = grade(release, submissions[student], box, seeds=options.seed)
    write_atomically(out / "verdicts.json", as_json(release.name, level, verdicts, details=True))
    with quiet_stdout():
        post(release, submissions, root=options.course.resolve(), out=out, feedback=options.feedback)
    print(as_json(release.name, level, verdicts) if options.json else summary(release, verdicts, level, out))
    return 0


def run_feedback(options: argparse.Namespace) -> int:
    """The pages of feedback from what an earlier autograde left in --out."""
    from graders.bridge import write_feedback

    with quiet_stdout():
        write_feedback(options.assignment, root=options.course.resolve(), out=options.out.resolve())
    print(f"feedback in {options.out / 'feedback'}")
    return 0


def run_doctor(options: argparse.Namespace) -> int:
    """Print what was found; 1 where something is missing."""
    found = list(examine(options.course))
    for good, sentence in found:
        print(f"{'✓' if good else '✗'} {sentence}")
    return 0 if all(good for good, _ in found) else 1


def run_nbgrader(arguments: Sequence[str]) -> int:
    """Stock nbgrader in this folder, with graders/nbgrader_config.py and the environment's own programs on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    config = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("JUPYTER_CONFIG_PATH")]))
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PATH": path, "JUPYTER_CONFIG_PATH": config, "PYTHONPATH": search}
    environment.setdefault(
        "PYTHONWARNINGS", "ignore:Object of type <Submitted:Warning"
    )  # nbgrader's way with SQLAlchemy
    return subprocess.run([sys.executable, "-m", "nbgrader", *arguments], env=environment, check=False).returncode


def _release(course: Path, name: str) -> Release:
    return load(course / "course" / name / f"{name}.ipynb")


def as_json(assignment: str, level: str, verdicts: Mapping[str, Verdict], *, details: bool = False) -> str:
    """All verdicts as one JSON object."""
    students = {student: verdict.as_dict(details=details) for student, verdict in verdicts.items()}
    return json.dumps(
        {"assignment": assignment, "isolation": level, "students": students}, indent=2, ensure_ascii=False
    )


def summary(release: Release, verdicts: Mapping[str, Verdict], level: str, out: Path) -> str:
    """One line a student, and where the rest lies."""
    lines = [f"{student}: {verdict.score} of {verdict.points}" for student, verdict in verdicts.items()]
    lines += [f"{release.name}: {len(verdicts)} submissions at level {level}; gradebook.db and verdicts.json in {out}"]
    return "\n".join(lines)


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Within, what is printed goes to stderr: stdout holds the answer alone."""
    with redirect_stdout(sys.stderr):
        yield


if __name__ == "__main__":
    raise SystemExit(main())
