"""Laws of the one loop: gradients weigh by tokens, evaluation leaves no trace, a run can stop and go on anywhere."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tinytrans.config import PRESETS, GPTConfig
from tinytrans.models.gpt import GPT
from tinytrans.training.checkpoint import CheckpointError, load
from tinytrans.training.feed import draw, to_device
from tinytrans.training.journal import History, append_record, read_records
from tinytrans.training.loop import evaluating, fit, gradient, pooled
from tinytrans.training.optim import adamw, muon, wsd
from tinytrans.training.pretrain import language_model_loss

Batch = tuple[Tensor, Tensor]
quiet_fit = partial(fit, progress=False)


def build(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 6), nn.Dropout(dropout), nn.Linear(6, 7))


def batch(number: int, length: int = 4) -> Batch:
    ids = torch.randint(7, (3, length), generator=torch.Generator().manual_seed(number))
    return ids, (ids + 1) % 7


def total(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    ids, targets = batch
    lost = nn.functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    return lost, (targets != -100).sum()


def mean(model: nn.Module, batch: Batch) -> Tensor:
    lost, count = total(model, batch)
    return lost / count


def run(steps: int, model: nn.Module | None = None, **options: object) -> tuple[nn.Module, History]:
    model = build(dropout=0.2) if model is None else model
    options = {"optimizer": adamw(model, 0.01), "batches": batch, "loss": total} | options
    return model, quiet_fit(model, steps=steps, **options)  # type: ignore[arg-type]


def weights(model: nn.Module) -> list[list[float]]:
    return [weight.flatten().tolist() for weight in model.parameters()]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("preset", ["tales", "nano-shakespeare"])
def test_no_step_waits_for_the_device(optimizer: str, preset: str) -> None:
    """Between two looks at the losses nothing asks the device for a number: without numbers, on "meta", it goes too."""
    config = PRESETS[preset]
    assert isinstance(config, GPTConfig)
    with torch.device("meta"):
        model = GPT(config)
        ids = torch.zeros(2, 9, dtype=torch.int64)
    stepper = adamw(model, 0.1) if optimizer == "adamw" else muon(model, 0.1, 0.1)
    for step in range(3):
        loss, count = gradient(model, [(ids[:, :-1], ids[:, 1:])] * 2, language_model_loss, check=step == 0)
        nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
        stepper.step()
    with pytest.raises(RuntimeError, match="meta"):
        History().read([(loss, count)])  # the look itself


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_fit_on_a_gpu(fused: bool) -> None:
    """On a GPU `fit` learns in bfloat16 what it learns on a CPU, and only every tenth step waits for it."""
    losses = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = GPT(GPTConfig(vocab_size=7, n_layers=2, d_model=32, n_heads=2, qk_norm=True)).to(device)
        history = quiet_fit(
            model, batch, language_model_loss, steps=40, optimizer=muon(model, 0.02, 0.01), compile=fused
        )
        losses.append(history.losses[-1])
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    stepper, (ids, targets) = adamw(model, 0.01), (part.cuda() for part in batch(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            gradient(model, [(ids, targets)], language_model_loss)
            nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
            stepper.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_loop_is_the_plain_loop() -> None:
    """Twenty steps of `fit`, clipped and scheduled, give the losses and weights of the lines that everybody writes."""
    ours, history = run(20, build(), schedule=partial(wsd, warmup=3, total=20, decay=9), clip=0.5)
    plain = build()
    optimizer = adamw(plain, 0.01)
    losses = []
    for step in range(20):
        optimizer.zero_grad()
        loss = mean(plain, batch(step))
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * wsd(step, warmup=3, total=20, decay=9)
        optimizer.step()
        losses.append(loss.item())
    assert history.losses == pytest.approx(losses, rel=1e-5)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))), reason="torch.compile needs a C++ compiler"
)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_compiled_is_the_same_run(tmp_path: Path) -> None:
    """Compiled, a run of uneven lengths has the losses and names of the plain one, and resumes to the bit."""
    options: dict[str, object] = {"batches": lambda number: batch(number, length=3 + number % 3), "compile": True}
    _, plain = run(6, build(), **options | {"compile": False})
    model, history = run(6, build(), **options)
    assert history.losses == pytest.approx(plain.losses, rel=1e-5)
    run(4, build(), checkpoint=tmp_path / "c", **options)
    assert load(tmp_path / "c")["model"].keys() == build().state_dict().keys()
    torch.compiler.reset()  # as in a new process
    again, resumed = run(6, build(seed=1), checkpoint=tmp_path / "c", resume=True, **options)
    assert resumed.losses == history.losses
    assert weights(again) == weights(model)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_compiled_is_only_the_run() -> None:
    """A model is compiled while it trains, called through what was compiled, and afterwards as it was before."""
    model = build()
    seen: list[bool] = []
    model[1].register_forward_hook(lambda *_: seen.append(torch.compiler.is_compiling()))
    run(2, model, compile=True)
    assert all(seen)
    seen.clear()
    model(batch(0)[0])
    assert seen == [False]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_accumulation_weighs_by_tokens(order: tuple[int, ...]) -> None:
    """The gradient over batches of 3, 9 and 0 tokens is that of one batch of 12, whichever of them comes first."""
    model = build()
    ids, targets = batch(0, length=12)
    empty = (ids[:, :2], torch.full((3, 2), -100))
    parts = [(ids[:, :1], targets[:, :1]), (ids[:, 1:4], targets[:, 1:4]), empty]
    loss, count = gradient(model, [parts[i] for i in order], total)
    whole = mean(model, (ids[:, :4], targets[:, :4]))
    assert (loss.item(), count.item()) == (pytest.approx(whole.item()), 12)
    for weight, expected in zip(model.parameters(), torch.autograd.grad(whole, list(model.parameters())), strict=True):
        torch.testing.assert_close(weight.grad, expected)
    unweighed = (mean(model, parts[0]) + mean(model, parts[1])) / 2
    assert abs(unweighed.item() - whole.item()) > 1e-3


def test_accumulating_is_a_larger_batch() -> None:
    """Five steps of three batches, taken in order, equal five steps of one batch that holds the three."""
    drawn: list[int] = []

    def noted(number: int) -> Batch:
        drawn.append(number)
        return batch(number)

    many, _ = run(5, build(), batches=noted, accumulate=3)
    assert drawn == list(range(15))

    def joined(number: int) -> Batch:
        inputs, targets = zip(*(batch(3 * number + i) for i in range(3)), strict=True)
        return torch.cat(inputs), torch.cat(targets)

    one, _ = run(5, build(), batches=joined)
    for a, b in zip(many.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_batch_without_targets_changes_nothing() -> None:
    """Where no position has a target the gradient is 0, not 0 / 0."""
    model = build()
    loss, count = gradient(model, [(torch.zeros(2, 3, dtype=torch.long), torch.full((2, 3), -100))], total)
    assert (loss.item(), count.item()) == (0, 1)
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


def test_a_mean_loss_will_do() -> None:
    """A loss that gives a scalar trains as well and counts one a batch."""
    _, history = run(6, build(), loss=mean)
    _, counted = run(6, build())
    assert history.losses == pytest.approx(counted.losses, rel=1e-5)
    assert history.tokens == [1] * 6
    assert counted.tokens == [12] * 6


def test_stale_gradients_do_not_count() -> None:
    """What lies in `.grad` before the run does not reach the clipping or the step."""
    stale = build()
    for weight in stale.parameters():
        weight.grad = torch.full_like(weight, 1e6)
    assert weights(run(3, stale)[0]) == weights(run(3, build())[0])


@pytest.mark.parametrize("kind", ["list", "loader"])
def test_a_finite_source_begins_anew(kind: str) -> None:
    """A list or a data loader of three batches serves seven steps, in order."""
    listed = [batch(number) for number in range(3)]
    batches = listed if kind == "list" else torch.utils.data.DataLoader(listed, batch_size=None)  # type: ignore[arg-type]
    assert weights(run(7, build(), batches=batches)[0]) == weights(
        run(7, build(), batches=lambda number: batch(number % 3))[0]
    )


def test_a_numbered_stream_is_asked_for_what_is_needed() -> None:
    """From batch 5 on, a function, a list and an endless sequence are asked for 5, 6, 7 and nothing before."""
    asked: list[int] = []

    class Endless:
        def __getitem__(self, number: int) -> int:
            asked.append(number)
            return number * number

    assert [next(stream) for stream in [draw(Endless(), 5)] for _ in range(3)] == [25, 36, 49]
    assert [next(stream) for stream in [draw(Endless().__getitem__, 5)] for _ in range(3)] == [25, 36, 49]
    assert asked == [5, 6, 7] * 2
    assert [next(stream) for stream in [draw("abc", 5)] for _ in range(3)] == ["c", "a", "b"]
    with pytest.raises(ValueError, match="there are no batches"):
        next(draw([], 0))


def test_an_iterator_runs_out() -> None:
    """Three batches of a generator do not serve four steps, and the error says how to mend it."""
    with pytest.raises(ValueError, match="the batches ran out after 1 turns: hand in a function"):
        run(4, batches=(batch(number) for number in range(3)))


@pytest.mark.parametrize("batches", ["function", "list", "generator"])
@pytest.mark.parametrize("make", [partial(adamw, lr=0.01), partial(muon, lr=0.02, adamw_lr=0.01)])
def test_a_resumed_run_is_the_whole_run(batches: str, make: Callable, tmp_path: Path) -> None:
    """Stopped at step 7 of 12 and resumed in new objects, a run has an undisturbed one's losses and weights."""

    def source() -> object:
        endless: Iterator[Batch] = (batch(number) for number in itertools.count())
        return {"function": batch, "list": [batch(number) for number in range(5)], "generator": endless}[batches]

    options = {"accumulate": 2, "every": 5, "schedule": partial(wsd, warmup=3, total=12, decay=6), "batches": source()}
    whole = build(dropout=0.5)
    expected = quiet_fit(whole, loss=total, steps=12, optimizer=make(whole), **options)
    first = build(dropout=0.5)
    quiet_fit(
        first,
        loss=total,
        steps=7,
        optimizer=make(first),
        checkpoint=tmp_path / "c",
        log=tmp_path / "log",
        **(options | {"batches": source()}),
    )
    second = build(seed=9, dropout=0.5)
    optimizer = make(second)
    history = quiet_fit(
        second, loss=total, steps=12, optimizer=optimizer, checkpoint=tmp_path / "c", log=tmp_path / "log", resume=True,
        **(options | {"batches": source()}),
    )  # fmt: skip
    assert history.losses == expected.losses
    assert history.tokens == expected.tokens
    assert weights(second) == weights(whole)
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in make(whole).param_groups]
    assert history.column("step") == [5, 7, 10, 12] == [record["step"] for record in read_records(tmp_path / "log")]


