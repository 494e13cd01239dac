"""nbgrader's configuration for this course: its folders, the exporter that rebuilds, the preprocessor that judges.

nbgrader finds this file when JUPYTER_CONFIG_PATH names its folder: `graders nbgrader autograde 04_attention` does that,
and so does `JUPYTER_CONFIG_PATH=graders nbgrader autograde 04_attention` from the course root.
"""

from __future__ import annotations

from typing import Any


def configure(c: Any) -> Any:
    """Set this course's values on a traitlets Config and give it back."""
    c.CourseDirectory.course_id = "tinytrans"
    c.CourseDirectory.source_directory = ".build/source"
    c.CourseDirectory.release_directory = "course"
    c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "*.py"]
    c.Autograde.exporter_class = "graders.bridge.SubmissionExporter"
    c.Autograde.autograde_preprocessors = [
        "graders.bridge.JudgeCells",  # stock: Execute
        "nbgrader.preprocessors.SaveAutoGrades",
        "nbgrader.preprocessors.AssignLatePenalties",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    c.GenerateFeedback.exporter_class = "graders.pages.FeedbackExporter"
    c.GenerateFeedback.preprocessors = [
        "graders.pages.Grades",  # stock: GetGrades
        "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
    ]
    return c


if "get_config" in globals():  # nbgrader executes this file and hands in `get_config`
    configure(get_config())  # type: ignore[name-defined]  # noqa: F821
