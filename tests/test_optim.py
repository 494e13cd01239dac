"""Laws of the optimisers and schedules. Oracles: torch's AdamW, the singular values, a loop over single matrices."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tinytrans.training.muon import Muon, orthogonalize
from tinytrans.training.optim import Optimizers, adamw, adamw_step, clip_by_norm, muon, warmup_cosine, wsd

SCHEDULES = {
    "cosine": partial(warmup_cosine, warmup=7, total=50),
    "cosine with a floor": partial(warmup_cosine, warmup=7, total=50, floor=0.1),
    "cosine, no warm-up": partial(warmup_cosine, warmup=0, total=50),
    "wsd": partial(wsd, warmup=7, total=50, decay=20),
    "wsd, no warm-up": partial(wsd, warmup=0, total=50, decay=0),
    "wsd, shorter than its slopes": partial(wsd, warmup=40, total=50, decay=40),
}


class Tiny(nn.Module):
    """A language model's weights: tied embedding and head, fused qkv, lying and standing matrices, norm, biases."""

    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.qkv = nn.Linear(6, 18, bias=False)
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 11, bias=False)
        if tie:
            self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        q, k, v = self.qkv(self.embedding(ids)).chunk(3, -1)
        x = torch.softmax(q @ k.mT, -1) @ v
        return self.head(self.norm(x + self.down(self.up(x).relu())))


def learn(model: nn.Module, optimizer: Optimizers | torch.optim.Optimizer, steps: int) -> float:
    ids = torch.arange(22).view(2, 11) % 11
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(1, 1).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_never_stands_still(name: str) -> None:
    """Every factor lies in (0, 1], the first and the last too; only a run shorter than its slopes misses 1."""
    factors = [SCHEDULES[name](step) for step in range(50)]
    assert all(0 < factor <= 1 for factor in factors)
    assert (max(factors) == 1) == ("shorter" not in name)


def test_the_warm_up_is_as_long_as_it_says() -> None:
    """With a warm-up of 4 the first four factors are 1/4, 2/4, 3/4, 1, for both schedules."""
    for schedule in (partial(warmup_cosine, warmup=4, total=9), partial(wsd, warmup=4, total=9, decay=3)):
        assert [schedule(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("schedule", "named"),
    [
        (partial(wsd, -1, warmup=5, total=10, decay=2), "step -1, warmup 5 and decay 2"),
        (partial(wsd, 0, warmup=-5, total=10, decay=2), "step 0, warmup -5 and decay 2"),
        (partial(wsd, 0, warmup=5, total=10, decay=-2), "step 0, warmup 5 and decay -2"),
    ],
)
def test_no_run_is_shorter_than_nothing(schedule: partial[float], named: str) -> None:
    """A step, a warm-up or a decay below 0 raises ValueError and is named."""
    with pytest.raises(ValueError, match=f"{named} count from 0"):
        schedule()


def test_the_cosine_passes_its_middle_and_ends_at_its_floor() -> None:
    """Half-way down the cosine stands half-way between 1 and the floor; from the total on it stays at the floor."""
    assert warmup_cosine(30, warmup=10, total=50, floor=0.2) == pytest.approx(0.6)
    assert (
        warmup_cosine(50, warmup=10, total=50, floor=0.2)
        == warmup_cosine(90, warmup=10, total=50, floor=0.2)
        == pytest.approx(0.2)
    )


def test_wsd_is_stable_then_falls_evenly() -> None:
    """Between warm-up and decay the factor is 1; then each of the last steps takes off the same."""
    factors = [wsd(step, warmup=5, total=40, decay=10) for step in range(40)]
    assert factors[4:31] == [1.0] * 27
    assert factors[30:] == pytest.approx([i / 10 for i in range(10, 0, -1)])


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_an_adamw_step_is_torchs(weight_decay: float) -> None:
    """Seven steps of `adamw_step` give torch's weights, with decay and without."""
    torch.manual_seed(0)
    weight = torch.randn(3, 5, dtype=torch.float64)
    theirs = nn.Parameter(weight.clone())
    optimizer = torch.optim.AdamW([theirs], lr=0.05, betas=(0.8, 0.95), eps=0.1, weight_decay=weight_decay)
    m, v = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 8):
        theirs.grad = torch.randn_like(weight)
        weight, m, v = adamw_step(
            weight, theirs.grad, m, v, step, lr=0.05, betas=(0.8, 0.95), eps=0.1, weight_decay=weight_decay
        )
        optimizer.step()
        torch.testing.assert_close(weight, theirs.detach())


