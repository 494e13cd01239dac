"""Every check: each wrong answer rejected and named, each right one accepted, the oracle equal to the reference."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from graders.check import NotThereYet, check, spoken
from graders.draw import Draw
from graders.exercise import Exercise, concepts, exercise, find, question, refusal, requires, table
from graders.judge import fault, judge, observe, same, try_all
from graders.mutants import NAMED_SHARE, main, prove, proven
from graders.subject import Here

EXERCISES = [exercise for concept in concepts() for exercise in table(concept).values()]
FUNCTIONS = [exercise for exercise in EXERCISES if exercise.question is None]
QUESTIONS = [exercise for exercise in EXERCISES if exercise.question is not None]


def ids(exercises: list[Exercise]) -> dict:
    return {"argvalues": exercises, "ids": [exercise.id for exercise in exercises]}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors of a few numbers: threads that wait for each other cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def unwritten(*_inputs: object) -> None:
    raise NotImplementedError()


@pytest.mark.parametrize("exercise", **ids(EXERCISES))
def test_table_is_proven(exercise: Exercise) -> None:
    """Every wrong answer is rejected, none goes by another's name, and every other right answer is accepted."""
    proof = prove(exercise)
    assert (proof.survivors, proof.confused, proof.refused) == ((), (), ())
    assert proof.named >= NAMED_SHARE * proof.wrong


@pytest.mark.parametrize("exercise", **ids(FUNCTIONS))
def test_rejection_is_no_luck(exercise: Exercise) -> None:
    """The learner's own seeds reject every wrong answer, and so does a single other one."""
    for seeds in ((1, 2), (31,)):
        accepted = [
            wrong.name
            for wrong in exercise.wrong
            if all(fault(exercise, trial) is None for trial in try_all(exercise, Here(wrong.function), seeds))
        ]
        assert accepted == []


@pytest.mark.parametrize("exercise", **ids(FUNCTIONS))
def test_oracle_agrees(exercise: Exercise) -> None:
    """An implementation that shares nothing with the reference gives the same values, and gradients, on many inputs."""
    assert exercise.oracle is not None
    for requirement in exercise.requirements:
        for seed in range(100, 112):
            inputs = requirement.inputs(Draw(seed))
            expected, got = (observe(requirement, Here(f), inputs) for f in (exercise.reference, exercise.oracle))
            assert same(expected, got), (requirement.title, seed, expected, got)


@pytest.mark.parametrize("exercise", **ids(FUNCTIONS))
def test_inputs_are_of_the_seed(exercise: Exercise) -> None:
    """The same seed draws the same inputs, so that a learner can try what a graded submission failed on."""
    for requirement in exercise.requirements:
        first, again = (requirement.inputs(Draw(7)) for _ in range(2))
        assert same(first, again)


@pytest.mark.parametrize("exercise", **ids(FUNCTIONS))
def test_table_is_rich(exercise: Exercise) -> None:
    """An exercise has at least two requirements, five wrong answers and two other right ones."""
    assert len(exercise.requirements) >= 2
    assert len(exercise.wrong) >= 5
    assert len(exercise.right) >= 2


@pytest.mark.parametrize("exercise", **ids(EXERCISES))
def test_sentences_are_their_own(exercise: Exercise) -> None:
    """Each mistake has a sentence of its own: whole, and no other's."""
    sentences = [wrong.sentence for wrong in exercise.wrong]
    assert len(set(sentences)) == len(sentences)
    assert all(s[-1] in ".?" and len(s) >= 10 for s in sentences), sentences


@pytest.mark.parametrize("exercise", **ids(FUNCTIONS))
def test_untouched_earns_nothing(exercise: Exercise) -> None:
    """An answer that is not written yet earns nothing and is told so; so does one that returns nothing."""
    outcome = judge(exercise, Here(unwritten), (1, 2))
    assert (outcome.score, outcome.mistake) == (0, None)
    assert "not written yet" in outcome.message
    assert judge(exercise, Here(lambda *_inputs: None), (1, 2)).score == 0


@pytest.mark.parametrize("exercise", **ids(FUNCTIONS))
def test_an_unrelated_error_has_no_name(exercise: Exercise) -> None:
    """An answer that always raises earns nothing, also where refusing is asked, and is no classic mistake."""
    for kind in (TypeError, RuntimeError, NameError, ValueError, AssertionError, IndexError):

        def broken(*_inputs: object, kind: type[Exception] = kind) -> None:
            raise kind("a typing error")

        outcome = judge(exercise, Here(broken), (1, 2))
        assert (outcome.score, outcome.mistake) == (0, None)


def test_what_was_written_to_is_told() -> None:
    """Who changes the mask in place is not told that it was the scores."""
    exercise = table("attention")["masked_softmax"]

    def opened(scores: Tensor, mask: Tensor | None = None) -> Tensor:
        weights = exercise.reference(scores, mask)
        return weights if mask is None else (weights, mask.fill_(True))[0]

    outcome = judge(exercise, Here(opened), (1, 2))
    assert outcome.mistake is None
    assert any("argument 2 was changed in place" in part.message for part in outcome.parts)


