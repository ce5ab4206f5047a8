"""benchmarks/grpo_gain.py on a few images: every part runs, is done once, and the document holds what a page shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task
from bird_hf.data.teachers.templates import write_dialogue

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "grpo_gain.py"


@pytest.fixture(scope="module")
def few_questions(tmp_path_factory) -> Path:
    """A Med-GRIT folder with a test split of four images."""
    dialogues = []
    for seed in range(4):
        image = draw_phantom(Modality.FUNDUS, seed, 64)
        turns = write_dialogue(
            record_of(image), np.random.default_rng(seed), {Task.VISUAL_GROUNDING: 2}, absent=1
        )
        dialogues.append((turns, image_cell(image)))
    folder = tmp_path_factory.mktemp("few") / "med-grit"
    publish({"test": dialogues}, folder, "# Few\n")
    return folder


def run(*options):
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, options)], env=environment, capture_output=True, text=True
    )


def test_all_parts_run_once_and_are_scored(few_questions, tmp_path):
    out = tmp_path / "gain"
    first = run("--out", out, "--data", few_questions, "--tiny")
    assert first.returncode == 0, first.stderr[-3000:]
    document = json.loads(first.stdout)
    assert [*document] == ["settings", "machine", "early", "grpo", "scores"]
    assert [row["step"] for row in document["grpo"]["curve"]] == [1, 2]
    assert document["scores"]["questions"] >= 4
    for scores in (document["scores"], document["scores"]["plain"]):
        assert scores["cases"] == 4
        for name in ("early", "grpo"):
            assert 0.0 <= scores[name]["mean"] <= 1.0 and len(scores[name]["interval"]) == 2
        low, high = scores["difference"]["mean"]["interval"]
        assert low <= scores["difference"]["mean"]["difference"] <= high
    again = run("--out", out, "--data", few_questions, "--tiny")
    assert json.loads(again.stdout) == document  # with its seconds: nothing was run again
    other = run("--out", out, "--data", few_questions, "--tiny", "--learning_rate", "1e-5")
    assert other.returncode and "was made with other settings" in other.stderr
