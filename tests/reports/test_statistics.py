"""The figures and tables of a folder are written, and the same rows give the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("datasets")
pytest.importorskip("matplotlib")

from bird_hf.data.folder.publish import publish
from bird_hf.data.folder.statistics import as_json, count_folder
from bird_hf.data.records import Axis, Dialogue, ImageInfo, ImageRecord, Instance, Modality, Task, Turn
from bird_hf.hub.boxes import Box
from bird_hf.reports.statistics import write_statistics


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with hostile names: markup and a formula."""
    dialogues = []
    for number, modality in enumerate((Modality.CT, Modality.PET, Modality.CT)):
        instance = Instance(
            "a_0", "<script>alert(1)</script> | $x^", Box(0.1, 0.1, 0.2 + number / 10, 0.3), 0.01
        )
        info = ImageInfo(
            f"image_{number}", modality, "", "", Axis.PLANAR, None, "<b>$\\frac", str(number), False
        )
        turns = tuple(
            Turn(task, "What?", "That.", instance_ids=("a_0",)) for task in list(Task)[: number + 1]
        )
        dialogues.append(Dialogue(ImageRecord(info, (10, 10), (instance,)), turns, "test"))
    splits = {"train": dialogues[:2], "test": dialogues[2:]}
    publish(
        {split: [(each, None) for each in part] for split, part in splits.items()}, tmp_path / "a", "# A\n"
    )
    return tmp_path / "a"


@pytest.mark.slow
def test_figures_and_tables_are_written_and_written_alike(folder, tmp_path):
    paths = write_statistics(folder, tmp_path / "out")
    assert [path.name for path in paths] == ["stats.md", "stats.json", "turns.png", "box_areas.png"]
    assert sorted(paths) == sorted((tmp_path / "out").iterdir())
    assert json.loads(paths[1].read_text("utf-8")) == as_json(count_folder(folder))
    for path in paths[2:]:
        pixels = Image.open(path).convert("RGB")
        assert min(pixels.size) > 300
        assert len(pixels.getcolors(1_000_000) or []) > 20
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_statistics(folder, tmp_path / "out")] == before


def test_hostile_names_stay_text(folder, tmp_path):
    text = write_statistics(folder, tmp_path / "out")[0].read_text("utf-8")
    assert "<script>" not in text and "<b>" not in text
    assert r"\<script\>alert(1)\</script\> \| $x^ | 3 |" in text
