"""Eight rows whose boxes can be learnt by heart, and tiny models of other families."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span, write
from bird_hf.train import run

ROOT = Path(__file__).parents[3]
NAME, QUESTION = "left kidney", "Where is the left kidney?"
SIZES = ((64, 96), (96, 64), (80, 80), (112, 56))


def drawn(number: int) -> tuple[Image.Image, Box]:
    """A picture of one colour with a grey rectangle, and the box of the rectangle."""
    width, height = SIZES[number % len(SIZES)]
    rng = np.random.default_rng(number)
    x1, y1 = int(rng.integers(width // 2)), int(rng.integers(height // 2))
    x2, y2 = int(rng.integers(x1 + 12, width)), int(rng.integers(y1 + 12, height))
    colour = [*product((0, 255), repeat=3)][number]
    pixels = np.full((height, width, 3), colour, np.uint8)
    pixels[y1:y2, x1:x2] = 127
    return Image.fromarray(pixels), Box.from_pixels((x1, y1, x2, y2), (width, height))


def grounding_row(number: int, **columns: Any) -> dict[str, Any]:
    """A row as Med-GRIT has it: where is the left kidney?"""
    image, box = drawn(number)
    answer = f"Here is the {NAME}."
    start = answer.index(NAME)
    tagged = write(answer, [Span(NAME, start, start + len(NAME), (box,))])
    return {
        "image_id": f"ct_{number}",
        "image": image,
        "image_wh": [*image.size],
        "task": "vg",
        "messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": tagged}],
        "objects": [{"label": NAME, "box": [*box.xyxy], "present": True}],
        "independent": True,
    } | columns


def dataset_of(rows: list[dict[str, Any]]) -> Dataset:
    """Rows as a dataset with images."""
    features = Features(Dataset.from_list(rows).features | {"image": ImageFeature()})
    return Dataset.from_list(rows, features=features)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, load_script: Any) -> Callable[[str], Path]:
    """The folder of a tiny model: `tiny_folder("llava")`; skips the test if the family needs torchvision."""
    tiny = load_script(ROOT / "tests" / "dialects" / "tiny_models.py")
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if tiny.FAMILIES[family].needs_torchvision:
            pytest.importorskip("torchvision")
        if family not in made:
            made[family] = tiny.make_tiny(family, tmp_path_factory.mktemp("tiny") / family)
        return made[family]

    return make


@pytest.fixture(scope="session")
def eight_rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset folder whose training and test split are the same eight rows."""
    folder = tmp_path_factory.mktemp("eight")
    dataset = dataset_of([grounding_row(number) for number in range(8)])
    for split in ("train", "test"):
        dataset.to_parquet(folder / f"{split}.parquet")
    return str(folder)


@pytest.fixture
def any_vlm_trainer(write_recipe, tmp_path, own_folder, eight_rows) -> Callable[..., Any]:
    """The trainer of a recipe for a tiny model: `any_vlm_trainer(folder, dialect="internvl", max_steps=3)`."""

    def build(model: Path, **fields: Any) -> Any:
        settings = {"method": "any_vlm", "dataset_name": eight_rows, "dataset_config": None} | fields
        path = write_recipe(tmp_path, model_name_or_path=str(model), **settings)
        return run.build(run.read(["--config", str(path)]))

    return build
