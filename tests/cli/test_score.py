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


def test_score_of_captions_without_spice_names_both_remedies_even_without_a_file(
    bird: Bird, assert_refused: Bird
) -> None:
    ran = bird("score", "no.jsonl", "--task", "rc")
    assert_refused(ran, "bird setup spice", "--rc-measure scene_graph_f1")
    assert_refused(
        bird("score", "no.jsonl", "--task", "rc", "--rc-measure", "cider"), "use spice or scene_graph_f1"
    )
    assert_refused(bird("score", "no.jsonl", "--task", "chat"), "vg, roc, rc, mia can")
    assert_refused(bird("score", "no.jsonl", "--task", "vg"), "no.jsonl", "no such file")


def test_score_of_captions_without_java(bird: Bird, tmp_path: Path) -> None:
    rows = (GOLDEN_SCORES / "rc.jsonl").read_text().splitlines()[:3]
    (tmp_path / "rc.jsonl").write_text("\n".join(rows) + "\n")
    ran = bird("score", "rc.jsonl", "--task", "rc", "--rc-measure", "scene_graph_f1", "--json")
    scored = json.loads(ran.out)
    assert ran.code == 0 and list(scored["modalities"]) == ["ct"] and scored["n_modalities"] == 1
    assert 0 < scored["modalities"]["ct"]["scene_graph_f1"] <= 1
    assert scored["mean"] == scored["modalities"]["ct"]
    table = bird("score", "rc.jsonl", "--task", "rc", "--rc-measure", "scene_graph_f1")
    assert "| mean of 1 |" in table.out and "scene_graph_f1" in table.out


def test_setup_spice_refuses_a_folder_without_the_archives(
    bird: Bird, assert_refused: Bird, tmp_path: Path
) -> None:
    assert_refused(bird("setup", "spice", "--from", tmp_path), "stanford-corenlp-3.6.0.jar: no such file")
