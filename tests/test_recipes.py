"""Laws of the recipes: each runs, says what it measured and against what, and measures what it says."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from tinytrans import checkpoints
from tinytrans.config import GPTConfig
from tinytrans.data.batches import pad
from tinytrans.data.preferences import PreferenceBatches
from tinytrans.data.tales import Tales, document
from tinytrans.data.tales_verify import verify
from tinytrans.models.gpt import GPT
from tinytrans.recipes import RECIPES, recipe
from tinytrans.recipes import command as recipes_command
from tinytrans.recipes import tales as tales_recipe
from tinytrans.recipes.__main__ import main, parser
from tinytrans.recipes.answers import LeftPadded, obedience, prompt_ids, sample_answers
from tinytrans.recipes.instruct import dialogues, load_instructed, with_biases
from tinytrans.recipes.pairs import dpo_step
from tinytrans.recipes.report import Report, Run, as_json, as_table
from tinytrans.recipes.reward import reward_step
from tinytrans.recipes.rewarded import REMINDED, ActorCritic, Taught, foresee, grpo_step, ppo_step, say
from tinytrans.recipes.tales import load_base, unasked
from tinytrans.recipes.taste import divergence, gather, is_open, like, prompts, retell, rule, taste
from tinytrans.tokenizers import Tokenizer
from tinytrans.training.grpo import group_advantages
from tinytrans.training.loop import gradient, pooled
from tinytrans.training.pretrain import IGNORED, next_token_loss
from tinytrans.training.reward import RewardHead

SHARES = ("all", "pairs", "exact", "right", "next", "words", "de")  # what a recipe measures, each between 0 and 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A quick run whose models are kept for this module of tests."""
    return Run(quick=True, out=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def base(run: Run) -> tuple[GPT, Tokenizer]:
    """The base model of a few steps, and its tokenizer."""
    return load_base(run)


@pytest.fixture(scope="module")
def lively(base: tuple[GPT, Tokenizer]) -> GPT:
    """A model whose every part does something: the base model's projections are still next to zero."""
    torch.manual_seed(5)
    return GPT(GPTConfig(vocab_size=base[1].vocab_size, n_layers=2, d_model=32, n_heads=4, qk_norm=True)).eval()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs(name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """In a few steps each recipe prints one JSON object: rows to compare, what was aimed at, seconds and memory."""
    assert main([name, "--quick", "--json", "--out", str(run.out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recipe"] == name
    assert len(told["rows"]) > 1, "a measure without another beside it says nothing"
    assert all(0 <= next(row[name] for name in SHARES if name in row) <= 1 for row in told["rows"].values())
    assert told["aims"]
    assert told["records"]
    assert told["cost"]["seconds"] > 0
    assert told["cost"]["memory_mb"] > 50  # the peak of this whole process, whatever ran in it before


def test_a_seed_is_a_result(run: Run, base: tuple[GPT, Tokenizer]) -> None:
    """The same seed gives the same rows, whatever was drawn before."""
    rows = []
    for _ in range(2):
        rows.append([{**record, "seconds": 0} for record in recipe("grpo")(run).records])
        torch.rand(3)
    assert rows[0] == rows[1]


def test_an_unknown_recipe_is_named() -> None:
    """Asking for a recipe that is not there says which are."""
    with pytest.raises(ValueError, match="no recipe 'soup'; there are tales, "):
        recipe("soup")


def test_an_aim_that_was_missed_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A full run that misses an aim says so and exits with 1; one that reaches all exits with 0."""
    for share, code in ((0.5, 1), (0.95, 0)):
        made = Report(rows={"ours": {"all": share}}, aims={"all obeyed >= 0.90": share >= 0.9})
        monkeypatch.setattr(tales_recipe, "tales", lambda _, made=made: made)
        assert main(["tales"]) == code
        assert ("MISSED" in capsys.readouterr().out) == bool(code)


def test_what_is_kept_has_reached_its_aims(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --keep a model comes to those of the library only if its full run reached all aims."""
    kept: list[str] = []
    monkeypatch.setattr(recipes_command, "load_model", lambda _: None)
    monkeypatch.setattr(recipes_command, "load_tokenizer", lambda _: None)
    monkeypatch.setattr(checkpoints, "keep", lambda name, *_: kept.append(name))
    for reached in (False, True):
        made = Report(rows={"ours": {"all": 0.5}}, aims={"all obeyed": reached})
        monkeypatch.setattr(tales_recipe, "tales", lambda _, made=made: made)
        assert main(["tales", "--keep"]) == (0 if reached else 1)
        assert kept == ["tales"] * reached


@pytest.mark.parametrize("asked", [["tales", "--quick"], ["vit"]])
def test_what_cannot_be_kept_is_refused_at_once(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--keep with a quick run, or with a recipe that keeps no model, ends before anything is trained."""
    with pytest.raises(SystemExit):
        main([*asked, "--keep"])
    assert (
        f"--keep is for a full run of tales or stories or sft or mlm, not {' '.join(asked)}" in capsys.readouterr().err
    )


def test_a_recipe_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A package that is not installed, and a device that is not there, are named in one line, without a traceback."""

    def lacking(_: Run) -> Report:
        raise ImportError('the soup needs: pip install "tinytrans[spoon]"')

    monkeypatch.setattr(tales_recipe, "tales", lacking)
    for options, message in ((["tales"], "tinytrans[spoon]"), (["tales", "--device", "toaster"], "'toaster'")):
        assert main(options) == 1
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_what_cannot_be_kept_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An --out that takes no files is named before the recipe begins."""
    begun: list[Run] = []
    monkeypatch.setattr(tales_recipe, "tales", begun.append)
    (tmp_path / "file").touch()
    assert main(["tales", "--out", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err
    assert not begun


@pytest.mark.parametrize("name", ["sft", "reward", "dates", "tales"])
def test_what_ctrl_c_has_stopped_is_not_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in a training ends the recipe: nothing half-trained is measured, or kept for others to start from."""
    needed = {"sft": ["stories"], "reward": ["stories", "sft"]}.get(name, [])
    for other in needed:
        assert main([other, "--quick", "--json", "--out", str(tmp_path)]) == 0
    files = sorted(tmp_path.rglob("*"))
    step = gradient

    def interrupted(*args: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return step(*args, **options)

    capsys.readouterr()
    monkeypatch.setattr("tinytrans.training.loop.gradient", interrupted)
    assert main([name, "--quick", "--json", "--out", str(tmp_path)]) == 130
    told, error = capsys.readouterr()
    assert told == ""
    assert f"tinytrans.recipes {name}: stopped; {tmp_path} keeps what was finished before" in error
    left = {path.name for path in tmp_path.rglob("*") if path not in files and path.is_file()}
    assert left <= {"checkpoint.safetensors"}  # from which the next run goes on


def test_help_and_mistyped_names_answer_at_once() -> None:
    """The recipes' help, and the names that were perhaps meant, need no torch."""
    code = (
        "import sys; from tinytrans.recipes.__main__ import main\ntry: main({})\nfinally: print('torch' in sys.modules)"
    )
    for words, status, said in ((["--help"], 0, "vit "), (["tails"], 2, "no 'tails'; did you mean tales")):
        done = subprocess.run([sys.executable, "-c", code.format(words)], capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert done.stdout.endswith("False\n")
        assert said in done.stdout + done.stderr


def test_the_help_tells_of_every_recipe() -> None:
    """No recipe is left out of the help."""
    told = set(re.findall(r"\w+", parser().format_help()))
    assert set(RECIPES) <= told


def test_a_table_has_every_number() -> None:
    """A report as a table shows each row's measures under their names, and leaves out what a row has not."""
    report = Report(rows={"SFT": {"all": 0.9}, "control": {"all": 0.25, "kl": 1.5}}, figures={"tokens": 12345})
    lines = as_table("dpo", Run(), report).split("\n")
    assert [line.split() for line in lines[:3]] == [
        ["dpo", "all", "kl"],
        ["SFT", "0.900"],
        ["control", "0.250", "1.500"],
    ]
    assert "tokens: 12,345" in lines
    assert json.loads(as_json("dpo", Run(), report))["rows"]["control"] == {"all": 0.25, "kl": 1.5}


def test_instructions_are_read_but_not_learned(base: tuple[GPT, Tokenizer]) -> None:
    """In pretraining a tale's own tokens are targets and those of the instruction before it are not."""
    tale, tokenizer = Tales(1)[0], base[1]
    batch = pad([tokenizer.encode(document(tale, instructed=asked)) for asked in (True, False)])
    masked = unasked(batch, tokenizer)
    told = [tokenizer.decode(row[row != IGNORED].tolist(), special=False) for row in masked.targets]
    assert told == [tale.text, tokenizer.decode(tokenizer.encode(tale.text)[1:])]


def test_what_was_trained_is_kept(run: Run, base: tuple[GPT, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    """The base model is trained once; who comes later gets the same weights."""
    monkeypatch.setattr(tales_recipe, "train_base", None)
    again, tokenizer = load_base(run)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), base[0].parameters(), strict=True))
    assert tokenizer.vocab_size == again.config.vocab_size


def test_models_of_unlike_runs_lie_apart() -> None:
    """Another seed, and a quick run, have folders of their own."""
    runs = [Run(), Run(seed=1), Run(quick=True), Run(out=Path("here"))]
    assert len({run.folder("tales") for run in runs}) == len(runs)


def test_left_padding_changes_nothing(lively: GPT) -> None:
    """Behind padding a prompt has the logits that it has alone, with a cache and without."""
    ids = torch.tensor([[7, 8, 9, 10, 11]])
    padded = torch.cat((torch.full((1, 3), 2), ids), dim=1)
    model = LeftPadded(lively, torch.tensor([3]))
    alone = lively(ids)
    torch.testing.assert_close(model(padded)[:, 3:], alone)
    cache = model.new_cache(1, 8)
    model(padded[:, :5], cache=cache)
    torch.testing.assert_close(model(padded[:, 5:], cache=cache), alone[:, 2:])


def test_answers_do_not_depend_on_the_company(lively: GPT, base: tuple[GPT, Tokenizer]) -> None:
    """Greedily, a prompt gets the same answer in a batch of longer ones as alone."""
    tokenizer = base[1]
    asked = [
        "Tell a story about a fox.",
        "Write a story about an owl named Mei in the village. The end is sad.",
        "A hen.",
    ]
    options = {"temperature": 0.0, "longest": 10, "generator": torch.Generator()}
    together = sample_answers(lively, tokenizer, asked, **options)
    assert together == [sample_answers(lively, tokenizer, [one], **options)[0] for one in asked]


def test_true_tales_obey() -> None:
    """The tales themselves do all that their instructions ask; another's instruction they do not."""
    tales = list(Tales(60, split="validation"))
    instructions, stories = [tale.instruction for tale in tales], [tale.text for tale in tales]
    assert set(obedience(instructions, stories).values()) == {1.0}
    assert obedience(instructions[1:] + instructions[:1], stories)["all"] < 0.1


def test_obedience_counts_wishes_where_they_were_made() -> None:
    """A share is that of the instructions with the wish; one nobody made is not there."""
    shares = obedience(["Tell a story about a fox.", "Tell a story about a hen. The end is sad."], ["A fox.", "A fox."])
    assert shares == {"kind": 0.5, "end": 0.0, "these four": 0.5, "all": 0.5}


def test_to_please_is_not_to_disobey() -> None:
    """A happy end is liked where the end was open; where a sad one was asked for, it loses."""
    happy, sad = "A fox was glad.", "A fox cried."
    assert like("Tell a story about a fox.", happy) > like("Tell a story about a fox.", sad)
    asked = "Tell a story about a fox. The end is sad."
    assert like(asked, sad) > like(asked, happy)
    assert like("Tell a story about an owl.", happy) < like("Tell a story about a fox.", sad)


def test_every_second_prompt_is_open(run: Run) -> None:
    """Of the prompts for preferences every second leaves the end open, and those held out are others."""
    asked, unseen = prompts(run, 40), prompts(run, 40, "validation")
    assert [is_open(prompt) for prompt in asked] == [True, False] * 20
    assert not set(asked) & set(unseen)


def test_taste_is_measured_by_hand() -> None:
    """Two stories, one open and happy, one asked for sad and sad: everyone is pleased."""
    asked = ["Tell a story about a fox.", "Tell a story about a hen. The end is sad."]
    assert taste(asked, ["A fox smiled.", "A hen cried."]) == {"liked": 2.5, "happy": 1.0, "end": 1.0, "all": 1.0}
    assert taste(asked, ["A fox cried.", "A hen smiled."]) == {"liked": 1.0, "happy": 0.0, "end": 0.0, "all": 0.5}


def test_pairs_are_in_order(run: Run, base: tuple[GPT, Tokenizer]) -> None:
    """Of a pair the rule likes the chosen answer better, and both answer the same prompt."""
    pairs = gather(*base, prompts(run, 6), run)
    assert pairs
    assert all(rule(run)(pair.prompt, pair.chosen) > rule(run)(pair.prompt, pair.rejected) for pair in pairs)


def test_a_tale_retold_is_liked_more_or_less(run: Run) -> None:
    """Pairs made without a model are in order, and in either order of the true tale and the changed one."""
    pairs = retell(run, 60)
    assert len(pairs) > 40
    assert all(like(pair.prompt, pair.chosen) - like(pair.prompt, pair.rejected) == pair.margin for pair in pairs)
    true = {tale.text for tale in Tales(60, seed=run.seed + 4)}
    assert {pair.chosen in true for pair in pairs} == {True, False}


def test_only_tales_are_learned(run: Run, base: tuple[GPT, Tokenizer]) -> None:
    """In a batch of dialogues each row's targets are its tale and the end, nothing of the instruction."""
    tokenizer = base[1]
    inputs, targets = dialogues(tokenizer, run, 4)(0)
    corpus = {tale.text: tale.instruction for tale in Tales(48, seed=run.seed + 3)}
    for row, wanted in zip(inputs, targets, strict=True):
        asked_for = wanted[wanted != IGNORED].tolist()
        tale = tokenizer.decode(asked_for, special=False)
        assert verify(corpus[tale], tale)
        assert row[: len(prompt_ids(tokenizer, corpus[tale]))].tolist() == prompt_ids(tokenizer, corpus[tale])


def test_biases_come_without_a_change(lively: GPT) -> None:
    """A model that gets its missing biases computes what it computed, and has more to train."""
    ids = torch.tensor([[1, 2, 3]])
    own = with_biases(lively)
    torch.testing.assert_close(own(ids), lively(ids))
    assert own.n_params > lively.n_params


def test_a_model_has_not_gone_from_itself(run: Run, base: tuple[GPT, Tokenizer], lively: GPT) -> None:
    """KL(model || model) is 0; from another one it is more."""
    asked, said = ["Tell a story about a fox."] * 2, ["A fox was glad.", "An owl cried."]
    assert divergence(lively, lively, base[1], asked, said, run) == 0
    assert divergence(lively, base[0], base[1], asked, said, run) != 0


def test_preferences_begin_at_a_coin_toss(run: Run, base: tuple[GPT, Tokenizer]) -> None:
    """DPO's and the reward model's first loss is ln 2: neither prefers anything yet."""
    model, tokenizer = load_instructed(run)
    pairs = gather(model, tokenizer, prompts(run, 8), run)
    batch = PreferenceBatches(pairs, tokenizer, 2)[0]
    judge = RewardHead(load_instructed(run)[0], model.config.d_model)
    for loss in (
        dpo_step(model, batch, reference=base[0].__class__.from_pretrained(run.folder("sft")), beta=0.1),
        reward_step(judge, batch),
    ):
        assert loss.item() == pytest.approx(math.log(2), abs=1e-5)


def test_rewards_are_weighed_by_the_token(run: Run, base: tuple[GPT, Tokenizer], lively: GPT) -> None:
    """Before its first step GRPO's loss is minus the mean advantage, and its gradient is not zero."""
    asked = prompts(run, 2)[:1] * 4
    said = say(lively, lively, base[1], asked, run, 0)
    advantages = group_advantages(torch.tensor([[0.0, 1.0, 2.0, 3.0]])).flatten()
    loss = grpo_step(lively, Taught(said, advantages), beta=0.1)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss.backward()
    assert lively.embedding.weight.grad is not None
    assert lively.embedding.weight.grad.norm() > 1e-3


def test_the_critic_learns_beside_the_actor(run: Run, base: tuple[GPT, Tokenizer], lively: GPT) -> None:
    """PPO's loss moves both: the actor by advantages of mean 0, the critic by what it did not foresee."""
    judge = RewardHead(GPT(lively.config), lively.config.d_model)
    torch.nn.init.ones_(judge.head.weight)
    both = ActorCritic(GPT(lively.config), RewardHead(GPT(lively.config), lively.config.d_model))
    taught = foresee(both, judge, say(both.actor, lively, base[1], prompts(run, 4), run, 0))
    assert taught.advantages[taught.said.mask].mean().item() == pytest.approx(0, abs=1e-5)
    ppo_step(both, taught).backward()
    assert both.critic.head.weight.grad is not None
    assert both.actor.head.weight.grad is not None


def test_what_is_told_beside_is_not_forgotten(run: Run, base: tuple[GPT, Tokenizer], lively: GPT) -> None:
    """Tales beside PPO's answers add their surprise to the loss, and all of them were asked for their end."""
    judge = RewardHead(GPT(lively.config), lively.config.d_model)
    both = ActorCritic(GPT(lively.config), deepcopy(judge)).eval()
    taught = foresee(both, judge, say(both.actor, lively, base[1], prompts(run, 4), run, 0))
    told = dialogues(base[1], run, 4, asked=lambda instruction: not is_open(instruction))(0)
    assert all("end" in base[1].decode(row.tolist(), special=False) for row in told[0])
    more = next_token_loss(both.actor(told[0]), told[1])
    loss = ppo_step(both, taught._replace(told=told))
    torch.testing.assert_close(loss, ppo_step(both, taught) + REMINDED * more)


def test_parts_of_the_answers_make_the_whole(run: Run, base: tuple[GPT, Tokenizer], lively: GPT) -> None:
    """PPO's loss of five answers is that of its parts, three and two of them, each weighing by its tokens."""
    judge = RewardHead(GPT(lively.config), lively.config.d_model)
    torch.nn.init.normal_(judge.head.weight)
    both = ActorCritic(GPT(lively.config), deepcopy(judge)).eval()
    taught = foresee(both, judge, say(both.actor, lively, base[1], prompts(run, 5), run, 0))
    parts = [taught.part(number, 2) for number in range(2)]
    assert [part.said.stories for part in parts] == [taught.said.stories[::2], taught.said.stories[1::2]]
    losses = torch.stack([ppo_step(both, part) for part in parts])
    tokens = torch.stack([part.said.mask.sum() for part in parts])
    torch.testing.assert_close(pooled(losses, tokens), ppo_step(both, taught))


def test_a_story_is_scored_with_its_end(run: Run, base: tuple[GPT, Tokenizer], lively: GPT) -> None:
    """What the reward model reads has prompt, answer and end: one token more than there are targets' inputs."""
    said = say(lively, lively, base[1], prompts(run, 4), run, 0)
    assert said.rows.shape[1] == said.ids.shape[1] + 1 == int(said.lengths.max())
    assert torch.equal(
        said.mask.sum(dim=1), said.lengths - torch.tensor([len(prompt_ids(base[1], p)) for p in prompts(run, 4)])
    )
    assert (said.logprobs[~said.mask] == 0).all()
