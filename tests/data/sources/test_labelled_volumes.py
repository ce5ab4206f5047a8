"""Volumes and label maps: when two files are on one grid, what values mean, and volumes with channels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest

from bird_hf.data.records import MaskedImage
from bird_hf.data.sources.faults import Drop
from bird_hf.data.sources.open import open_source

from .example_volumes import OBLIQUE, SHAPE, left_out, noise, read_all, two_blocks, write_volume

ABOUT = """
dataset: hospital
modality: ct
region: chest
labels: {1: left lung, 2: right lung}
exhaustive: true
"""


def source_of(folder: Path, labels: np.ndarray, affine: np.ndarray | None = OBLIQUE, about: str = ""):
    folder.mkdir(exist_ok=True)
    (folder / "labels.yaml").write_text(ABOUT + about)
    write_volume(folder / "images" / "p1.nii.gz", noise())
    write_volume(folder / "masks" / "p1.nii.gz", labels, affine)
    return open_source(folder)


def masks_of(images: dict[str, MaskedImage]) -> dict[str, list[tuple[str, bytes]]]:
    return {
        image_id: [(name, mask.tobytes()) for name, mask in image.masks] for image_id, image in images.items()
    }


def moved(voxels: float, axis: int = 2) -> np.ndarray:
    """The image's affine, shifted along one of its axes."""
    shift = np.eye(4)
    shift[axis, 3] = voxels
    return OBLIQUE @ shift


def turned(radians: float) -> np.ndarray:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]]
    return turn @ OBLIQUE


@pytest.mark.parametrize(
    "affine",
    [
        OBLIQUE,
        np.round(OBLIQUE, 3),  # headers are rounded
        moved(0.09),
        moved(-0.09, axis=0),
        turned(1e-3),  # 24 voxels away this is 0.02 of one
    ],
)
def test_a_label_map_within_a_tenth_of_a_voxel_is_on_the_grid(tmp_path: Path, affine: np.ndarray) -> None:
    exact, rounded = tmp_path / "exact", tmp_path / "rounded"
    expected = read_all(source_of(exact, two_blocks()))
    found = read_all(source_of(rounded, two_blocks(), affine))
    assert masks_of(found) == masks_of(expected) and len(found) == 8
    for image_id, image in found.items():
        assert np.array_equal(image.pixels, expected[image_id].pixels)


def test_a_label_map_in_another_order_of_voxels_is_on_the_grid(tmp_path: Path) -> None:
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1, SHAPE[0] - 1
    swapped = (OBLIQUE @ flip)[:, [1, 0, 2, 3]]
    turned_labels = np.ascontiguousarray(two_blocks()[::-1].transpose(1, 0, 2))
    found = read_all(source_of(tmp_path / "b", turned_labels, swapped))
    assert masks_of(found) == masks_of(read_all(source_of(tmp_path / "a", two_blocks())))


BROKEN_AFFINE = np.diag([1.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("affine", "shape", "reason", "says"),
    [
        (moved(0.2), SHAPE, Drop.GRID_MISMATCH, ("0.2 voxels (0.6 mm) apart", "`trust_shape: true`")),
        (moved(-1, axis=1), SHAPE, Drop.GRID_MISMATCH, ("1 voxels (0.9 mm) apart",)),
        (turned(0.05), SHAPE, Drop.GRID_MISMATCH, ("voxels (", "apart")),
        (np.eye(4), SHAPE, Drop.GRID_MISMATCH, ("identity as affine", "`trust_shape: true`")),
        (np.diag([-1.0, -1, 1, 1]), SHAPE, Drop.GRID_MISMATCH, ("identity as affine",)),  # as ITK writes it
        (None, SHAPE, Drop.GRID_MISMATCH, ("has no orientation", "`trust_shape: true`")),
        (BROKEN_AFFINE, SHAPE, Drop.GRID_MISMATCH, ("degenerate", "`trust_shape: true`")),
        (OBLIQUE, (20, 24, 11), Drop.SHAPE_MISMATCH, ("label map (20, 24, 11), image (20, 24, 12)",)),
        (None, (20, 24, 11), Drop.SHAPE_MISMATCH, ("label map (20, 24, 11), image (20, 24, 12)",)),
    ],
)
def test_another_grid_is_left_out_with_the_distance(tmp_path: Path, affine, shape, reason, says) -> None:
    item = left_out(source_of(tmp_path, two_blocks(shape), affine))["p1"]
    assert item.reason is reason and "\n" not in item.detail and str(tmp_path) not in item.detail
    for words in says:
        assert words in item.detail


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, -1, 1, 1]), None, moved(5), BROKEN_AFFINE])
def test_a_trusted_shape_takes_the_voxels_in_the_order_of_the_image(tmp_path: Path, affine) -> None:
    found = read_all(source_of(tmp_path / "b", two_blocks(), affine, "trust_shape: true\n"))
    assert masks_of(found) == masks_of(read_all(source_of(tmp_path / "a", two_blocks())))


