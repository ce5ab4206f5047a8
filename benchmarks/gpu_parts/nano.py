"""The recipe of bird-nano for as long as there is time, then its scores on phantoms it was not trained on."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from bird_hf.atomic_writes import write_text

from .measure import Part

ROOT = Path(__file__).parents[2]
RUN = ROOT / "runs" / "gpu-nano"
_NEEDS = ("trl", "datasets", "nibabel")
_SCORING_SECONDS = 60
# Fields of the recipe that a GPU, or a trial run in seconds, sets otherwise.
_ON_GPU = {"use_cpu": False, "dataloader_num_workers": 8}
_TRIAL = {
    "render_images": 16,
    "max_steps": 2,
    "stages": [{"train": "vision", "steps": 1}, {"train": "answers"}],
    "save_steps": 1,
    "dataset_name": str(RUN / "data"),
}


def write_recipe(part: Part) -> Path:
    """The recipe of bird-nano for this machine."""
    recipe = yaml.safe_load((ROOT / "recipes" / "nano.yaml").read_text(encoding="utf-8"))
    recipe |= {"output_dir": str(RUN)}
    recipe |= _ON_GPU if part.device.type == "cuda" else {}
    recipe |= _TRIAL if part.tiny else {}
    RUN.mkdir(parents=True, exist_ok=True)
    file = RUN / "recipe.yaml"
    write_text(file, yaml.safe_dump(recipe))
    return file


def train(part: Part) -> dict[str, Any]:
    """`bird train`; a run that the clock stopped goes on from its last checkpoint when the part is run again."""
    recipe = write_recipe(part)
    start = time.monotonic()
    log = RUN / "log.txt"
    with log.open("a", encoding="utf-8") as output:
        try:
            subprocess.run(
                [sys.executable, "-m", "bird_hf.cli", "train", "--config", str(recipe)],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=max(1.0, part.deadline - time.monotonic() - _SCORING_SECONDS),
                check=True,
            )
        except subprocess.SubprocessError as error:
            last = log.read_text(encoding="utf-8", errors="replace")[-1500:]
            raise RuntimeError(f"training did not end: {error}; the end of its log:\n{last}") from error
    return {"seconds_of_training": time.monotonic() - start}


def scored(part: Part) -> dict[str, Any]:
    """VG Recall@0.5 and the other scores of benchmarks/nano_scores.py."""
    from nano_scores import all_questions, answer, score

    from bird_hf.inference import load

    questions = all_questions(*((1, 1) if part.tiny else (40, 14)))
    questions = questions[:4] if part.tiny else questions
    return score(questions, answer(load(RUN / "final", device_map=part.device), questions, 48))


def run(part: Part) -> None:
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        part.skip("train", f"not run: {', '.join(missing)} not installed")
        return
    trained = part.measure("train", partial(train, part))
    if "error" not in trained and "not_run" not in trained:
        part.measure("scores", partial(scored, part))