def test_only_matrices_decay() -> None:
    """Norms and biases are in the group without decay, matrices in the other, each weight once, tied or not."""
    model = Tiny()
    decay = {
        id(weight): group["weight_decay"]
        for group in adamw(model, 1e-3, weight_decay=0.1).param_groups
        for weight in group["params"]
    }
    assert {name: decay[id(weight)] for name, weight in model.named_parameters()} == {
        "embedding.weight": 0.1, "qkv.weight": 0.1, "up.weight": 0.1, "up.bias": 0.0,
        "down.weight": 0.1, "down.bias": 0.0, "norm.weight": 0.0, "norm.bias": 0.0,
    }  # fmt: skip
    assert sum(len(group["params"]) for group in adamw(model, 1e-3).param_groups) == 8


@pytest.mark.parametrize("build", [partial(adamw, lr=0.01), partial(muon, lr=0.01, adamw_lr=0.01)])
def test_frozen_weights_stay(build: partial) -> None:
    """A frozen weight is in no group; with everything frozen there is nothing to optimise, and the error says so."""
    model = Tiny()
    model.up.requires_grad_(False)
    names = {id(weight): name for name, weight in model.named_parameters()}
    kept = {names[id(weight)] for group in build(model).param_groups for weight in group["params"]}
    assert kept == set(names.values()) - {"up.weight", "up.bias"}
    with pytest.raises(ValueError, match="Tiny has no trainable parameter"):
        build(model.requires_grad_(False))


@pytest.mark.parametrize("tie", [True, False])
def test_muon_moves_the_hidden_matrices_alone(tie: bool) -> None:
    """Muon has the matrices between embedding and head, AdamW these two, the norm and the biases; each weight once."""
    model = Tiny(tie)
    hidden, rest = muon(model, 0.02, 0.003).parts
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert {names[id(weight)] for group in hidden.param_groups for weight in group["params"]} == {
        "qkv.weight",
        "up.weight",
        "down.weight",
    }
    assert sum(len(group["params"]) for group in hidden.param_groups + rest.param_groups) == len(names)


def test_muon_without_a_hidden_matrix_says_so() -> None:
    """A model of an embedding alone has nothing for Muon."""
    with pytest.raises(ValueError, match="Embedding has no trainable hidden matrix"):
        muon(nn.Embedding(5, 3), 0.02, 0.003)


@pytest.mark.parametrize("shape", [(40, 40), (24, 60), (60, 24), (3, 16, 40)])
def test_orthogonalizing_levels_the_singular_values_and_keeps_the_vectors(shape: tuple[int, ...]) -> None:
    """Singular values above |G| / 300 end between 0.68 and 1.21, in the basis of the matrix's singular vectors."""
    torch.manual_seed(1)
    matrices = torch.randn(shape, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ orthogonalize(matrices) @ vt.mT
    levelled = torch.diagonal(inner, dim1=-2, dim2=-1)
    large = s > matrices.norm(dim=(-2, -1), keepdim=True).squeeze(-1) / 300
    assert levelled[large].min() > 0.68
    assert levelled.max() < 1.21
    torch.testing.assert_close(inner, torch.diag_embed(levelled))


@pytest.mark.parametrize("shape", [(3, 8, 40), (3, 40, 8)])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_long_matrices_are_leveled_by_their_gram_matrix(shape: tuple[int, ...], iterations: int) -> None:
    """The Gram matrix alone, iterated, gives what the iterations on the matrix give."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = x / x.norm(dim=(-2, -1), keepdim=True)
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(iterations):
        gram = expected @ expected.mT
        expected = a * expected + (b * gram + c * gram @ gram) @ expected
    torch.testing.assert_close(orthogonalize(x, iterations=iterations), expected, atol=1e-5, rtol=1e-4)


def test_batched_muon_is_muon_one_matrix_after_the_other() -> None:
    """Batching shapes, lying or standing, and cutting a qkv in three gives what a loop over matrices gives."""
    torch.manual_seed(2)
    shapes = {"a": (6, 10), "b": (10, 6), "c": (6, 10), "qkv": (18, 6)}
    weights = {name: nn.Parameter(torch.randn(shape, dtype=torch.float64)) for name, shape in shapes.items()}
    plain = {name: weight.detach().clone() for name, weight in weights.items()}
    means = {name: torch.zeros_like(weight) for name, weight in plain.items()}
    groups = [{"params": [weights[name] for name in "abc"]}, {"params": [weights["qkv"]], "parts": 3}]
    optimizer = Muon(groups, 0.1, momentum=0.9, weight_decay=0.2)
    for _ in range(3):
        for name, weight in weights.items():
            g = weight.grad = torch.randn_like(weight)
            means[name] = 0.9 * means[name] + 0.1 * g
            look = 0.1 * g + 0.9 * means[name]
            rows = 6 if name == "qkv" else len(g)
            update = torch.cat([orthogonalize(part) for part in look.split(rows)])
            plain[name] = plain[name] * (1 - 0.1 * 0.2) - 0.1 * max(1, rows / g.shape[1]) ** 0.5 * update
        optimizer.step()
        for name, weight in weights.items():
            torch.testing.assert_close(weight.detach(), plain[name])


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["get_cosine_schedule_with_warmup", "get_wsd_schedule"])
def test_hugging_face_has_the_same_schedules(name: str) -> None:
    """Their factors are ours, from the end of the warm-up on; within it theirs lag a step, for they begin at 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers and what it imports warn of their own deprecations
        theirs = getattr(pytest.importorskip("transformers"), name)
    ours = partial(wsd, decay=30) if "wsd" in name else warmup_cosine
    options = {"num_decay_steps": 30, "decay_type": "linear"} if "wsd" in name else {}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = theirs(optimizer, num_warmup_steps=10, num_training_steps=100, **options)
    factors = []
    for _ in range(101):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    mine = [ours(step, warmup=10, total=100) for step in range(101)]
    assert mine[:10] == pytest.approx(factors[1:11])
    assert mine[10:] == pytest.approx(factors[10:], abs=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (16, 6), (6, 16), (5, 4), (1, 4), (4, 1)])
