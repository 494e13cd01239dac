"""graders check | autograde | feedback | export | report | verify | doctor | nbgrader: submissions -> grades."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from graders import signing
from graders.autograde import as_json, autograde, brief
from graders.check import VISIBLE_SEEDS, report
from graders.cluster import ClusterError
from graders.doctor import examine
from graders.export import FORMATS
from graders.grade import grade_submission
from graders.levels import missing
from graders.release import Release, ReleaseError, load
from graders.sandbox import IsolationError, Sandbox
from graders.summary import summary

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0: done (broken submissions are notes); 1: it could not be done, with the reason on stderr.

    130: it was interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["nbgrader"]:  # its arguments are its own
        return run_nbgrader(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ClusterError, IsolationError, ReleaseError, OSError) as error:
        print(f"graders: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ngraders: stopped; the same command goes on where it was", file=sys.stderr)
        return 130


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
    auto.add_argument("--jobs", type=int, default=0, metavar="N", help="grade N submissions at a time")
    auto.add_argument("--dask", metavar="ADDRESS", help="grade on the workers of a Dask scheduler, tcp://HOST:8786")
    auto.add_argument("--key", type=Path, help="the file of the key that signs verdicts, outside of the course")
    auto.add_argument(
        "--accept-weaker", action="store_true", help="where nothing else can be had: Landlock, without namespaces"
    )
    auto.add_argument("--trust", action="store_true", help="run the code WITHOUT isolation: only if you trust it")

    feedback = command("feedback", run_feedback, "write the feedback pages of an earlier autograde")
    feedback.add_argument("--assignment", required=True)
    feedback.add_argument("--out", type=Path, required=True, help="the folder that autograde wrote")

    export = command("export", run_export, "print the scores of an earlier autograde for a gradebook elsewhere")
    export.add_argument("--out", type=Path, required=True, help="the folder that autograde wrote")
    export.add_argument("--format", choices=sorted(FORMATS), default="csv")

    overview = command("report", run_report, "write report.html of an earlier autograde: scores as a picture, mistakes")
    overview.add_argument("--out", type=Path, required=True, help="the folder that autograde wrote")

    verify = command("verify", run_verify, "say of each verdict in a verdicts.json whether it is as it was signed")
    verify.add_argument("verdicts", type=Path)
    verify.add_argument("--key", type=Path, help="the file of the key")

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
    """Grade a folder; 1 where some submission could not be graded, which is then named."""
    release = _release(options.course, options.assignment)
    seeds = tuple(options.seed) if options.seed else None
    graded = autograde(
        release, options.course, options.submissions, options.out,
        trust=options.trust, weaker=options.accept_weaker, seeds=seeds, workers=options.jobs, key=options.key,
        feedback=options.feedback, dask=options.dask,
    )  # fmt: skip
    for student, error in graded.errors.items():
        print(f"graders: {student} could not be graded, run the same command again: {error}", file=sys.stderr)
    if options.json:
        verdicts = {s: brief(v) for s, v in graded.verdicts.items()}
        print(as_json(release.name, graded.level, verdicts, graded.alike))
    else:
        print(summary(release.name, graded.verdicts, graded.level, seconds=graded.seconds, alike=graded.alike))
        print(f"gradebook.db, verdicts.json and review.txt in {options.out}")
    return 1 if graded.errors else 0


def run_verify(options: argparse.Namespace) -> int:
    """Whether each verdict of a verdicts.json is as it was signed; 1 where one is not."""
    whole = json.loads(options.verdicts.read_text(encoding="utf-8"))
    secret, bad = signing.key(options.key), 0
    for student, verdict in whole["students"].items():
        good = signing.genuine(verdict, student, whole["assignment"], secret)
        bad += not good
        print(f"{'✓' if good else '✗'} {student}: {'signed by this key' if good else 'NOT as it was signed'}")
    return 1 if bad else 0


def run_export(options: argparse.Namespace) -> int:
    """Print the verdicts of an earlier autograde in the form that was asked for."""
    whole = _verdicts(options.out)
    sys.stdout.write(FORMATS[options.format](whole["assignment"], whole["students"]))
    return 0


def run_report(options: argparse.Namespace) -> int:
    """The class at a glance, from what an earlier autograde left in --out."""
    from graders.overview import write_report  # it takes matplotlib, which other commands can do without

    print(write_report(options.out, _verdicts(options.out)))
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


def _verdicts(out: Path) -> dict[str, Any]:
    """What an earlier autograde said; FileNotFoundError that tells how to get it where there is nothing."""
    path = out / "verdicts.json"
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: `graders autograde --out {out} ...` writes it")
    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return whole


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Within, what is printed goes to stderr: stdout holds the answer alone."""
    with redirect_stdout(sys.stderr):
        yield


if __name__ == "__main__":
    raise SystemExit(main())
