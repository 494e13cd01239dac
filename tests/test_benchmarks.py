"""The benchmarks run and their table is whole; no time is ever asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks.__main__ import main
from tests.benchmarks.measure import Contest, Row, measure, peak_memory
from tests.benchmarks.rivals import OTTER, OURS, STOCK, rows
from tests.benchmarks.table import HEADS, table


def test_the_table_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quick run gives every contestant a row, in table and JSON: a time, or the reason why there is none."""
    file = tmp_path / "bench.json"
    names = {
        "training": "training",
        "training-llama": "training, as Llama",
        "generation": "generation, batch 1",
        "bpe-training": "BPE training",
        "bpe-encoding": "BPE encoding",
    }
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")  # which main sets, and must not leave to other tests
    main([*names, "--quick", "--threads", "1", "--json", str(file)])
    shown = capsys.readouterr().out
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["machine"]["threads"] == 1
    assert {row["contest"] for row in written["rows"]} == set(names.values())
    for row in written["rows"]:
        assert row["contestant"] in shown
        assert (row["seconds"] is not None and row["seconds"] > 0) or row["note"], f"an empty row: {row}"


def test_contestants_take_turns() -> None:
    """Each round begins with another contestant, and the ratio is theirs by ours."""
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    rows = measure(Contest("c", "/s", 1, runs, rounds=2, warmup=False, missing={"z": "not here"}))
    assert "".join(order) == "abba"
    assert [row.contestant for row in rows] == ["a", "b", "z"]
    assert rows[0].ratio is not None
    assert rows[2].seconds is None


def test_a_missing_peer_has_a_row_that_says_so() -> None:
    """What cannot run here stands in the table with its reason."""
    lines = table([Row("c", "peer", "/s", note="peer is not installed")]).splitlines()
    assert len(lines) == 3
    assert lines[2].count("|") == len(HEADS) + 1
    assert "peer is not installed" in lines[2]


def block(n: int, seconds: float, pages: float | None) -> dict[str, object]:
    """What a grader says of a block of n submissions."""
    return {"n": n, "seconds": seconds, "pages": pages, "each": [seconds / n] * n, "cpu": 2 * seconds, "scores": {}}


def test_a_class_is_measured_a_submission() -> None:
    """Rivals that grade fewer submissions are compared by the seconds of one, with its page where they make any."""
    blocks = {
        OURS: [block(50, 10.0, 5.0), block(50, 20.0, 5.0)],
        STOCK: [block(2, 10.0, 2.0), block(2, 10.0, 2.0)],
        OTTER: [block(2, 8.0, None), block(2, 8.0, None)],
    }
    figures = {"students": 50, "items": 10, "cold": dict.fromkeys(blocks, 3.0), "blocks": blocks}
    made = {(row.contestant, row.contest.partition(", ")[2]): row for row in rows(figures)}
    assert made[STOCK, "graded"].ratio == pytest.approx((25 + 12.5) / 2)
    assert made[STOCK, "with pages"].ratio == pytest.approx((20 + 12) / 2)
    assert made[STOCK, "graded"].cpu_ratio == pytest.approx(10 / 0.6)
    assert made[OTTER, "graded"].seconds == 4
    assert (OTTER, "with pages") not in made
    assert "an exercise 0.500 s" in made[STOCK, "graded"].note
    del blocks[OTTER]
    assert any(row.contestant == OTTER and row.seconds is None and "--otter" in row.note for row in rows(figures))


def test_peak_memory_is_that_of_tensors() -> None:
    """What a run holds at once counts, not what it holds one after the other; what stood before does not."""
    before = torch.zeros(5000)

    def run() -> None:
        for _ in range(3):
            before + before  # 20,000 bytes, gone before the next
        kept = torch.ones(1000), torch.ones(1000)
        del kept

    assert peak_memory(run) == 20_000
    assert peak_memory(lambda: (torch.ones(1000), torch.ones(1000))) == 8000