def test_a_resume_at_the_end_does_nothing(tmp_path: Path) -> None:
    """A finished run that is resumed draws no batch and leaves the weights as they were saved."""
    model, history = run(4, checkpoint=tmp_path / "c")
    again, same = run(4, build(seed=3), checkpoint=tmp_path / "c", resume=True, batches=[])
    assert (weights(again), same.losses) == (weights(model), history.losses)


def test_a_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    """A checkpoint that stands there without `resume` is an error, and stays; another model's checkpoint too."""
    run(2, checkpoint=tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(FileExistsError, match="resume=True goes on with it"):
        run(2, checkpoint=tmp_path / "c")
    with pytest.raises(CheckpointError, match="of another model"):
        run(2, nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7)), checkpoint=tmp_path / "c", resume=True)
    assert (tmp_path / "c").read_bytes() == before


def test_a_checkpoint_is_no_folder(tmp_path: Path) -> None:
    """A folder in the place of a checkpoint is told as such: it is no run that could go on."""
    for resume in (False, True):
        with pytest.raises(IsADirectoryError, match="is a folder, and a checkpoint is a file"):
            run(2, checkpoint=tmp_path, resume=resume)


def test_a_generator_is_resumed(tmp_path: Path) -> None:
    """A loss that draws from a generator draws on after a resume."""

    def noisy(generator: torch.Generator, model: nn.Module, batch: Batch) -> Tensor:
        return mean(model, batch) * torch.rand((), generator=generator)

    def go(steps: int, **options: object) -> list[float]:
        generator = torch.Generator().manual_seed(4)
        return run(steps, build(), loss=partial(noisy, generator), generator=generator, **options)[1].losses

    expected = go(6)
    go(3, checkpoint=tmp_path / "c")
    assert go(6, checkpoint=tmp_path / "c", resume=True) == expected
    assert len(set(expected)) == 6