def test_muon_is_torchs(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps with decay are those of torch.optim.Muon, once its products keep single precision."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self)  # into which torch rounds every matrix
    torch.manual_seed(0)
    begin = torch.randn(shape)
    mine, other = nn.Parameter(begin.clone()), nn.Parameter(begin.clone())
    optimizers = [
        Muon([mine], 0.1, momentum=0.9, weight_decay=0.2),
        torch.optim.Muon([other], lr=0.1, momentum=0.9, weight_decay=0.2),
    ]
    for _ in range(5):
        mine.grad = torch.randn(shape)
        other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=0.0)
    assert (mine - begin).abs().max() > 0.1


@pytest.mark.parametrize(("shape", "parts"), [((5,), 1), ((3, 4, 5), 1), ((10, 6), 3)])
def test_muon_refuses_what_it_cannot_orthogonalize(shape: tuple[int, ...], parts: int) -> None:
    """A vector, a stack and a matrix that does not fall into equal parts are refused by their shape."""
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        Muon([{"params": [nn.Parameter(torch.ones(shape))], "parts": parts}], 0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -0.1),
        ("lr", float("nan")),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1.0),
        ("iterations", 0),
    ],
)
def test_muon_refuses_numbers_that_do_not_descend(name: str, value: float) -> None:
    """A rate below 0, a momentum outside [0, 1), a negative decay and no iteration are refused, in each group."""
    options = {"lr": 0.1} | {name: value}
    with pytest.raises(ValueError, match=f"{name} {value} is not "):
        Muon([nn.Parameter(torch.ones(2, 2))], **options)
    with pytest.raises(ValueError, match=f"{name} {value} is not "):
        Muon([{"params": [nn.Parameter(torch.ones(2, 2))], name: value}], 0.1)


def test_a_closure_is_computed_once_and_given_back() -> None:
    """`Muon.step(closure)` takes the gradient that the closure makes and gives its value."""
    weight = nn.Parameter(torch.eye(3))
    calls: list[float] = []

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        calls.append(loss.item())
        return loss.item()

    assert Muon([weight], 0.1).step(closure) == 3.0
    assert calls == [3.0]
    assert not torch.equal(weight.detach(), torch.eye(3))


@pytest.mark.parametrize("build", [partial(adamw, lr=0.01), partial(muon, lr=0.02, adamw_lr=0.01)])
def test_a_restored_optimizer_goes_on_to_the_bit(build: partial) -> None:
    """Ten steps equal five steps, a copy of weights and optimiser state into new objects, and five more."""
    torch.manual_seed(3)
    whole, first, second = Tiny(), Tiny(), Tiny()
    first.load_state_dict(whole.state_dict())
    learn(whole, build(whole), 10)
    optimizer, other = build(first), build(second)
    learn(first, optimizer, 5)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(optimizer.state_dict())
    learn(second, other, 5)
    for ours, theirs in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("build", [partial(adamw, lr=0.01), partial(muon, lr=0.02, adamw_lr=0.01)])
def test_both_learn(build: partial) -> None:
    """Forty steps take the loss of a fixed batch below a third of where it began; a rate of 0 takes it nowhere."""
    torch.manual_seed(4)
    model = Tiny()
    begin = learn(model, build(model), 1)
    assert learn(model, build(model), 40) < begin / 3
    still = build(model)
    for group in still.param_groups:
        group["lr"] = 0.0
    assert learn(model, still, 1) == learn(model, still, 5)


@pytest.mark.parametrize("largest", [0.1, 2.0, 100.0])
def test_clipping_is_torchs(largest: float) -> None:
    """Gradients clipped by their common norm are those of torch's clip_grad_norm_; short ones, and zeros, stay."""
    torch.manual_seed(4)
    gradients = [torch.randn(3, 5), torch.randn(7)]
    weights = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    nn.utils.clip_grad_norm_(weights, largest)
    torch.testing.assert_close(clip_by_norm(gradients, largest), [weight.grad for weight in weights])
    assert not clip_by_norm([torch.zeros(3)], largest)[0].any()
