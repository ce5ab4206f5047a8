"""TotalSegmentator's dataset: a binary mask a structure, read with bounded memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.records import Axis
from bird_hf.data.sources.faults import Drop
from bird_hf.data.sources.open import open_source
from bird_hf.data.sources.volume_layouts import total_segmentator
from bird_hf.data.volumes import Volume, label_slice_at

from ..example_volumes import (
    OBLIQUE,
    SHAPE,
    built_labels,
    left_out,
    noise,
    read_all,
    two_blocks,
    write_volume,
)


def block(*spans: tuple[int, int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    if spans:
        mask[tuple(slice(*span) for span in spans)] = 1
    return mask


MASKS = {
    "kidney_left": block((2, 8), (5, 20), (3, 9)),
    "liver": block((5, 17), (3, 9), (5, 11)),  # overlaps the kidney
    "rib_left_4": block((12, 15), (14, 18), (2, 5)),
    "spleen": block(),
}


def dataset(folder: Path, cases: dict[str, str], about: str = "") -> Path:
    """cases: folder -> `ct` or `mri`."""
    folder.mkdir(exist_ok=True)
    (folder / "meta.csv").write_text("image_id;age\ns0000;57\n")
    if about:
        (folder / "labels.yaml").write_text(about)
    for seed, (case, image) in enumerate(cases.items()):
        write_volume(folder / case / f"{image}.nii.gz", noise(seed))
        for name, mask in MASKS.items():
            write_volume(folder / case / "segmentations" / f"{name}.nii.gz", mask)
    return folder


def test_masks_stay_apart_and_are_named_by_their_files(tmp_path: Path) -> None:
    source = open_source(dataset(tmp_path / "total", {"s0000": "ct", "s0001": "mri"}))
    found = read_all(source)
    assert source.kind == "TotalSegmentator" and len(found) == 2 * 9
    image = found["ct_00--total--s0000--z_0006"]
    kidney, liver = image.masks
    assert (kidney[0], liver[0]) == ("left kidney", "liver") and (kidney[1] & liver[1]).any()
    assert image.absent == () and image.info.case_id == "total/s0000" and image.info.region == "abdomen"
    assert [name for name, _ in found["mr_00--total--s0001--z_0002"].masks] == ["left rib 4"]


def test_total_segmentator_is_built(tmp_path: Path) -> None:
    source = dataset(tmp_path / "total", {"s0000": "ct", "s0001": "ct"})
    found = built_labels(source, tmp_path / "out")
    assert found == {f"total/s000{number}": {"left kidney", "liver", "left rib 4"} for number in (0, 1)}


ADDED = "exhaustive: true\naxes: [axial, coronal, sagittal]\nlesions: [liver]\nwindow: bone\nregion: body\n"


def test_a_description_beside_it_counts_more(tmp_path: Path) -> None:
    found = read_all(open_source(dataset(tmp_path / "total", {"s0000": "ct"}, ADDED)))
    image = found["ct_00--total--s0000--z_0010"]
    assert {*image.absent} == {"left kidney", "left rib 4", "spleen"} and image.info.region == "body"
    assert {image.info.axis for image in found.values()} == {Axis.AXIAL, Axis.CORONAL, Axis.SAGITTAL}


@pytest.mark.parametrize("axis", [Axis.AXIAL, Axis.CORONAL, Axis.SAGITTAL])
def test_a_packed_mask_is_displayed_as_the_whole_one(axis: Axis) -> None:
    mask = two_blocks() > 0
    volume = Volume(mask, (0.8, 0.9, 3.0), OBLIQUE)
    packed = total_segmentator._PackedMask.of(mask)
    shown = []
    for index in range(SHAPE[{Axis.SAGITTAL: 0, Axis.CORONAL: 1, Axis.AXIAL: 2}[axis]]):
        expected = label_slice_at(volume, axis, index)
        assert np.array_equal(packed.displayed(volume, axis, index), expected)
        shown += [index] if expected.any() else []
    assert packed.slices(axis) == shown


def broken(folder: Path, kind: str) -> None:
    masks = folder / "s0000" / "segmentations"
    if kind == "both":
        write_volume(folder / "s0000" / "mri.nii.gz", noise())
    elif kind == "grid":
        write_volume(masks / "liver.nii.gz", MASKS["liver"], np.eye(4))
    elif kind == "shape":
        write_volume(masks / "liver.nii.gz", block((1, 3), (1, 3), (1, 3), shape=(20, 24, 11)))
    elif kind == "values":
        write_volume(masks / "liver.nii.gz", MASKS["liver"] * 2 + MASKS["kidney_left"])
    elif kind == "damaged":
        (masks / "liver.nii.gz").write_bytes(b"no volume")
    elif kind == "unnamed":
        write_volume(masks / "class7.nii.gz", MASKS["liver"])
    elif kind == "twice":
        write_volume(masks / "Kidney_L.nii.gz", MASKS["liver"])
    elif kind == "empty":
        for path in masks.iterdir():
            write_volume(path, block())
    elif kind == "none":
        for path in masks.iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("kind", "reason", "says"),
    [
        ("both", Drop.CHANNEL_UNKNOWN, "ct and mri"),
        ("grid", Drop.GRID_MISMATCH, "liver.nii.gz: label map and image are up to"),
        ("shape", Drop.SHAPE_MISMATCH, "liver.nii.gz: label map (20, 24, 11), image (20, 24, 12)"),
        ("values", Drop.NOT_BINARY, "liver.nii.gz: values 0, 1, 2, 3"),
        ("damaged", Drop.UNREADABLE_MASK, "s0000/segmentations/liver.nii.gz"),
        ("unnamed", Drop.UNNAMED_CLASS, "class7"),
        ("twice", Drop.DUPLICATE_ID, "left kidney"),
        ("empty", Drop.EMPTY_MASK, "no mask has a voxel"),
        ("none", Drop.NO_MASKS, "segmentations"),
    ],
)
def test_a_faulty_case_is_left_out_by_name(tmp_path: Path, kind: str, reason: Drop, says: str) -> None:
    folder = dataset(tmp_path, {"s0000": "ct"})
    broken(folder, kind)
    item = left_out(open_source(folder))["s0000"]
    assert item.reason is reason and says in item.detail and str(tmp_path) not in item.detail


@pytest.mark.parametrize("field", ["labels: {1: liver}", "channel: 1"])
def test_a_field_without_a_meaning_is_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(ValueError, match="has no meaning in TotalSegmentator"):
        open_source(dataset(tmp_path, {"s0000": "ct"}, field))


def test_memory_holds_the_image_and_a_few_masks_whatever_their_number(tmp_path: Path, monkeypatch) -> None:
    shape = (64, 64, 64)
    write_volume(tmp_path / "s0000" / "ct.nii.gz", noise(0, shape))
    rng = np.random.default_rng(0)
    for number in range(24):  # noise in every voxel, so that each packed mask has 32 KB
        mask = (rng.random(shape) < 0.5).astype(np.uint8)
        write_volume(tmp_path / "s0000" / "segmentations" / f"muscle {number:02d}.nii.gz", mask)
    monkeypatch.setattr(total_segmentator, "_KEPT_BYTES", 2**17)
    source = open_source(tmp_path)
    next(iter(source.listed()))  # imports the reader's library
    tracemalloc.start()
    items = [*open_source(tmp_path).listed()]
    image = source.read(items[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(items) == 64 and len(image.masks) == 24
    # Two images (the two sources) of 0.5 MB, the one that is read, and a mask with its copies: not 24 of 0.25 MB.
    assert peak < 4 * 2**20
