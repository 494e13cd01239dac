"""From a lesson's text to the learner's notebook: no solution in it, all that grading needs, the same bytes."""

from __future__ import annotations

import base64
import copy
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.validator import Validator

import graders.checks
from graders.check import check
from graders.exercise import find
from graders.judge import UNWRITTEN
from graders.release import load
from solutions import build, notebook
from solutions.build import Places
from solutions.paste import BEGIN, LessonError, paste, solutions, unmarked, wanted
from solutions.release import leaks, release
from tinytrans.files import write_whole

LESSONS = build.names()
TABLE = """
from graders.exercise import exercise, question, requires
from tinytrans.nn import attention

def matrices(draw):
    T, S, K = draw.sizes(3)
    return draw.normal(T, K), draw.normal(S, K)

def one(draw):
    return (draw.normal(3, 4),)

def query(draw):
    S, K, V = draw.sizes(3)
    return draw.normal(K), draw.normal(S, K), draw.normal(S, V)

EXERCISES = [
    exercise(
        "attention_scores", reference=attention.attention_scores, requirements=[requires("values", 3, matrices)],
        wrong={"not scaled": (lambda q, k: q @ k.mT, "your scores grow with the width")}, right={},
    ),
    exercise(
        "masked_softmax", reference=attention.masked_softmax, wrong={}, right={},
        requirements=[requires("values", 2, one)],
    ),
    exercise(
        "attend_one", reference=attention.attend_one, wrong={}, right={},
        requirements=[requires("values", 2, query)],
    ),
    question("why", "Why $d$?", choices={"a": "so", "b": "for"}, explanations={"a": "no", "b": "yes"}, answer="b"),
]
"""
LESSON = """
# %% [markdown]
# # A small lesson

# %% tags=["setup"]
import math
import torch
from torch import Tensor

# %% tags=["tools"]
import graders.checks; graders.checks.__path__.append("CHECKS")
from graders.check import check

# %% exercise="small.attention_scores"
# from: tinytrans.nn.attention.attention_scores

# %% exercise="small.masked_softmax"
# from: tinytrans.nn.attention.masked_softmax

# %% exercise="small.attend_one"
# from: tinytrans.nn.attention.attend_one

# %% question="small.why"

# %% [markdown] tags=["instructor"]
# They will ask about the square root.

# %% [markdown]
# <!-- pitfalls: small -->

# %%
print("the end")
"""
NAME = "90_small"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """A course of one small lesson, built, with a table of its own."""
    root = tmp_path_factory.mktemp("course")
    for folder in ("lessons", "checks"):
        (root / folder).mkdir()
    (root / "checks" / "small.py").write_text(TABLE)
    (root / "lessons" / f"{NAME}.py").write_text(LESSON.replace("CHECKS", str(root / "checks")))
    graders.checks.__path__.append(str(root / "checks"))
    places = Places(root / "lessons", root / "source", root / "course")
    build.build(places=places)
    yield places
    graders.checks.__path__.remove(str(root / "checks"))
    sys.modules.pop("graders.checks.small", None)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kernels started now find this repository, and nothing of the user's own settings."""
    monkeypatch.setenv("PYTHONPATH", str(build.ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))


def learner(places: Places) -> NotebookNode:
    """The learner's notebook of the small lesson."""
    return build.submission(NAME, {}, places)


def cell(made: NotebookNode, id: str) -> NotebookNode:
    """The cell with this id."""
    return next(c for c in made.cells if c.id == id)


def lesson(places: Places, *changes: tuple[str, str]) -> NotebookNode:
    """The source notebook of the small lesson with some of its text replaced."""
    text = (places.lessons / f"{NAME}.py").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return notebook.source(NAME, text)


def test_two_builds_are_the_same_bytes(places: Places) -> None:
    """A second build changes no byte of a notebook, and finds nothing stale."""
    path = places.course / NAME / f"{NAME}.ipynb"
    before = path.read_bytes()
    assert build.stale(places=places) == []
    assert build.build(["90"], places) == [NAME]
    assert path.read_bytes() == before
    assert before.endswith(b"}\n")