def test_a_trusted_shape_must_be_the_shape_of_the_image(tmp_path: Path) -> None:
    source = source_of(tmp_path, two_blocks((24, 20, 12)), None, "trust_shape: true\n")
    assert left_out(source)["p1"].reason is Drop.SHAPE_MISMATCH


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16])
def test_nearly_whole_values_are_whole(tmp_path: Path, dtype) -> None:
    labels = two_blocks().astype(dtype)
    if np.dtype(dtype).kind == "f":
        labels[labels == 2] = 2.00003  # as a scaling in the header leaves it
    found = read_all(source_of(tmp_path / "b", labels))
    assert masks_of(found) == masks_of(read_all(source_of(tmp_path / "a", two_blocks())))


@pytest.mark.parametrize(
    ("value", "about"),
    [
        (-1, "ignore: [-1]\n"),  # ignored
        (255, "ignore: [255]\n"),
        (255, ""),  # without a name
        (-1, ""),
    ],
)
def test_nothing_is_absent_in_a_slice_with_a_value_that_is_no_label(tmp_path: Path, value, about) -> None:
    labels = two_blocks().astype(np.int16)
    labels[0, 0, 4] = value  # slice 4, which shows only the left lung, as slice 3 does
    found = read_all(source_of(tmp_path, labels, about=about))
    of_slice = {image.info.slice_index: image for image in found.values()}
    assert of_slice[3].absent == ("right lung",) and of_slice[4].absent == ()
    assert [name for name, _ in of_slice[4].masks] == ["left lung"]
    assert masks_of(found) == masks_of(read_all(source_of(tmp_path / "a", two_blocks())))


def values(**changed: float) -> np.ndarray:
    labels = two_blocks().astype(np.float32)
    for old, new in changed.items():
        labels[labels == float(old[1:])] = new
    return labels


@pytest.mark.parametrize(
    ("labels", "reason", "says"),
    [
        (values(_1=255, _2=255), Drop.UNKNOWN_VALUE, "values 0, 255; named 1, 2"),
        (values(_1=7, _2=-3), Drop.UNKNOWN_VALUE, "values -3, 0, 7; named 1, 2"),
        (values(_1=1.5), Drop.UNKNOWN_VALUE, "values 1.5; named 1, 2"),
        (values(_1=np.nan), Drop.UNKNOWN_VALUE, "values nan; named 1, 2"),
        (values(_1=1e12), Drop.UNKNOWN_VALUE, "values 9.999999959e+11; named 1, 2"),
        (values(_1=0, _2=0), Drop.EMPTY_MASK, "no voxel"),
    ],
)
def test_values_that_are_no_labels_are_left_out_with_what_was_found(tmp_path: Path, labels, reason, says):
    item = left_out(source_of(tmp_path, labels))["p1"]
    assert item.reason is reason and says in item.detail


def test_a_volume_of_ignored_values_alone_has_no_object(tmp_path: Path) -> None:
    item = left_out(source_of(tmp_path, values(_1=9, _2=9), about="ignore: [9]\n"))["p1"]
    assert item.reason is Drop.EMPTY_MASK


def film() -> np.ndarray:
    """(X, Y, Z, 3), each channel another picture."""
    return np.stack([noise(seed) for seed in range(3)], axis=-1)