def test_ctrl_c_stops_between_two_steps(tmp_path: Path) -> None:
    """SIGINT lets the step end, saves, says so, and puts back rate and handler; resumed, nothing is different."""

    def interrupted(number: int) -> Batch:
        if number == 4:
            signal.raise_signal(signal.SIGINT)
        return batch(number)

    before = signal.getsignal(signal.SIGINT)
    model = build(dropout=0.2)
    optimizer = adamw(model, 0.01)
    _, history = run(
        9, model, optimizer=optimizer, batches=interrupted, checkpoint=tmp_path / "c", schedule=lambda _: 0.5
    )
    assert (history.steps, history.interrupted, history.column("step")) == (5, True, [5])
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert signal.getsignal(signal.SIGINT) is before
    _, rest = run(9, checkpoint=tmp_path / "c", resume=True, schedule=lambda _: 0.5)
    assert rest.losses == run(9, schedule=lambda _: 0.5)[1].losses
    assert not rest.interrupted


def test_ctrl_c_twice_breaks_in() -> None:
    """A second SIGINT within the step is a KeyboardInterrupt, as everywhere."""

    def impatient(_number: int) -> Batch:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return batch(0)

    with pytest.raises(KeyboardInterrupt):
        run(3, batches=impatient)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named(value: float, tmp_path: Path) -> None:
    """The error names the value, its step and the last finite loss; the last checkpoint stays, the rate is put back."""

    def breaks(model: nn.Module, batch: Batch) -> Tensor:
        loss = mean(model, batch)
        breaks.calls += 1  # type: ignore[attr-defined]
        return loss * value if breaks.calls > 7 else loss  # type: ignore[attr-defined]

    breaks.calls = 0  # type: ignore[attr-defined]
    model = build()
    optimizer = adamw(model, 0.01)
    expected = run(7, build(), schedule=lambda _: 0.5)[1].losses[-1]
    with pytest.raises(
        FloatingPointError, match=f"the loss is {value} at step 7; the last finite one was {expected:.4g}"
    ):
        run(20, model, optimizer=optimizer, loss=breaks, every=5, checkpoint=tmp_path / "c", schedule=lambda _: 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert run(5, build(seed=8), checkpoint=tmp_path / "c", resume=True)[1].steps == 5


def test_evaluation_leaves_no_trace() -> None:
    """`evaluate` sees eval mode and no gradients; then every module is in its mode, and the run goes as without."""
    model = build(dropout=0.5)
    modes: list[tuple[bool, bool]] = []

    def look(model: nn.Module) -> dict[str, float]:
        modes.append((model[2].training, torch.is_grad_enabled()))  # type: ignore[index]
        return {"score": 0.5}

    _, history = run(6, model, evaluate=look, every=4)
    assert modes == [(False, False)] * 2
    assert history.column("score") == [0.5, 0.5]
    assert model[2].training
    assert history.losses == run(6, build(dropout=0.5))[1].losses
    model[1].eval()
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert [module.training for module in model] == [True, False, True, True]


def test_a_record_tells_the_mean_since_the_last() -> None:
    """Records stand at every fourth step and at the end, each loss the mean over the tokens since the record before."""
    _, history = run(
        10,
        build(),
        batches=lambda number: batch(number, length=1 + number % 3),
        every=4,
        schedule=lambda step: 1 / (1 + step),
    )
    assert history.column("step") == [4, 8, 10]
    for (begin, end), loss in zip([(0, 4), (4, 8), (8, 10)], history.column("loss"), strict=True):
        lost = sum(a * b for a, b in zip(history.losses[begin:end], history.tokens[begin:end], strict=True))
        assert loss == pytest.approx(lost / sum(history.tokens[begin:end]))
    assert history.column("tokens")[-1] == sum(history.tokens) == 3 * (1 + 2 + 3) * 3 + 3
    assert history.column("lr") == pytest.approx([0.01 / 4, 0.01 / 8, 0.01 / 10])
    assert history.column("seconds") == sorted(history.column("seconds"))


def test_what_an_evaluation_finds_is_numbers(tmp_path: Path) -> None:
    """A tensor of one number will do as well as a number: record, log and checkpoint hold floats."""
    options = {"evaluate": lambda _: {"right": torch.tensor(0.5), "texts": 3}, "log": tmp_path / "log.jsonl"}
    _, history = run(2, checkpoint=tmp_path / "c", **options)
    assert [history.column(name) for name in ("right", "texts")] == [[0.5], [3.0]]
    assert read_records(tmp_path / "log.jsonl") == history.records == load(tmp_path / "c")["history"]["records"]


def test_a_log_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    """Not after the first steps, which would be lost."""
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path, tmp_path / "file" / "log.jsonl"):
        with pytest.raises(OSError, match=str(tmp_path)):
            run(2, batches=lambda _: pytest.fail("a step"), log=path)


