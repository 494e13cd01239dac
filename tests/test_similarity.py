"""Answers that are alike are found, whatever names they carry; what everybody writes is no evidence."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tiny_course import NAME, STUBS

from graders.release import load
from graders.similarity import alike, fingerprints, handed_out, plain
from graders.summary import for_review, shortened

OWN = """def attend(q, k, v, mask=None):
    scores = torch.einsum('...td,...sd->...ts', q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(mask.logical_not(), -math.inf)
    top = scores.amax(dim=-1, keepdim=True).clamp(min=-1e30)
    parts = torch.exp(scores - top)
    total = parts.sum(dim=-1, keepdim=True).clamp(min=1e-30)
    return torch.einsum('...ts,...sd->...td', parts / total, v)
"""
COPIED = (
    OWN.replace("scores", "s").replace("total", "z").replace("parts", "w").replace("    top", "    # shift\n\n    top")
)
OTHER = """def attend(q, k, v, mask=None):
    \"\"\"The mix.\"\"\"
    a = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])
    a = torch.where(mask, a, float('-inf')) if mask is not None else a
    e = a.softmax(-1)
    e = torch.nan_to_num(e, nan=0.0)
    return e @ v
"""


def test_names_layout_and_comments_do_not_matter() -> None:
    """A copy with other names, comments and line ends has the same fingerprints; another way to write it has others."""
    assert fingerprints(OWN) == fingerprints(COPIED)
    assert len(fingerprints(OWN) & fingerprints(OTHER)) < 0.2 * len(fingerprints(OTHER))


def test_pairs() -> None:
    """The two that are alike are named, with the exercise, and nobody else."""
    answers = {"ann": OWN, "bob": OTHER, "cy": COPIED}
    pairs = alike({student: {"attend": source} for student, source in answers.items()}, {})
    assert [(pair.students, pair.share, pair.exercises) for pair in pairs] == [(("ann", "cy"), 1.0, ("attend",))]
    assert str(pairs[0]).startswith("ann and cy: 100% alike (")


def test_part_of_an_answer() -> None:
    """A copied passage within other code is found as a part."""
    answers = {"ann": {"f": OWN}, "bob": {"f": OTHER + COPIED.partition("\n")[2]}, "cy": {"f": OTHER}}
    assert {pair.students for pair in alike(answers, {})} == {("ann", "bob"), ("bob", "cy")}


def test_what_anybody_has_is_no_evidence() -> None:
    """What the lesson holds, and what many of the class wrote, makes nobody alike."""
    answers = {student: {"attend": OWN} for student in ("ann", "bob", "cy")}
    assert len(alike(dict(list(answers.items())[:2]), {})) == 1
    assert alike(answers, {}) == []  # the whole class
    assert alike(dict(list(answers.items())[:2]), {"attend": [COPIED]}) == []


def test_a_short_answer_is_no_evidence() -> None:
    """Two equal answers of one line are no pair."""
    assert alike({s: {"f": "def f(x):\n    return x.softmax(-1)"} for s in ("ann", "bob")}, {}) == []


def test_handed_out(tiny: Path) -> None:
    """A lesson hands out its stubs, its setup, and whatever its tables hold as right."""
    base = handed_out(load(tiny / "course" / NAME / f"{NAME}.ipynb"))
    assert list(base) == list(STUBS)
    assert any("return 2 * x" in source for source in base["double"])


@given(st.text(max_size=300) | st.text(alphabet="()[]{}'\"\\\n\t #.vf=0", max_size=300))
def test_any_text(source: str) -> None:
    """Any text has tokens and fingerprints, and is like itself."""
    plain(source)
    assert fingerprints(source) == fingerprints(source)


def test_for_review() -> None:
    """Forbidden functions and pairs are sections of their own, shortened for the screen; without any there is none."""
    verdicts = {f"s{i}": {"exercises": {"f": {"review": ["line 1"]}, "g": {}}} for i in range(10)}
    forbidden, pairs = for_review(verdicts, ["a and b"])
    assert forbidden[1] == "  s0 f: line 1"
    assert shortened(forbidden)[-1] == "  ... and 2 more in review.txt"
    assert pairs[1:] == ["  a and b"]
    assert for_review({}) == []