def test_what_is_edited_or_left_over_in_the_course_is_stale(places: Places, tmp_path: Path) -> None:
    """An edited notebook is stale, and so is the notebook of a lesson that is gone; a build puts both right."""
    own = Places(places.lessons, tmp_path / "source", tmp_path / "course")
    edited, gone = own.course / NAME / f"{NAME}.ipynb", own.course / "89_gone" / "89_gone.ipynb"
    for path in (edited, gone):
        write_whole(path, b"{}\n")
    assert build.stale(places=own) == ["89_gone/89_gone.ipynb", f"{NAME}/{NAME}.ipynb"]
    build.build(places=own)
    assert build.stale(places=own) == []
    assert not gone.parent.exists()


def test_a_learner_gets_the_signature_the_docstring_and_the_stub(places: Places) -> None:
    """A solution cell of a release is the library's function with nbgrader's stub for a body, a question's is None."""
    scores = cell(learner(places), "attention_scores").source
    assert scores.startswith("def attention_scores(q: Tensor, k: Tensor) -> Tensor:\n")
    assert '"""How well each query fits each key' in scores
    assert scores.endswith("\n    # YOUR CODE HERE\n    raise NotImplementedError()")
    assert cell(learner(places), "why").source == "why = None"


def test_points_and_ids_are_the_tables(places: Places) -> None:
    """A test cell carries its table's points and a permanent id, and checks the exercise that its metadata names."""
    tests = [c for c in learner(places).cells if c.metadata.get("nbgrader", {}).get("grade")]
    assert [(c.id, c.metadata.nbgrader.points) for c in tests] == [
        ("check_attention_scores", 3),
        ("check_masked_softmax", 2),
        ("check_attend_one", 2),
        ("check_why", 1),
    ]
    for c in tests:
        exercise = find(c.metadata.tinytrans.exercise)
        assert c.id == c.metadata.nbgrader.grade_id == f"check_{exercise.name}"
        assert c.source == f'check("{exercise.id}", {exercise.name})'


def test_grading_reads_the_release(places: Places) -> None:
    """What a submission is rebuilt from finds every exercise of the release, its stub and its setup cell."""
    found = load(places.course / NAME / f"{NAME}.ipynb")
    assert found.points == 8
    assert list(found.stubs) == [item.name for item in found.items] == list(build.answers(NAME, places))
    assert found.setup == ("import math\nimport torch\nfrom torch import Tensor",)


def test_notes_stay_with_the_instructor_and_pitfalls_come_from_the_tables(places: Places) -> None:
    """Notes are in the source notebook only; the pitfalls hold each mistake, and no choice of a question."""
    made = learner(places)
    everything = "\n".join(c.source for c in made.cells)
    assert "They will ask" not in everything
    assert "They will ask" in "\n".join(c.source for c in build.source(NAME, places).cells)
    assert "*not scaled*: your scores grow with the width" in everything
    assert "choice a" not in everything
    assert {"kernelspec", "language_info"} == set(made.metadata)


def test_a_fold_holds_markdown(places: Places) -> None:
    """What is folded on one line of a lesson is Markdown as well: its code is set as code, its formulas stay."""
    hints = "# <details><summary>Hint 1</summary>Take `q @ k.T`.</details>\n" * 2
    made = lesson(places, ("# # A small lesson\n", f"# # A small lesson\n#\n{hints}"))
    shown = markdown2html(next(c.source for c in made.cells if "# A small lesson" in c.source))
    assert shown.count("<code>q @ k.T</code>") == 2
    assert shown.count("<summary>Hint 1</summary>") == shown.count("</details>") == 2
    assert "`" not in shown


def test_solution_lines_are_code_without_comments() -> None:
    """Comments of a library function survive in the solution, and the solution is what stands between the markers."""
    pasted = paste("tinytrans.nn.attention.masked_softmax")
    assert "# -inf, not -1e9: half precision overflows" in solutions(pasted)[0]
    assert BEGIN not in unmarked(pasted)
    assert wanted(unmarked(pasted)) == {"Tensor", "torch"}


