"""A lesson (py:percent text) -> nbgrader's source notebook, with every solution, test cell, grade_id and point in it.

# %% [markdown]                        prose; `<!-- pitfalls: attention masks -->` becomes these tables' mistakes, and
#                                      a line `<details><summary>Hint 1</summary>...</details>` a fold of Markdown
# %% [markdown] tags=["instructor"]    notes that no learner gets
# %% tags=["setup"]                    imports; with the solutions above it, all that a learner's function may use
# %% tags=["tools"]                    what only the notebook uses: `check`, the library, plots
# %%                                   any other code, read-only for the learner
# %% tags=["measured"]                 the same; what it prints are the lesson's figures in the table of `make lessons`
# %% exercise="attention.attend"       one line, `# from: tinytrans.nn.attention.attend`: the function asked for
# %% question="attention.why_values"   an empty cell: the question, its choices and its check come from the table
# %% [markdown] written="attention.report" points=4      the task; the answer, in words, is graded by hand. The next
#                                      cell is an instructor's: the rubric, what earns each of the points
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from typing import Any

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from graders.exercise import Exercise, find
from solutions.paste import BEGIN, END, LessonError, defined, paste, unmarked, wanted

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
TAGS = ("setup", "tools", "measured", "instructor")
KEYS = ("exercise", "question", "written", "points", "tags", "title", "cell_marker")  # the last two are jupytext's
WRITE_HERE = "*Replace this line by your answer, in a few sentences. It is read and graded by your instructor.*"
WRITTEN = re.compile(r"\w+\.(\w+)")
FROM = re.compile(r"# from: (\S+)")
FOLD = re.compile(r"^<details>(<summary>.+?</summary>)(.+)</details>$", re.MULTILINE)
OPENED = r"<details>\1\n\n\2\n\n</details>\n"  # without the empty lines all of it is HTML, its backticks too
PITFALLS = re.compile(r"^<!-- pitfalls: (.+?) -->$", re.MULTILINE)


def source(name: str, text: str) -> NotebookNode:
    """A lesson's text -> its source notebook.

    Raises LessonError that names the lesson, the cell and what to do about it.
    """
    lesson = Lesson(name)
    cells = jupytext.reads(text, fmt="py:percent").cells
    lesson.asked = [id for cell in cells for key in ("exercise", "question") if (id := cell.metadata.get(key))]
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        try:
            lesson.add(cell, after)
        except SyntaxError as error:
            raise lesson.error(cell, f"is not Python: {error}") from None
    if "setup" not in lesson.used:
        raise LessonError(f'{name} has no setup cell: write `# %% tags=["setup"]` with the imports that solutions need')
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return new_notebook(cells=lesson.cells, metadata=metadata, nbformat_minor=5)


class Lesson:
    """One lesson while it is read: its cells so far, the ids that are taken, the names that a solution may use."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[str] = []  # the ids of its exercises and questions
        self.cells: list[NotebookNode] = []
        self.used: set[str] = set()
        self.known: set[str] = set()
        self.tools: set[str] = set()

    def add(self, cell: NotebookNode, after: NotebookNode | None = None) -> None:
        """Read one cell of the lesson, which another may follow: what it becomes is decided by its header."""
        meta, tags = cell.metadata, cell.metadata.get("tags", [])
        odd = [k for k in meta if k not in KEYS and not k.startswith("lines_to_")] + [t for t in tags if t not in TAGS]
        if odd:
            known = f"a header has {', '.join(KEYS[:5])}, a tag is one of {', '.join(TAGS)}"
            raise self.error(cell, f"{odd[0]!r} means nothing here: {known}")
        if "instructor" in tags:
            self.put(cell, tags=["instructor"])
        elif "exercise" in meta:
            self.add_exercise(cell)
        elif "question" in meta:
            self.add_question(cell)
        elif "written" in meta:
            self.add_written(cell, after)
        elif cell.cell_type == "markdown":
            text = FOLD.sub(OPENED, cell.source).rstrip("\n")
            cell.source = PITFALLS.sub(lambda found: self.pitfalls(found[1].split(), cell), text)
            self.put(cell)
        elif "setup" in tags:
            self.add_setup(cell)
        elif "tools" in tags:
            self.tools |= defined(cell.source)
            self.put(cell, self.free("tools"), tags=["tools"], locked=True)
        else:
            kept = {"tags": tags} if tags else {}
            self.put(cell, self.free(f"code_{self.digest(cell)[:8]}"), locked=True, **kept)

    def add_setup(self, cell: NotebookNode) -> None:
        """A cell of imports: what the learner's functions may use, here and where they are graded."""
        for node in ast.parse(cell.source).body:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                raise self.error(cell, f"a setup cell has imports only; move `{ast.unparse(node)}` to another cell")
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                if module.split(".")[0] in ("tinytrans", "graders", "solutions"):
                    raise self.error(cell, f"{module} belongs into a tools cell: grading has no such module")
        self.known |= defined(cell.source)
        self.put(cell, self.free("setup"), tags=["setup"], locked=True)

    def add_exercise(self, cell: NotebookNode) -> None:
        """The function that is asked for, pasted from the library, and the cell that checks it."""
        exercise = self.find(cell, cell.metadata["exercise"])
        origin = FROM.fullmatch(cell.source.strip())
        if origin is None:
            raise self.error(cell, "an exercise cell is one line: `# from: tinytrans.package.module.name`")
        try:
            pasted = paste(origin[1])
        except LessonError as error:
            raise self.error(cell, str(error)) from None
        if defined(unmarked(pasted)) != {exercise.name}:
            raise self.error(cell, f"{origin[1]} does not define {exercise.name!r}, the name that is checked")
        if missing := wanted(unmarked(pasted)) - self.known:
            names = ", ".join(sorted(missing))
            raise self.error(
                cell, f"{origin[1]} uses {names}: import it in the setup cell, or ask for it in an exercise above"
            )
        self.known.add(exercise.name)
        self.put(new_code_cell(pasted), exercise.name, solution=True)
        self.put_check(cell, exercise)

    def add_question(self, cell: NotebookNode) -> None:
        """The question with its choices, the cell for the letter, and the cell that checks it."""
        exercise = self.find(cell, cell.metadata["question"])
        if exercise.question is None or cell.source.strip():
            raise self.error(
                cell, "a question cell is empty, and its id is that of a `question(...)` in graders/checks/"
            )
        choices = [f"- **{letter}**: {text}" for letter, text in exercise.question.choices.items()]
        prompt = 'Replace `None` in the next cell by the letter of your choice in quotes, such as `"a"`.'
        text = "\n".join([f"**Question.** {exercise.question.text}", "", *choices, "", prompt])
        self.put(new_markdown_cell(text), f"question_{exercise.name}", locked=True)
        answer = f'{BEGIN}\n{exercise.name} = "{exercise.question.answer}"\n{END}'
        stub = {"stub": f"{exercise.name} = None"}  # what is left of the cell in the release
        self.put(new_code_cell(answer), exercise.name, solution=True, tinytrans=stub)
        self.put_check(cell, exercise)

    def add_written(self, cell: NotebookNode, after: NotebookNode | None) -> None:
        """The task, and the cell for an answer in words, which an instructor grades by the rubric that follows."""
        name, points = WRITTEN.fullmatch(str(cell.metadata["written"])), cell.metadata.get("points")
        if name is None or type(points) is not int or points < 1 or cell.cell_type != "markdown":
            raise self.error(
                cell, 'a written task is `# %% [markdown] written="concept.name" points=4`, points from 1 on'
            )
        if not cell.source.strip():
            raise self.error(cell, "a written task says what to write about")
        if after is None or "instructor" not in after.metadata.get("tags", []) or not after.source.strip():
            rubric = '`# %% [markdown] tags=["instructor"]`, which says what earns each point'
            raise self.error(cell, f"the cell after a written task is its rubric: {rubric}")
        self.put(cell, f"task_{name[1]}", locked=True)
        answer, stub = new_markdown_cell(WRITE_HERE), {"stub": WRITE_HERE}
        self.put(answer, name[1], grade=True, solution=True, points=points, tinytrans=stub)

    def put_check(self, cell: NotebookNode, exercise: Exercise) -> None:
        """The locked cell that checks an answer and carries its points."""
        if "check" not in self.tools:
            raise self.error(cell, "no tools cell above imports `check`: from graders.check import check")
        test = new_code_cell(f'check("{exercise.id}", {exercise.name})')
        about = {"exercise": exercise.id}
        self.put(test, f"check_{exercise.name}", grade=True, locked=True, points=exercise.points, tinytrans=about)

    def put(
        self,
        cell: NotebookNode,
        grade_id: str | None = None,
        *,
        grade: bool = False,
        locked: bool = False,
        solution: bool = False,
        points: int | None = None,
        **metadata: Any,
    ) -> None:
        """Append a cell with a fixed id and, where it has a grade_id, with all that nbgrader wants to know of it."""
        if grade_id is not None:
            flags = {"grade": grade, "locked": locked, "solution": solution, "task": False}
            about = {"cell_type": cell.cell_type, "grade_id": grade_id, "schema_version": 3, **flags}
            metadata["nbgrader"] = about if points is None else {**about, "points": points}
        if (id := grade_id or self.free(self.digest(cell))) in self.used:
            raise self.error(cell, f"{id!r} is here twice: a lesson asks for a name once")
        self.used.add(id)
        new = new_markdown_cell if cell.cell_type == "markdown" else new_code_cell
        self.cells.append(new(cell.source, id=id, metadata=metadata))

    def free(self, id: str) -> str:
        """The id itself, or with a number behind it where it is taken."""
        candidates = (id if n == 1 else f"{id}_{n}" for n in range(1, len(self.used) + 2))
        return next(candidate for candidate in candidates if candidate not in self.used)

    def digest(self, cell: NotebookNode) -> str:
        """Twelve letters that stand for a cell's text in this lesson: the same at every build."""
        return hashlib.sha256(f"{self.name}\n{cell.source}".encode()).hexdigest()[:12]

    def find(self, cell: NotebookNode, id: str) -> Exercise:
        """The exercise of a cell, or an error that lists what there is."""
        try:
            return find(id)
        except KeyError as error:
            raise self.error(cell, error.args[0]) from None

    def pitfalls(self, concepts: Iterable[str], cell: NotebookNode) -> str:
        """The mistakes that these tables know of this lesson's exercises, folded; a question's choices stay out."""
        exercises = [find(id) for id in self.asked if id.partition(".")[0] in concepts]
        wrong = {e.name: e.wrong for e in exercises if e.question is None and e.wrong}
        if not wrong:
            raise self.error(cell, "these tables hold no mistakes of this lesson's exercises")
        count = sum(map(len, wrong.values()))
        lines = ["<details>", f"<summary>Classic mistakes that the checks of this lesson know ({count})</summary>", ""]
        for name, mistakes in wrong.items():
            lines += [f"- `{name}`", *(f"  - *{mistake.name}*: {mistake.sentence}" for mistake in mistakes)]
        return "\n".join([*lines, "", "</details>"])

    def error(self, cell: NotebookNode, what: str) -> LessonError:
        """The sentence, after the lesson and the first line of the cell that it is about."""
        header = " ".join(f'{k}="{v}"' for k, v in cell.metadata.items() if k in KEYS[:3])
        where = header or (cell.source.strip().split("\n")[0] or "an empty cell")
        return LessonError(f"{self.name}, {where}: {what}")
