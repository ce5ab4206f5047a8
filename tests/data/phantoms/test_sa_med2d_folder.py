"""Phantoms in SA-Med2D's layout: names, tables and masks fit each other, and what is somebody's stays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.phantoms import PHANTOM_LABELS, draw_phantom
from bird_hf.data.phantoms.sa_med2d_folder import write_folder, write_phantoms
from bird_hf.data.records import CLASSES_TABLE, IMAGES_TABLE, Modality

COUNT, SEED, SIDE = 2, 7, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sa_med2d") / "phantoms"
    assert write_phantoms(out, COUNT, SEED, SIDE) == (
        COUNT * len(Modality),
        sum(len(phantom.masks) for phantom in drawn()),
    )
    return out


def drawn():  # type: ignore[no-untyped-def]
    return [draw_phantom(modality, SEED + number, SIDE) for modality in Modality for number in range(COUNT)]


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_folder_holds_images_masks_and_two_tables(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"images", "masks", IMAGES_TABLE, CLASSES_TABLE}
    assert [path.name for path in folder.parent.iterdir()] == ["phantoms"]  # nothing is left beside it


def test_the_table_lists_every_file_once(folder: Path) -> None:
    table = read_json(folder / IMAGES_TABLE)
    masks = [mask for masks in table.values() for mask in masks]
    assert len({*masks}) == len(masks)
    found = {str(path.relative_to(folder)) for path in folder.glob("*/*")}
    assert {*table, *masks} == found


def test_class_ids_count_from_0_in_the_order_of_the_labels(folder: Path) -> None:
    assert read_json(folder / CLASSES_TABLE) == {
        f"phantom_{modality}": {
            label: f"{number:04d}" for number, label in enumerate(PHANTOM_LABELS[modality])
        }
        for modality in Modality
    }


def test_names_parse_from_the_right(folder: Path) -> None:
    classes = read_json(folder / CLASSES_TABLE)
    for image, masks in read_json(folder / IMAGES_TABLE).items():
        prefix, dataset, original, plane = Path(image).stem.rsplit("--", 3)
        assert dataset.startswith("phantom_") and original.startswith("case")
        assert any(prefix == name or prefix.startswith(f"{name}_") for name in Modality)
        axis, index = plane.split("_")
        assert (axis in {"x", "y", "z"} and index.isdigit()) or (axis, index) == ("2d", "none")
        seen: dict[str, int] = {}
        for mask in masks:
            image_stem, ids = Path(mask).stem.rsplit("--", 1)
            class_id, instance = ids.split("_")
            assert image_stem == Path(image).stem
            assert class_id in classes[dataset].values()
            assert instance == f"{seen.setdefault(class_id, 0):03d}"  # instances of a class count from 0
            seen[class_id] += 1


def test_images_and_masks_read_back_as_they_were_drawn(folder: Path) -> None:
    table, classes = read_json(folder / IMAGES_TABLE), read_json(folder / CLASSES_TABLE)
    for phantom in drawn():
        image = f"images/{phantom.info.image_id}.png"
        assert np.array_equal(np.asarray(Image.open(folder / image)), phantom.pixels)
        assert len(table[image]) == len(phantom.masks)
        for name, (label, mask) in zip(table[image], phantom.masks, strict=True):
            stored = Image.open(folder / name)
            assert stored.mode == "L"
            assert {*np.unique(np.asarray(stored))} <= {0, 255}
            assert np.array_equal(np.asarray(stored) > 0, mask)
            assert f"--{classes[phantom.info.dataset][label]}_" in name


def tiny(out: Path, seed: int = 0) -> tuple[int, int]:
    phantom = draw_phantom(Modality.CT, seed, SIDE)
    return write_folder(out, [phantom], {phantom.info.dataset: PHANTOM_LABELS[Modality.CT]})


def test_a_second_run_replaces_the_first_and_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tiny(out)
    first = {path.name for path in out.glob("images/*")}
    (out / "notes.txt").write_text("mine")
    tiny(out, seed=1)
    assert (out / "notes.txt").read_text() == "mine"
    assert len([*out.glob("images/*")]) == 1
    assert not first & {path.name for path in out.glob("images/*")}


def test_what_an_interrupted_run_left_is_not_published(tmp_path: Path) -> None:
    left = tmp_path / ".out.making" / "images"
    left.mkdir(parents=True)
    (left / "stale.png").touch()
    tiny(tmp_path / "out")
    assert not (tmp_path / "out" / "images" / "stale.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["images/ct_00--LIDC--0001--x_0001.png", "masks/photo.png"])
def test_somebody_elses_pictures_are_never_replaced(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    with pytest.raises(ValueError, match=r"pictures of another dataset, such as .*; give another folder"):
        tiny(tmp_path / "out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]