def plant_source(made: NotebookNode, text: str) -> None:
    made.cells[0].source += f"\nsee {text}"


def plant_spaces(made: NotebookNode, text: str) -> None:
    made.cells[0].source += text.replace(" ", "  ").replace("(", "(\n")


def plant_metadata(made: NotebookNode, text: str) -> None:
    made.metadata["note"] = {"deep": [text]}


def plant_output(made: NotebookNode, text: str) -> None:
    made.cells[-1].outputs = [{"output_type": "stream", "name": "stdout", "text": text}]


def plant_attachment(made: NotebookNode, text: str) -> None:
    made.cells[0].attachments = {"a.txt": {"text/plain": base64.b64encode(text.encode()).decode()}}


@pytest.mark.parametrize("plant", [plant_source, plant_spaces, plant_metadata, plant_output, plant_attachment])
@pytest.mark.parametrize(
    "secret",
    ["return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])", 'why = "b"', "They will ask about the square root."],
)
def test_a_planted_leak_is_found(places: Places, plant, secret: str) -> None:
    """A solution line, an answer or a note is found wherever it hides in a release, however it is spaced."""
    made = copy.deepcopy(learner(places))
    assert leaks(build.source(NAME, places), made) == []
    plant(made, secret)
    assert len(leaks(build.source(NAME, places), made)) == 1


def test_a_lesson_that_tells_its_solution_is_not_built(places: Places) -> None:
    """Prose with a line of a solution in it stops the build."""
    told = lesson(places, ("# # A small lesson", "# Write `return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])`."))
    with pytest.raises(LessonError, match=r"1 secrets would be in the release, the first is `return q"):
        list(release({NAME: told}))


FROM = "# from: tinytrans.nn.attention.attention_scores"
MISTAKES = {
    "unknown exercise": [
        ("small.attention_scores", "small.scores"),
        r"no exercise 'scores'.*there are attention_scores",
    ],
    "unknown concept": [("small.attention_scores", "tall.attention_scores"), "no checks for 'tall'"],
    "twice": [("small.masked_softmax", "small.attention_scores"), "does not define|twice"],
    "no setup": [('tags=["setup"]\nimport math\nimport torch\nfrom torch import Tensor', ""), "uses Tensor, math"],
    "a name from nowhere": [("import math\n", ""), r"uses math: import it in the setup cell"],
    "no such function": [(FROM, f"{FROM}_not"), "defines no function or class"],
    "no such module": [(FROM, "# from: tinytrans.nowhere.attend"), "no module 'tinytrans.nowhere'"],
    "another function": [(FROM, "# from: tinytrans.nn.attention.attend_one"), "does not define 'attention_scores'"],
    "no from line": [(FROM, "def attention_scores(q, k): ..."), "an exercise cell is one line"],
    "the library in setup": [("import math\n", "import math\nimport tinytrans.nn\n"), "belongs into a tools cell"],
    "code in setup": [("import math\n", "import math\nseed = 1\n"), "imports only; move `seed = 1`"],
    "a tag misspelled": [("instructor", "instuctor"), "'instuctor' means nothing here"],
    "a header misspelled": [
        ('exercise="small.attend_one"', 'excercise="small.attend_one"'),
        "'excercise' means nothing",
    ],
    "no check": [("from graders.check import check", ""), "no tools cell above imports `check`"],
    "not Python": [("import math\n", "import math as\n"), "is not Python"],
    "a function as a question": [
        ('question="small.why"', 'question="small.masked_softmax"'),
        "a question cell is empty",
    ],
    "pitfalls of another lesson": [("<!-- pitfalls: small", "<!-- pitfalls: tall"), "hold no mistakes of this lesson"],
}


