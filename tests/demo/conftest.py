"""Fixtures for the tests of the demo: a model with a fixed answer, a stored image, a Med-GRIT folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.embedded.sample_set import sample_phantoms
from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.records import SINGLE_TASKS
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.inference import GroundingModel

from .page_content import KIDNEY, WH


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The queries that reach the model, which answers KIDNEY."""
    queries: list[Any] = []

    def sample(_self: Any, given: list[Any], *_: Any) -> list[tuple[str, ...]]:
        queries.extend(given)
        return [(KIDNEY,)]

    monkeypatch.setattr(GroundingModel, "sample", sample)
    return queries


@pytest.fixture
def stored(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.new("L", WH, 90).save(path)
    return str(path)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Med-GRIT folder with a phantom of each modality."""
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("demo") / "med-grit"
    wanted = dict.fromkeys(SINGLE_TASKS, 1)
    rows = [
        (write_dialogue(record, rng, wanted, 0), image_cell(image))
        for image, record in sample_phantoms("test", 1)
    ]
    publish({"test": rows}, out, "", shards=1)
    return out
