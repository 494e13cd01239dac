"""Mutations: the rules make the slips they should, and no check lets one through that is not explained."""

from __future__ import annotations

import pytest
import torch

from graders import survivors
from graders.exercise import Exercise, concepts, exercise, requires, table
from graders.mutate import mutations
from graders.survivors import main, survey, survives

FUNCTIONS = [e for concept in concepts() for e in table(concept).values() if e.question is None]
SOURCE = '''
def scaled(x: Tensor, *, dim: int = -1) -> Tensor:
    """x by its largest number."""
    if x.dim() == 0:
        return x
    return x / x.detach().abs().amax(dim, True)
'''


def scaled(x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
    """x, scaled."""
    return x * scale + 0


def careless(points: int = 1, **more: object) -> Exercise:
    """An exercise whose check tries the default scale only on zeros."""
    zeros = requires("scales", points, lambda _draw: (torch.zeros(3),))
    return exercise("scaled", reference=scaled, requirements=[zeros], wrong={}, right={}, **more)


def test_the_rules_make_a_learners_slips() -> None:
    """An axis, a sign, a term, step, argument or branch left out, two arguments exchanged: each is among them."""
    made = {mutation.label for mutation in mutations(SOURCE)}
    assert {
        "dim=-1): -> dim=1):",
        "dim=-1): -> dim=-0):",
        "== -> !=",
        "x.dim() == 0: -> False:",
        "/ -> *",
        "x / x.detach().abs().amax(dim, True) -> x",
        "x.detach().abs().amax(dim, -> x.abs().amax(dim,",
        "x.detach().abs().amax(dim, -> x.detach().amax(dim,",
        "x.detach().abs().amax(dim, True) -> x.detach().abs().amax(True, dim)",
        "x.detach().abs().amax(dim, True) -> x.detach().abs().amax(dim)",
    } <= made


def test_a_mutation_is_made_once_and_is_no_copy() -> None:
    """No two mutations have the same text, and none that of the original."""
    texts = [mutation.source for mutation in mutations(SOURCE)]
    assert len(set(texts)) == len(texts)
    assert all("def scaled" in text for text in texts)
    assert not any(mutation.was == mutation.now for mutation in mutations(SOURCE))


def test_a_careless_check_is_told_on() -> None:
    """A check that looks at zeros alone lets another scale through, and says so; a reason in the table settles it."""
    found = survey(careless())
    assert "scale=2.0): -> scale=3.0):" in found.survivors
    settled = survey(careless(equivalent=dict.fromkeys(found.survivors, "only zeros count here")))
    assert settled.survivors == settled.outdated == ()


def test_a_reason_that_is_not_needed_any_more_is_told() -> None:
    """What the table calls equivalent and the check rejects is reported."""
    assert survey(careless(equivalent={"+ 0 -> + 1": "once it was"})).outdated == ("+ 0 -> + 1",)


def test_a_mutation_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop without end is a rejected answer, not a hanging survey."""
    endless = "def scaled(x, scale=2.0):\n    while True:\n        pass"
    monkeypatch.setattr(survivors, "SECONDS", 0.1)
    assert not survives(careless(), endless)


@pytest.mark.parametrize("one", FUNCTIONS, ids=[e.id for e in FUNCTIONS])
def test_no_mutation_passes_unexplained(one: Exercise) -> None:
    """Of every reference's mutations one in three: rejected, or equivalent for a reason that the table gives."""
    assert survey(one, one_in=3).survivors == ()


def test_the_command_counts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's last line adds up, and the exit status says whether anything is left to explain."""
    monkeypatch.setattr(survivors, "concepts", lambda: ["any"])
    monkeypatch.setattr(survivors, "table", lambda _: {"scaled": careless()})
    assert main([]) == 1
    last = capsys.readouterr().out.strip().split("\n")[-1]
    assert "mutations rejected" in last
    assert not last.endswith(" 0 gaps")