def test_a_torn_log_line_costs_only_itself(tmp_path: Path) -> None:
    """After a torn line the next record has its own line, and a step gone through again counts the last time."""
    log = tmp_path / "deep" / "log.jsonl"
    for step in (1, 2, 3):
        append_record(log, {"step": step, "loss": 1.0})
    log.write_bytes(log.read_bytes()[:-8])
    append_record(log, {"step": 2, "loss": 5.0})
    append_record(log, {"step": 3, "loss": 4.0})
    whole = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 5.0}, {"step": 3, "loss": 4.0}]
    assert read_records(log) == whole
    assert json.loads(log.read_text().splitlines()[-1]) == {"step": 3, "loss": 4.0}
    log.write_bytes(log.read_bytes() + b"\x00\xff\n5\n{}\n")  # what a power cut may leave is no record
    assert read_records(log) == whole


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    """Training on a GPU where there is none raises ValueError, which says so."""
    model = nn.Linear(2, 1)
    options = {"steps": 1, "optimizer": adamw(model, 0.1), "device": "cuda", "progress": False}
    with pytest.raises(ValueError, match="cuda was asked for, and CUDA finds 0 GPUs"):
        fit(model, [torch.ones(3, 2)], lambda model, x: model(x).mean(), **options)


def test_a_batch_keeps_its_form_on_the_way_to_the_device() -> None:
    """Tuples, named ones too, lists and dicts keep their kind, tensors move, and what is no tensor stays."""

    class Pair(NamedTuple):
        ids: Tensor
        name: str

    moved = to_device({"a": Pair(torch.ones(2), "x"), "b": [torch.ones(1), (torch.ones(3), 4)]}, torch.device("meta"))
    assert isinstance(moved["a"], Pair)
    assert (moved["a"].name, moved["b"][1][1], type(moved["b"][1])) == ("x", 4, tuple)
    assert {moved["a"].ids.device.type, moved["b"][0].device.type, moved["b"][1][0].device.type} == {"meta"}