@pytest.mark.parametrize(("change", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_lesson_is_told(places: Places, change: tuple[str, str], sentence: str) -> None:
    """Whatever is wrong in a lesson stops the build with a sentence that names the lesson and what to do."""
    with pytest.raises(LessonError, match=sentence) as caught:
        lesson(places, change)
    assert str(caught.value).startswith(NAME)


def test_an_exercise_is_asked_for_once(places: Places) -> None:
    """The same exercise in two cells of a lesson stops the build."""
    twice = '# %% exercise="small.attention_scores"\n# from: tinytrans.nn.attention.attention_scores\n\n# %%\nprint'
    with pytest.raises(LessonError, match="'attention_scores' is here twice"):
        lesson(places, ("# %%\nprint", twice))


def test_a_lesson_that_is_not_there_is_told(capsys: pytest.CaptureFixture) -> None:
    """`--only` with no lesson of that name prints which there are and ends with 1."""
    assert build.main(["--only", "77"]) == 1
    assert "no lesson starts with '77'" in capsys.readouterr().out


def test_a_submission_holds_what_was_asked_for(places: Places) -> None:
    """An answer to an exercise that the lesson does not have is refused."""
    with pytest.raises(KeyError, match=r"asks for no 'attend'; it asks for attention_scores, masked_softmax"):
        build.submission(NAME, {"attend": ""}, places)


@pytest.mark.usefixtures("kernels")
def test_unfinished_work_fails_kindly(places: Places) -> None:
    """Unwritten, empty, broken and unanswered cells each end in a sentence of their own, without a long traceback."""
    made = build.submission(
        NAME, {"masked_softmax": "", "attend_one": "def attend_one(query, keys, values)\n    pass"}, places
    )
    NotebookClient(made, allow_errors=True, timeout=120).execute()
    errors = {c.id: c.outputs[0] for c in made.cells if c.cell_type == "code" and c.outputs and "ename" in c.outputs[0]}
    told = {id: (error.ename, "\n".join(error.traceback)) for id, error in errors.items()}
    assert all(len(text.splitlines()) <= 8 for _, text in told.values()), told
    assert told.pop("check_attention_scores") == ("NotThereYet", f"✗ attention_scores: 0 of 3 points\n  {UNWRITTEN}")
    assert told.pop("check_why") == ("NotThereYet", "✗ why: not answered yet: write the letter of your choice")
    assert "expected ':'" in told.pop("attend_one")[1]
    assert {id: ename for id, (ename, _) in told.items()} == {
        "check_masked_softmax": "NameError",  # nothing was defined under that name
        "check_attend_one": "NameError",
    }
    assert made.cells[-1].outputs[0].text == "the end\n"


@pytest.mark.usefixtures("kernels")
def test_nbgrader_validates_the_solved_notebook(places: Places, tmp_path: Path) -> None:
    """With every answer in it, the learner's notebook passes `nbgrader validate`."""
    path = tmp_path / f"{NAME}.ipynb"
    write_whole(path, build.to_bytes(build.submission(NAME, build.answers(NAME, places), places)))
    validator = Validator()
    validator.stream = io.StringIO()
    validator.validate_and_print(str(path))
    assert "Success! Your notebook passes all the tests." in validator.stream.getvalue()


@pytest.mark.parametrize("name", [NAME, *LESSONS])
def test_every_lesson_is_whole(places: Places, name: str, capsys: pytest.CaptureFixture) -> None:
    """A release is valid to nbgrader and leaks nothing, and the solutions get every point with what `setup` imports."""
    here = places if name == NAME else build.HERE
    made = build.submission(name, {}, here)
    MetadataValidator().validate_nb(made)
    assert leaks(build.source(name, here), made) == []
    namespace: dict[str, object] = {}
    for c in build.solved(name, here).cells:
        meta = c.metadata.get("nbgrader", {})
        if "setup" in c.metadata.get("tags", []) or meta.get("solution"):
            exec(compile(c.source, f"<{name}, {c.id}>", "exec"), namespace)
        elif meta.get("grade"):
            exercise = find(c.metadata.tinytrans.exercise)
            assert check(exercise.id, namespace[exercise.name]) == meta.points == exercise.points, (
                capsys.readouterr().out
            )
