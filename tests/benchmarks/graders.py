"""A grader as a process: a line of JSON that names students -> a line of JSON with the seconds that their grading took.

python -m tests.benchmarks.graders graders|nbgrader|otter PLACE    (PLACE/class holds the submissions)
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LESSON = "04_attention"
LIMIT = 300  # seconds of a rival's cell: a busy machine shall cost it no submission

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def clock() -> tuple[float, float]:
    """Seconds of wall and of processor so far, those of finished child processes included."""
    times = os.times()
    return time.perf_counter(), sum(times[:4])


def handed_in(place: Path, students: list[str], folder: Path) -> None:
    """The submissions of these students, and no others, in a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for student in students:
        shutil.copytree(place / "class" / student, folder / student)


def ours(place: Path) -> Answer:
    """This project's grader: a class at once, with the gradebook; then the pages."""
    from graders import selftest
    from graders.autograde import autograde
    from graders.bridge import write_feedback
    from graders.release import load

    release = load(ROOT / "course" / LESSON / f"{LESSON}.ipynb")
    folder, out = place / "class", place / "ours"
    hidden = (ROOT.resolve(), folder.resolve(), out.resolve())
    level = selftest.strongest(ROOT, hidden)[0]

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        if asked.get("exercises"):
            from tests.benchmarks.players import figures

            return figures(release, selftest.opened(level, ROOT, hidden), place / "class", asked["exercises"])
        wall, cpu = clock()
        graded = autograde(release, ROOT, folder, out, workers=asked["jobs"], key=place / "key")
        done, spent = clock()
        write_feedback(LESSON, root=ROOT, out=out)
        used = [verdict["used"] for verdict in graded.verdicts.values()]
        return {
            "seconds": done - wall, "pages": time.perf_counter() - done, "n": len(graded.verdicts),
            "each": [u["wall"] for u in used], "cpu": spent - cpu + sum(u["cpu"] for u in used), "level": level,
            "scores": {student: verdict["score"] for student, verdict in graded.verdicts.items()},
        }  # fmt: skip

    return answer


def stock(place: Path) -> Answer:
    """nbgrader as it comes, for the submissions of a block: its own configuration, and its own pages."""
    from nbgrader.api import Gradebook
    from nbgrader.converters import Autograde, GenerateFeedback
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    from graders.gradebook import at_peace, register, transaction
    from graders.release import load

    out, folder = place / "stock", place / "stock-in"
    out.mkdir()
    config = Config()
    config.CourseDirectory.root = str(out)
    config.CourseDirectory.submitted_directory = str(folder)
    config.CourseDirectory.db_url = f"sqlite:///{out / 'gradebook.db'}"
    config.Execute.timeout = LIMIT
    with transaction(out / "gradebook.db", "stock") as gradebook:
        register(load(ROOT / "course" / LESSON / f"{LESSON}.ipynb"), gradebook)

    class Timed(Autograde):  # type: ignore[misc]
        """Notes when each submission begins."""

        def init_assignment(self, assignment_id: str, student_id: str) -> None:
            if self._sanitizing:
                begun.append(time.perf_counter())
            super().init_assignment(assignment_id, student_id)

    begun: list[float] = []

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        handed_in(place, asked["students"], folder)
        begun.clear()
        wall, cpu = clock()
        with at_peace():
            Timed(coursedir=CourseDirectory(config=config, assignment_id=LESSON), config=config).start()
        done, spent = clock()
        with at_peace():
            shutil.rmtree(out / "feedback", ignore_errors=True)
            coursedir = CourseDirectory(config=config, assignment_id=LESSON)
            pages = GenerateFeedback(coursedir=coursedir, config=config)
            pages.coursedir.student_id_exclude = ",".join(graded)  # of earlier blocks: they have pages already
            pages.start()
        paged = time.perf_counter()
        graded.update(asked["students"])
        with at_peace(), Gradebook(config.CourseDirectory.db_url, "stock") as gradebook:
            scores = {s.student.id: s.score for s in gradebook.assignment_submissions(LESSON)}
        return {
            "seconds": done - wall, "pages": paged - done, "n": len(asked["students"]), "cpu": spent - cpu,
            "each": [b - a for a, b in zip(begun, [*begun[1:], done], strict=True)],
            "scores": {student: scores.get(student) for student in asked["students"]},
        }  # fmt: skip

    graded: set[str] = set()
    return answer


TEST = """OK_FORMAT = False

from otter.test_files import test_case

name = "{name}"
points = {points}


@test_case(points={points}, hidden=False)
def test_it({name}):
    from graders.check import check

    assert check("{id}", {name}) == {points}
"""


def otter(place: Path) -> Answer:
    """otter-grader without a container: a zip of tests made from the same exercises, and one notebook at a time."""
    import logging
    import zipfile

    import nbformat
    from otter.api import grade_submission

    from graders.release import load

    logging.disable(logging.DEBUG)
    release = load(ROOT / "course" / LESSON / f"{LESSON}.ipynb")
    with zipfile.ZipFile(place / "autograder.zip", "w") as made:
        made.writestr("otter_config.json", json.dumps({"lang": "python", "print_summary": False, "print_score": False}))
        for item in release.items:
            about = {"name": item.name, "points": item.exercise.points, "id": item.exercise.id}
            made.writestr(f"tests/{item.name}.py", TEST.format(**about))

    def notebook(student: str) -> Path:
        """The student's notebook, in which otter's tests stand in the place of nbgrader's."""
        found = nbformat.read(place / "class" / student / LESSON / f"{LESSON}.ipynb", as_version=4)
        tests = {item.grade_id: item.name for item in release.items}
        kept = []
        for cell in found.cells:
            name = tests.get(cell.metadata.get("nbgrader", {}).get("grade_id"))
            if name:
                kept[-1].metadata["otter"] = {"tests": [name]}
            else:
                kept.append(cell)
        found.cells = kept
        path = place / "otter-in" / student / f"{LESSON}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(found, path)
        return path

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        paths = {student: notebook(student) for student in asked["students"]}
        begun, scores = [clock()], {}
        for student, path in paths.items():
            results = grade_submission(str(path), str(place / "autograder.zip"), quiet=True)
            scores[student] = results.total
            begun.append(clock())
        walls = [b[0] - a[0] for a, b in pairwise(begun)]
        return {
            "seconds": sum(walls), "pages": None, "n": len(paths), "each": walls,
            "cpu": begun[-1][1] - begun[0][1], "scores": scores,
        }  # fmt: skip

    return answer


GRADERS = {"graders": ours, "nbgrader": stock, "otter": otter}


def main(name: str, place: Path) -> None:
    """Say when everything is loaded, then answer line by line."""
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        answer = GRADERS[name](place)
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
