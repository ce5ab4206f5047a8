"""The counts match the rows, and text from the data stays text in a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("datasets")

from bird_hf.data.folder.publish import rows_of
from bird_hf.data.folder.shards import write_shards
from bird_hf.data.folder.statistics import AREA_EDGES, as_json, as_markdown, count_folder
from bird_hf.data.records import (
    Axis,
    Dialogue,
    ImageInfo,
    ImageRecord,
    Instance,
    Modality,
    Task,
    Turn,
)
from bird_hf.hub.boxes import Box

INSTANCES = (
    Instance("liver_0", "liver", Box(0.0, 0.0, 0.1, 0.09), 0.009),
    Instance("cyst_0", "cyst | <b>", Box(0.5, 0.5, 1.0, 1.0), 0.1),
    Instance("spleen_0", "spleen", None, 0.0),
)
IDS = tuple(item.instance_id for item in INSTANCES)


def dialogue_of(name: str, modality: Modality, tasks: list[Task]) -> Dialogue:
    info = ImageInfo(name, modality, "", "", Axis.PLANAR, None, "drawn", name, modality is Modality.PET)
    turns = tuple(Turn(task, "What?", "That.", instance_ids=IDS) for task in tasks)
    return Dialogue(ImageRecord(info, (10, 10), INSTANCES), turns, "test")


VG, ROC, MIA = Task.VISUAL_GROUNDING, Task.REFERRING_CLASSIFICATION, Task.IMAGE_ANALYSIS
DIALOGUES = {
    "train": [
        dialogue_of("ct_1", Modality.CT, [VG, VG, ROC]),
        dialogue_of("ct_2", Modality.CT, [MIA]),
        dialogue_of("pet_1", Modality.PET, [VG, ROC, MIA]),
    ],
    "test": [dialogue_of("pet_2", Modality.PET, [VG])],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, dialogues in DIALOGUES.items():
        by_task: dict[Task, list] = {}
        for dialogue in dialogues:
            for task, rows in rows_of(dialogue, None).items():
                by_task.setdefault(task, []).extend(rows)
        for task, rows in by_task.items():
            write_shards(rows, tmp_path / "med-grit" / "data" / task.value, split, 2)
    return tmp_path / "med-grit"


def test_turns_images_and_boxes_are_counted(folder):
    found = as_json(count_folder(folder))
    assert found["turns"]["train"] == {
        "ct": {"vg": 2, "roc": 1, "mia": 1},
        "pet": {"vg": 1, "roc": 1, "mia": 1},
    }
    assert found["turns"]["test"]["pet"] == {"vg": 1, "roc": 0, "mia": 0}
    assert found["images"] == {"train": {"ct": 2, "pet": 1}, "test": {"ct": 0, "pet": 1}}
    assert found["synthetic_images"] == {"train": 1, "test": 1}
    assert found["absent_objects"] == {"train": 3, "test": 1}
    assert found["turns_of_an_image"] == {"train": {"1": 1, "3": 2}, "test": {"1": 1}}
    assert found["labels"] == {"cyst | <b>": 4, "liver": 4, "spleen": 4}
    assert found["datasets"] == {"drawn": 4}
    assert found["box_areas"]["boxes"]["ct"] == [0, 0, 0, 0, 2, 0, 0, 2, 0]  # 0.9 % and 25 %
    assert found["broken_boxes"] == 0
    assert json.loads(json.dumps(found)) == found


def test_a_folder_of_chats_alone_is_counted_too(folder):
    for task in ("vg", "roc", "mia"):
        for path in (folder / "data" / task).iterdir():
            path.unlink()
    found = as_json(count_folder(folder))
    assert found["turns"]["train"] == {"ct": {"chat": 4}, "pet": {"chat": 3}}
    assert found["images"]["train"] == {"ct": 2, "pet": 1}


def test_without_chats_rows_of_an_image_are_one_image(folder):
    for path in (folder / "data" / "chat").iterdir():
        path.unlink()
    found = as_json(count_folder(folder))
    assert found["images"]["train"] == {"ct": 1, "pet": 1}  # of the images with VG turns
    assert found["labels"]["liver"] == 3


def test_tables_hold_the_numbers_and_no_markup_of_the_data(folder):
    text = as_markdown(count_folder(folder))
    assert (
        "| modality | vg | roc | mia | all |\n| --- | --- | --- | --- | --- |\n| ct | 2 | 1 | 1 | 4 |" in text
    )
    assert "| all | 3 | 2 | 2 | 7 |" in text
    assert "| cyst \\| \\<b\\> | 4 |" in text
    assert all(f"≤ {edge * 100:g} %" in text for edge in AREA_EDGES)


def test_a_folder_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a Med-GRIT folder"):
        count_folder(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match="has no rows"):
        count_folder(tmp_path)


def test_a_broken_or_missing_file_is_refused(folder):
    path = folder / "data" / "vg" / "train-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train-00000-of-00002.parquet is not a complete Parquet file"):
        count_folder(folder)
    path.unlink()
    with pytest.raises(ValueError, match="files of train are missing or left over"):
        count_folder(folder)


def test_counting_loads_no_matplotlib():
    modules = "bird_hf.data.folder.statistics, bird_hf.data.folder.audit"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
