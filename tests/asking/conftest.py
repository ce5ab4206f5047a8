"""A small Med-GRIT folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality
from bird_hf.data.teachers.templates import write_dialogue


@pytest.fixture(scope="session")
def med_grit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with questions of each task about three phantoms."""
    folder = tmp_path_factory.mktemp("asked") / "med-grit"
    rng = np.random.default_rng(0)
    images = [draw_phantom(Modality.CT, number, 64) for number in range(3)]
    wanted = dict.fromkeys(SINGLE_TASKS, 2)
    dialogues = [write_dialogue(record_of(image, 0.003), rng, wanted, absent=1) for image in images]
    publish({"test": zip(dialogues, map(image_cell, images), strict=True)}, folder, "# Three images\n")
    return folder
