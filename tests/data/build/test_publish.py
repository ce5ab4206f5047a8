"""The published folder: its rows, boxes and pixels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.build.publish import drop_table, image_table
from bird_hf.data.build.publish import published as published_manifest
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import read

from .example_builds import SETTINGS, SIDE


def test_rows_are_of_all_tasks_and_every_box_is_an_objects(built: Path) -> None:
    for task in Task:
        for split in ("train", "test"):
            rows = open_folder(built, task.value, split)
            assert len(rows) == json.loads((built / "manifest.json").read_text())["rows"][task][split]
            for row in rows:
                known = {Box(*item["box"]).to_thousandths() for item in row["objects"] if item["present"]}
                for message in row["messages"]:
                    assert {box.to_thousandths() for box in read(message["content"]).boxes} <= known
                assert row["image"].size == tuple(row["image_wh"]) and row["synthetic"] and row["caption"]
                assert row["region"] and row["dataset"].startswith("phantom_")


def test_without_pixels_rows_hold_none(source: Path, built: Path, tmp_path: Path) -> None:
    build(source, tmp_path, BuildSettings(seed=3, pixels=False), 1)
    table = pq.read_table(min(tmp_path.glob("data/chat/train-*")))
    assert table["image"].null_count == len(table)


def test_real_pixels_of_sa_med2d_are_never_copied(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for seed in range(4):
        phantom = draw_phantom(Modality.CT, seed, SIDE)
        stem = f"ct_00--LIDC--{seed:04d}--x_0001"
        Image.fromarray(phantom.pixels).save(folder / "images" / f"{stem}.png")
        mask = phantom.masks[0][1].astype(np.uint8) * 255
        Image.fromarray(mask).save(folder / "masks" / f"{stem}--0001_000.png")
    (folder / "SAMed2D_v1_class_mapping_id.json").write_text('{"LIDC": {"liver": "0001"}}')
    build(folder, tmp_path / "out", SETTINGS, 1)
    table = pq.read_table(min((tmp_path / "out").glob("data/vg/train-*")))
    assert table["image"].null_count == len(table)
    assert not any(table["synthetic"].to_pylist())


def test_the_hashes_of_the_manifest_are_those_of_the_files(built: Path) -> None:
    files = json.loads((built / "manifest.json").read_text())["files"]
    found = {str(path.relative_to(built)): path.read_bytes() for path in built.rglob("data/*/*.parquet")}
    assert files == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def test_a_dataset_is_published_only_if_it_is_whole(built: Path, tmp_path: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    assert published_manifest(built) == manifest
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert published_manifest(tmp_path) is None


def test_no_dataset_name_can_break_a_table() -> None:
    manifest = {"images": {"x_ray": {"a|b": {"train": 1200}}}, "dropped": {}}
    assert image_table(manifest).splitlines()[2] == "| x_ray | a\\|b | 1,200 | 0 |"
    assert drop_table(manifest).splitlines()[2] == "| nothing | 0 |"