def test_the_bar_shows_loss_speed_and_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """With progress the bar tells loss, tokens a second and learning rate; without, nothing is printed."""
    model = build()
    history = fit(model, batch, total, steps=20, optimizer=adamw(model, 0.01))
    shown = capsys.readouterr().err
    assert all(word in shown for word in ("20/20", f"loss {history.mean(10):.3f}", "tokens/s", "lr 0.01"))
    run(20)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("wrong", [{"accumulate": 0}, {"every": 0}])
def test_counts_begin_at_one(wrong: dict[str, int]) -> None:
    """Accumulating no batch and recording every 0 steps are refused."""
    with pytest.raises(ValueError, match="count from 1, not"):
        run(2, **wrong)


def test_no_run_is_shorter_than_none() -> None:
    """A run of no steps is fine; one of fewer is refused."""
    assert run(0)[1].losses == []
    with pytest.raises(ValueError, match="steps -1 counts from 0"):
        run(-1)


def test_pooled_means_are_the_mean_of_all() -> None:
    """Means over 1, 3 and 0 numbers, weighed by their counts, are the mean over all four; without any it is 0."""
    parts = [torch.randn(1, 2), torch.randn(3, 2)]
    means = torch.stack([part.mean(0) for part in parts] + [torch.zeros(2)])
    torch.testing.assert_close(pooled(means, torch.tensor([1, 3, 0])), torch.cat(parts).mean(0))
    assert not pooled(torch.zeros(2, 2), torch.tensor([0, 0])).any()


def test_an_accumulated_gradient_is_pooled() -> None:
    """The gradient over several batches is that of each batch's mean loss, pooled by their targets."""
    model, parts = (
        build(),
        [(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long)) for _ in range(2)],
    )
    parts[1][1][0] = -100  # three targets fewer
    grads = []
    for part in parts:
        gradient(model, [part], total)
        grads.append(model[1].weight.grad.clone())
    gradient(model, parts, total)
    torch.testing.assert_close(model[1].weight.grad, pooled(torch.stack(grads), torch.tensor([6, 3])))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0.0}, "clip 0.0 is not positive"),
        ({"clip": float("nan")}, "clip nan"),
        ({"accumulate": 0}, "not 0 and"),
        ({"batches": []}, "there are no batches"),
        ({"loss": lambda model, batch: model(batch[0])}, r"the loss has shape \(3, 4, 7\), not a tensor of shape \(\)"),
        ({"loss": lambda *_: 1.0}, "the loss is a float, not a tensor"),
        ({"loss": lambda *_: None}, "the loss is a NoneType, not a tensor"),
        ({"loss": lambda *_: torch.ones(())}, "the loss depends on no trainable parameter of this"),
        ({"optimizer": adamw(build(), 0.1)}, "moves 5 tensors, none of which is a parameter of this Sequential"),
    ],
)
def test_what_cannot_train_is_refused(options: dict[str, object], message: str) -> None:
    """Numbers, losses and optimisers that would teach nothing raise ValueError and name what is wrong."""
    with pytest.raises(ValueError, match=message):
        run(2, build(), **options)
