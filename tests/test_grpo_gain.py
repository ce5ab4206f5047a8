"""benchmarks/grpo_gain.py and grpo_signal.py on a few images.

Every part of grpo_gain.py runs, is done once, and the document holds what a page shows.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.sample import embedded_checkpoint

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "grpo_gain.py"
SIGNAL = SCRIPT.with_name("grpo_signal.py")


@pytest.fixture(scope="module")
def few_questions(tmp_path_factory) -> Path:
    """A Med-GRIT folder of four images, in a split to train on and one to score on."""
    dialogues = []
    for seed in range(4):
        image = draw_phantom(Modality.FUNDUS, seed, 64)
        turns = write_dialogue(
            record_of(image), np.random.default_rng(seed), {Task.VISUAL_GROUNDING: 2}, absent=1
        )
        dialogues.append((turns, image_cell(image)))
    folder = tmp_path_factory.mktemp("few") / "med-grit"
    publish({"train": dialogues, "test": dialogues}, folder, "# Few\n")
    return folder


@pytest.fixture
def printed(monkeypatch, capsys, forked_python):
    """Runs a script as `python script options` does, with runs that it starts, and gives what it prints."""
    environment = dict(os.environ)
    monkeypatch.setattr(sys, "executable", str(forked_python))

    def run(script, *options):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, options)])
        capsys.readouterr()
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    yield run
    os.environ.clear()  # training arguments set some variables
    os.environ.update(environment)


def test_all_parts_run_once_and_are_scored(printed, few_questions, tmp_path):
    out = tmp_path / "gain"
    command = [SCRIPT, "--out", out, "--data", few_questions, "--tiny"]
    document = json.loads(printed(*command))
    assert [*document] == ["settings", "machine", "early", "grpo", "scores"]
    assert [row["step"] for row in document["grpo"]["curve"]] == [1, 2]
    assert document["scores"]["questions"] >= 4
    for scores in (document["scores"], document["scores"]["plain"]):
        assert scores["cases"] == 4
        for name in ("early", "grpo"):
            assert 0.0 <= scores[name]["mean"] <= 1.0 and len(scores[name]["interval"]) == 2
            assert scores[name]["there"] + scores[name]["absent"] == document["scores"]["questions"]
            assert 0 <= scores[name]["without_a_box"] <= scores[name]["there"] > 0
        assert 0 <= scores["boxes_of_both"]["questions"] <= scores["early"]["there"]
        low, high = scores["difference"]["mean"]["interval"]
        assert low <= scores["difference"]["mean"]["difference"] <= high
    assert json.loads(printed(*command)) == document  # with its seconds: nothing was run again
    with pytest.raises(ValueError, match="was made with other settings"):
        printed(*command, "--learning_rate", "1e-5")


def test_boxes_are_compared_where_both_models_give_one(load_script):
    gain = load_script(SCRIPT)
    there, absent = "<ref>liver</ref><box>(100,100),(300,300)</box>", "There is no liver in this image."
    half, none = "<ref>liver</ref><box>(100,100),(300,200)</box>", "There is no liver in this image."

    def answers(*texts):
        return [
            SimpleNamespace(annotation=a, response=r)
            for a, r in zip((there, there, there, absent), texts, strict=True)
        ]

    early, grpo = answers(half, there, none, there), answers(there, half, there, none)
    found = gain.boxes_of_both(early, grpo)
    expected = {"questions": 2, "early": 0.75, "grpo": 0.75, "difference": 0.0, "standard_error": 0.5}
    assert found == pytest.approx(expected)
    assert gain.kinds(early) == {"there": 3, "without_a_box": 1, "absent": 1, "with_a_box": 1}


def test_the_gradients_of_steps_are_compared(printed, tmp_path, monkeypatch, few_questions):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    fields = {
        "method": "grpo",
        "model_name_or_path": str(embedded_checkpoint()),
        "dataset_name": str(few_questions),
        "dataset_config": "chat",
        "num_generations": 2,
        "max_completion_length": 24,
        "per_device_train_batch_size": 4,
        "learning_rate": 1.0,  # taken as 0
        "temperature": 1.5,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
    }
    recipe.write_text(yaml.safe_dump(fields))
    found = printed(SIGNAL, "--steps", 2, "--config", recipe)
    document = json.loads(found[found.index("{\n") :])
    assert (document["answers_per_step"], document["temperature"]) == (4, 1.5)
    assert {*document["cosines"]} == {"resampler", "embed_tokens", "language_model"}
    assert all(-1.0 <= each["mean"] <= 1.0 for each in document["cosines"].values())
