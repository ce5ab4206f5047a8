"""Original Med-GRIT files, and the images that they are about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.folder.shards import shards_of, stream_rows
from bird_hf.data.records import Task

RowsByTaskAndSplit = dict[tuple[str, str], list[dict[str, Any]]]
CT, MR = "ct_00--CHAOS--case7--z_0134", "mr_t1--ACDC--patient001_frame01--x_0006"
OPENING = "Picture 1: <img>/data/SAMed2Dv1/images/x.png</img>\n"
LIVER = "<ref>Liver</ref> is located at the coordinates <box>(100,200),(300,400)</box>."

# One file a task, with what original files may hold: several turns an entry, an opening on each or on none, spaces
# that a rewriting would lose, the same image twice, a box without tags, further keys, and letters of any script.
FILES: dict[str, list[dict[str, Any]]] = {
    "MedGRIT_VG_test.json": [
        {
            "id": CT,
            "conversations": [
                [OPENING + "Where is the liver?", LIVER],
                ["And  the spleen? ", "Here: <box>(10, 20), (30,40)</box>"],
            ],
        },
        {"id": CT, "conversations": [["Where is the liver?", "(1,2),(3,4) naïve 肝"]]},
        {
            "id": MR,
            "conversations": [[OPENING + "a\u2028b", "No <5 mm nodule."]],
            "source": {"n": [1, 2.5, None]},
        },
    ],
    "RO_test_OneConv.json": [
        {"id": CT, "conversations": [[OPENING + "What is in <box>(100,200),(300,400)</box>?", "liver"]]},
        {"id": CT, "conversations": [[OPENING + "Name <box>(1,2),(3,4)</box>.", "the <ref>spleen</ref>"]]},
    ],
    "test-GC.json": [
        {"id": MR, "conversations": [["Describe <ref>this</ref><box>(5,5),(9,9)</box>.", "Small."]]}
    ],
    "MII-train.json": [{"id": MR, "conversations": [["Which modality?", "MR."], ["", ""]]}],
}


@pytest.fixture
def original_files() -> dict[str, list[dict[str, Any]]]:
    """The entries of each file in `originals`."""
    return FILES


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    folder = tmp_path / "json"
    folder.mkdir()
    for name, entries in FILES.items():
        (folder / name).write_text(json.dumps(entries, indent=2), encoding="utf-8")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate((CT, MR)):
        Image.fromarray(np.full((20, 30 + number), 9, np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def rows_of_folder() -> Callable[[Path, list[str]], RowsByTaskAndSplit]:
    def rows_of_folder(folder: Path, columns: list[str]) -> RowsByTaskAndSplit:
        return {
            (task.value, split): list(stream_rows(paths, columns))
            for task in Task
            for split, paths in shards_of(folder, task).items()
        }

    return rows_of_folder


@pytest.fixture
def write_original(tmp_path: Path) -> Callable[..., Path]:
    """Writes VG_test.json, or a file of another name."""

    def write(text: str | bytes, name: str = "VG_test.json") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write
