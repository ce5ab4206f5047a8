"""A small dataset, and recipes as files: training tests read them as `bird train` does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.train import run

ROWS = 4
PLAIN = {
    "dataset_config": "chat",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": ROWS,
    "max_steps": 1,
}


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """What a run leaves beside its output goes into the test's folder; training arguments set no environment."""
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="session")
def four_phantoms(tmp_path_factory) -> str:
    """A Med-GRIT folder of four rows."""
    wanted = {Task.VISUAL_GROUNDING: 2, Task.REFERRING_CLASSIFICATION: 1}
    dialogues = []
    for seed, modality in enumerate((Modality.CT, Modality.FUNDUS, Modality.PET, Modality.MR)):
        image = draw_phantom(modality, seed, 64)
        dialogue = write_dialogue(record_of(image), np.random.default_rng(seed), wanted, absent=1)
        dialogues.append((dialogue, image_cell(image)))
    folder = tmp_path_factory.mktemp("data") / "med-grit"
    publish({"train": dialogues}, folder, "# Four phantoms\n")
    return str(folder)


@pytest.fixture
def write_recipe(four_phantoms) -> Callable[..., Path]:
    """Writes a recipe for one quiet step on the four phantoms into a folder: `write_recipe(folder, max_steps=3)`."""

    def write(folder: Path, **fields: Any) -> Path:
        folder.mkdir(exist_ok=True)
        recipe = PLAIN | {"dataset_name": four_phantoms, "output_dir": str(folder / "run")} | fields
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    return write


@pytest.fixture
def trainer_of(write_recipe, tmp_path, own_folder) -> Callable[..., Any]:
    """The trainer of such a recipe: `trainer_of(model_name_or_path=..., max_steps=3)`."""

    def build(callbacks=(), **fields: Any) -> Any:
        return run.build(run.read(["--config", str(write_recipe(tmp_path, **fields))]), callbacks)

    return build


@pytest.fixture
def batch_of() -> Callable[..., Any]:
    """The first rows of a trainer's dataset as a batch."""

    def collate(trainer: Any, rows: int = ROWS) -> Any:
        return trainer.data_collator([trainer.train_dataset[index] for index in range(rows)])

    return collate


@pytest.fixture(scope="session")
def new_model() -> dict[str, Any]:
    """`new_model` of a tiny recipe."""
    return {
        "vocab_size": 560,
        "vision_config": {
            "image_size": 32,
            "patch_size": 8,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "position_grid": 4,
            "num_queries": 4,
            "resampler_hidden_size": 32,
            "resampler_num_attention_heads": 2,
        },
        "text_config": {
            "model_type": "qwen2",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
    }


@pytest.fixture(scope="session")
def broken_checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    """`tiny_checkpoint` with NaN in a weight, so that its loss is NaN."""
    folder = tmp_path_factory.mktemp("broken") / "bird"
    shutil.copytree(tiny_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.language_model.norm.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
