"""A contact sheet of rows; folders that are not datasets are refused with a message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Dialogue, Modality
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.reports.contact_sheet import COLUMNS, contact_sheet_of, picture_of_row

pytest.importorskip("datasets")


def dialogues() -> Iterator[tuple[Dialogue, dict[str, Any]]]:
    for seed in range(6):
        image = draw_phantom(Modality.FUNDUS, seed, 64)
        wanted = dict.fromkeys(SINGLE_TASKS, 1)
        dialogue = write_dialogue(record_of(image), np.random.default_rng(seed), wanted, absent=0)
        yield dialogue, image_cell(image)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("show") / "med-grit"
    publish({"test": dialogues()}, out, "# Phantoms\n", shards=1)
    return out


@pytest.mark.parametrize(("task", "count", "shown"), [("vg", 3, 3), ("chat", 100, 6), ("mia", 1, 1)])
def test_rows_become_pictures_side_by_side(folder: Path, task: str, count: int, shown: int) -> None:
    sheet = contact_sheet_of(folder, task, "test", count)
    assert sheet.width == 512 * min(shown, COLUMNS)
    assert sheet.height > 384 * -(-shown // COLUMNS)  # fundus phantoms are wider than high


@pytest.mark.parametrize(
    ("task", "split", "complaint"),
    [
        ("ner", "test", "task 'ner' is unknown; use one of vg, roc, rc, mia, chat"),
        ("vg", "train", "no readable task 'vg' with a split 'train'"),
    ],
)
def test_unknown_tasks_and_splits_are_refused(folder: Path, task: str, split: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        contact_sheet_of(folder, task, split, 1)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not a Med-GRIT folder; `bird data sample --out .*` makes one"):
        contact_sheet_of(tmp_path / "nowhere", "vg", "test", 1)
    card = tmp_path / "README.md"
    card.write_bytes(b"\xff# binary")
    with pytest.raises(ValueError, match="not a Med-GRIT folder"):
        contact_sheet_of(tmp_path, "vg", "test", 1)
    card.write_text(
        "---\nconfigs:\n- config_name: vg\n  data_files:\n  - {split: test, path: rows.jsonl}\n---\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"text": "other rows"}\n')
    with pytest.raises(ValueError, match="not a Med-GRIT folder: its rows lack image, image_id, messages"):
        contact_sheet_of(tmp_path, "vg", "test", 1)


def test_damaged_data_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes((folder / "README.md").read_bytes())
    shard = next((folder / "data" / "vg").glob("*.parquet"))
    (tmp_path / "data" / "vg").mkdir(parents=True)
    (tmp_path / "data" / "vg" / shard.name).write_bytes(shard.read_bytes()[:999])
    with pytest.raises(ValueError, match="no readable task 'vg'"):
        contact_sheet_of(tmp_path, "vg", "test", 1)


def test_a_row_without_pixels_says_so() -> None:
    with pytest.raises(ValueError, match="row ct_1 has no pixels; join"):
        picture_of_row({"image_id": "ct_1", "image": None, "messages": []})


def test_a_rows_boxes_are_drawn(folder: Path) -> None:
    message = {"role": "user", "content": "<ref>a</ref><box>(250,500),(750,1000)</box>"}
    row = {"image_id": "ct_1", "image": Image.new("L", (600, 600)), "messages": [message]}
    assert picture_of_row(row).getpixel((150, 300)) != (0, 0, 0)