def test_an_error_alone_names_no_mistake() -> None:
    """Two answers that end in an error of one kind need not have made one mistake: torch's own words are told."""

    def asked_for_truth(x, w_up, w_down, b_up=None, b_down=None, activation=torch.nn.functional.gelu):
        return activation(x @ w_up + (b_up or 0)) @ w_down + (b_down or 0)

    outcome = judge(find("feedforward.feed_forward"), Here(asked_for_truth), (1, 2))
    assert outcome.mistake is None
    assert "Boolean value of Tensor" in outcome.message


@pytest.mark.parametrize("exercise", **ids(FUNCTIONS))
def test_laws_hold_for_the_reference(exercise: Exercise) -> None:
    """No law is violated by the right answer, and for a wrong answer of any shape a law says something or nothing."""
    for requirement in exercise.requirements:
        if requirement.law is None:
            continue
        inputs = requirement.inputs(Draw(5))
        assert requirement.law(observe(requirement, Here(exercise.reference), inputs), *inputs) is None
    for wrong in exercise.wrong:
        for trial in try_all(exercise, Here(wrong.function), (5,)):
            assert fault(exercise, trial) is None or isinstance(fault(exercise, trial), str)


@pytest.mark.parametrize("exercise", **ids(QUESTIONS))
def test_every_choice_is_explained(exercise: Exercise) -> None:
    """A question's every choice, right or wrong, is answered by its own explanation."""
    asked = exercise.question
    for letter in asked.choices:
        outcome = judge(exercise, Here(lambda letter=letter: letter), (1, 2))
        assert outcome.message == asked.explanations[letter]
        assert outcome.full == (letter == asked.answer)


def test_one_letter_is_not_always_right() -> None:
    """No letter is right in more than half of the questions."""
    answers = Counter(question.question.answer for question in QUESTIONS)
    assert max(answers.values()) <= sum(answers.values()) / 2


def test_law_names_the_place() -> None:
    """A mistake that no table knows is told where it shows, in the words of the subject."""
    softmax = find("attention.masked_softmax")
    outcome = judge(softmax, Here(lambda scores, *_mask: scores.softmax(-1) * 1.7), (1, 2))
    assert outcome.mistake is None
    assert "sums to 1.7: over which axis" in outcome.message
    lopsided = judge(
        find("masks.causal"), Here(lambda T, S=None: find("masks.causal").reference(T, S).roll(1, 1)), (1, 2)
    )
    assert "query 0" in lopsided.message


def test_a_mistake_that_was_not_made_is_not_named() -> None:
    """A wrong answer that would have failed elsewhere, too, gives no name to one that is right there."""
    schedule = find("optim.warmup_cosine")

    def rises_again(step: int, warmup: int, total: int, floor: float = 0.0) -> float:
        return schedule.reference(step, warmup, total, floor) if step <= total else 1.0

    def and_ignores_the_floor(step: int, warmup: int, total: int, floor: float = 0.0) -> float:
        return rises_again(step, warmup, total)

    assert judge(schedule, Here(rises_again), (1, 2)).mistake is None  # a whole cosine is 1 there, and wrong before it
    assert judge(schedule, Here(and_ignores_the_floor), (1, 2)).mistake == "floor ignored"  # two mistakes: the first


def test_partial_credit() -> None:
    """What holds earns its points: a softmax that forgets the empty row and half precision keeps the rest."""
    softmax = find("attention.masked_softmax")
    wrong = next(w for w in softmax.wrong if w.name == "NaN where nothing is visible")
    outcome = judge(softmax, Here(wrong.function), (1, 2))
    assert (outcome.score, outcome.points, outcome.mistake) == (4, 5, wrong.name)


def test_check_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    """`check` prints the report and returns the points; where nothing is earned it raises the report."""
    assert check("masks.causal", find("masks.causal").reference) == 5.0
    assert "✓ causal: 5 of 5 points" in capsys.readouterr().out
    with pytest.raises(NotThereYet, match="turned round"):
        check("masks.causal", lambda T, S=None: ~find("masks.causal").reference(T, S))
    with pytest.raises(NotThereYet, match="not answered yet"):
        check("attention.why_values", None)