def write_film(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "nii.gz":
        nib.save(nib.Nifti1Image(film(), OBLIQUE), path)
        return
    # NRRD: the axis of channels is the first (vectors) or the last (a list), and has no direction.
    voxels = np.moveaxis(film(), -1, 0) if kind == "first" else film()
    rows = [list(column) for column in (np.diag([-1, -1, 1]) @ OBLIQUE[:3, :3]).T]
    none = [np.nan] * 3
    header = {
        "space": "left-posterior-superior",
        "space directions": np.array([none, *rows] if kind == "first" else [*rows, none]),
        "space origin": np.diag([-1, -1, 1]) @ OBLIQUE[:3, 3],
        "kinds": ["vector", *["domain"] * 3] if kind == "first" else [*["domain"] * 3, "list"],
    }
    nrrd.write(str(path), voxels, header)


@pytest.mark.parametrize("kind", ["nii.gz", "first", "last"])
@pytest.mark.parametrize("channel", [0, 2, None, 3])
def test_one_channel_of_a_volume_with_a_fourth_axis(tmp_path: Path, kind: str, channel: int | None) -> None:
    about = "" if channel is None else f"channel: {channel}\n"
    (tmp_path / "labels.yaml").write_text(ABOUT + about)
    write_film(tmp_path / "images" / ("p1.nii.gz" if kind == "nii.gz" else "p1.nrrd"), kind)
    write_volume(tmp_path / "masks" / "p1.nii.gz", two_blocks())
    source = open_source(tmp_path)
    if channel in (None, 3):
        item = left_out(source)["p1"]
        assert item.reason is Drop.CHANNEL_UNKNOWN and "3" in item.detail and "20, 24, 12" in item.detail
        assert "`channel`, 0 to 2" in item.detail or "no channel 3" in item.detail
        return
    alone = tmp_path / "alone"
    (alone / "images").mkdir(parents=True)
    (alone / "labels.yaml").write_text(ABOUT)
    write_volume(alone / "images" / "p1.nii.gz", film()[..., channel])
    write_volume(alone / "masks" / "p1.nii.gz", two_blocks())
    expected = read_all(open_source(alone))
    for image_id, image in read_all(source).items():
        assert np.array_equal(image.pixels, expected[image_id].pixels)


def test_a_label_map_with_a_fourth_axis_is_left_out_by_name(tmp_path: Path) -> None:
    item = left_out(source_of(tmp_path, np.stack([two_blocks()] * 2, axis=-1)))["p1"]
    assert item.reason is Drop.UNREADABLE_MASK and "fourth axis" in item.detail


def test_label_maps_with_a_suffix_in_their_own_folder(tmp_path: Path) -> None:
    plain, suffixed = tmp_path / "plain", tmp_path / "suffixed"
    expected = read_all(source_of(plain, two_blocks()))
    source_of(suffixed, two_blocks())
    (suffixed / "masks" / "p1.nii.gz").rename(suffixed / "masks" / "p1_seg.nii.gz")
    assert masks_of(read_all(open_source(suffixed))) == masks_of(expected)


def test_two_files_of_one_name_are_left_out(tmp_path: Path) -> None:
    source = source_of(tmp_path, two_blocks())
    write_volume(tmp_path / "images" / "p1.nii", noise(1))
    item = left_out(source)["p1"]
    assert item.reason is Drop.DUPLICATE_ID and item.detail == "images/p1.nii, images/p1.nii.gz"


def test_label_maps_without_names_are_refused(tmp_path: Path) -> None:
    source_of(tmp_path, two_blocks())
    (tmp_path / "labels.yaml").write_text("dataset: a\nmodality: ct\nregion: chest\n")
    with pytest.raises(ValueError, match="have no names; give `labels`"):
        open_source(tmp_path)


def test_a_slice_that_cannot_be_displayed_is_left_out_and_stops_nothing(tmp_path: Path) -> None:
    source = source_of(tmp_path, two_blocks(), np.diag([1e-3, 1, 1, 1]))
    write_volume(tmp_path / "images" / "p1.nii.gz", noise(), np.diag([1e-3, 1, 1, 1]))
    item = left_out(source)["p1"]
    assert item.reason is Drop.UNREADABLE_IMAGE and "check the voxel spacing" in item.detail
