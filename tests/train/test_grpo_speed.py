"""benchmarks/grpo_speed.py on a few questions: both ways are timed on the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bird_hf.sample import embedded_checkpoint

ROOT = Path(__file__).parents[2]
FIELDS = {
    "method": "grpo",
    "dataset_config": "chat",
    "num_generations": 8,
    "max_completion_length": 24,
    "per_device_train_batch_size": 16,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
}


@pytest.mark.slow
def test_both_ways_are_timed(load_script, four_phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    data = {"model_name_or_path": str(embedded_checkpoint()), "dataset_name": four_phantoms}
    recipe.write_text(yaml.safe_dump(FIELDS | data))
    report = load_script(ROOT / "benchmarks" / "grpo_speed.py").measure(["--config", str(recipe)], repeats=1)
    assert (report["answers"], report["answers_to_a_question"]) == (16, 8)
    assert {*report["times"]} == {"sampling", "loss and gradients"}
    assert all(seconds > 0 for ways in report["seconds_for_an_answer"].values() for seconds in ways.values())
    assert report["tokens_of_a_prompt"] > 100 > report["tokens_of_an_answer"] > 0