def test_main_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m graders.mutants --json` gives one row an exercise, and succeeds."""
    assert main(["--json", "masks"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["exercise"] for row in rows] == [exercise.id for exercise in table("masks").values()]


def test_proof_can_fail() -> None:
    """A check that accepts a wrong answer is not proven, nor one that refuses a right one."""

    def made(wrong: object, right: object) -> Exercise:
        return exercise(
            "double",
            reference=lambda n: 2 * n,
            requirements=[requires("doubles", 1, lambda draw: (draw.integer(1, 9),))],
            wrong={"a mistake": (wrong, "A sentence.")},
            right={"a variant": right},
        )

    assert proven([prove(made(lambda n: n, lambda n: n + n))])
    assert not proven([prove(made(lambda n: n + n, lambda n: n + n))])
    assert not proven([prove(made(lambda n: n, lambda n: 3 * n))])


def test_question_is_checked_at_birth() -> None:
    """A question without an explanation for a choice, or whose answer is no choice, is refused."""
    with pytest.raises(ValueError, match="differ"):
        question("q", "?", choices={"a": "x", "b": "y"}, explanations={"a": "."}, answer="a")
    with pytest.raises(ValueError, match="not among"):
        question("q", "?", choices={"a": "x"}, explanations={"a": "."}, answer="b")


def test_refusing_counts_beside_an_answer() -> None:
    """Who refuses what makes no sense has the point for it, unless nothing that makes sense is answered right."""
    filters = find("filters.top_k")
    assert judge(filters, Here(filters.reference), (1, 2)).full

    def all_refused(*_inputs: object) -> None:
        raise ValueError("no")

    parts = {part.title: part for part in judge(filters, Here(all_refused), (1, 2)).parts}
    assert parts["a k of 0 is refused"].earned == 0
    assert "once something that makes sense" in parts["a k of 0 is refused"].message
    accepted = judge(filters, Here(lambda x, k: x if k < 1 else filters.reference(x, k)), (1, 2))
    assert (accepted.score, accepted.points - accepted.score) == (6, 1)
    with pytest.raises(ValueError, match="refusals alone"):
        exercise(
            "never",
            reference=all_refused,
            requirements=[requires("refused", 1, lambda _draw: (), run=refusal)],
            wrong={},
            right={},
        )


def test_explanations_are_spoken_without_markup() -> None:
    """What a notebook prints has neither dollars nor LaTeX nor stars, and code with stars stays as it is."""
    assert (
        spoken(r"*Not* $4d^2$, but $h$ blocks of $d \times d/h$ over $\sqrt{K}$")
        == "Not 4d², but h blocks of d × d/h over √K"
    )
    assert spoken("a * b * c, (*a, *b), f(*x), `x * y`, 2 * 3") == "a * b * c, (*a, *b), f(*x), `x * y`, 2 * 3"
    for asked in QUESTIONS:
        assert asked.question is not None
        said = " ".join(spoken(text) for text in asked.question.explanations.values())
        assert not {"$", "\\"} & set(said)


def message(exercise: Exercise, answer: object) -> str:
    """What the first requirement that an answer fails tells its author."""
    return next(part.message for part in judge(exercise, Here(answer), (1, 2)).parts if part.message)  # type: ignore[arg-type]


def test_a_lost_gradient_is_told_by_its_name() -> None:
    """Where the value is right and a gradient is not, the sentence names the input."""
    step = find("recurrent.rnn_step")
    lost = message(step, lambda x, h, w_x, w_h, b: step.reference(x, h, w_x.detach(), w_h, b))
    assert "the value is right, but no gradient reaches `w_x`" in lost
    halved = message(step, lambda x, h, w_x, w_h, b: step.reference(0.5 * x + 0.5 * x.detach(), h, w_x, w_h, b))
    assert "the value is right, but not the gradient of `x`: at [0, 0]: expected" in halved
    assert message(step, lambda x, *rest: [step.reference(x, *rest)]).startswith("expected a tensor")
    loop = find("recurrent.unroll")
    cell = message(loop, lambda xs, h, n, a, *rest: loop.reference(xs, h, n, a.detach(), *rest))
    assert "no gradient reaches `cell[0]`" in cell


@pytest.mark.parametrize("id", ["recurrent.attentive_step", "norms.layer_norm", "heads.multi_head_attention"])
def test_precision_goes_out_as_it_came(id: str) -> None:
    """An answer that always computes in one precision is refused, in whichever."""
    asked = find(id)

    def cast(value: object, dtype: torch.dtype) -> object:
        if isinstance(value, torch.Tensor):
            return value.to(dtype) if value.is_floating_point() else value
        return tuple(cast(item, dtype) for item in value) if isinstance(value, list | tuple) else value

    def always(dtype: torch.dtype):
        return lambda *inputs: asked.reference(*cast(inputs, dtype))  # type: ignore[misc]

    assert "the value is right, but not its precision: double in, single out" in message(asked, always(torch.float32))
    assert "single in, double out" in message(asked, always(torch.float64))
    assert judge(asked, Here(lambda *inputs: asked.reference(*inputs)), (1, 2)).full


def test_a_gradient_that_none_is_to_have_is_told() -> None:
    """Where a gradient flows into what is a fact, the sentence says so and does not look for a `return`."""
    gae = find("ppo.gae")
    parts = judge(
        gae, Here(lambda r, v, m, g=1.0, lam=0.95: [x + 0 * r for x in gae.reference(r, v, m, g, lam)]), (1, 2)
    )
    assert "a gradient reaches `rewards`, and none is to" in next(p.message for p in parts.parts if p.message)
