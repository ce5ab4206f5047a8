"""`bird score`: the counts of the original scripts, as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Bird = Callable[..., Any]
GOLDEN_SCORES = Path(__file__).parents[1] / "golden" / "scores"


@pytest.mark.parametrize("task", ["vg", "roc"])
def test_score_prints_the_counts_of_the_original_scripts(bird: Bird, task: str) -> None:
    ran = bird("score", GOLDEN_SCORES / f"{task}.jsonl", "--task", task, "--json")
    scored, official = json.loads(ran.out), json.loads((GOLDEN_SCORES / "official.json").read_text())[task]
    assert ran.code == 0 and (scored["task"], scored["rules"]) == (task, "paper")
    counts = {name: (row["hits"], row["total"]) for name, row in scored["modalities"].items()}
    assert counts == {
        {"x": "x_ray"}.get(name, name): (hits, total)
        for name, (hits, total) in official["modality"].items()
        if total
    }
    assert scored["n_modalities"] == len(counts)
    assert scored["mean"] == pytest.approx(sum(hits / total for hits, total in counts.values()) / len(counts))


def test_score_without_json_is_a_table(bird: Bird) -> None:
    ran = bird("score", GOLDEN_SCORES / "vg.jsonl", "--task", "vg")
    assert ran.code == 0 and "| mean of 8 |" in ran.out and "malformed answers" in ran.out


def test_score_says_that_rc_waits_for_its_measure_even_without_a_file(
    bird: Bird, assert_refused: Bird
) -> None:
    assert_refused(bird("score", "no.jsonl", "--task", "rc"), "rc waits for its measure, SPICE")
    assert_refused(bird("score", "no.jsonl", "--task", "vg"), "no.jsonl", "no such file")
