"""Your own images: label maps, volumes, and what `labels.yaml` may say."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bird_hf.data.records import MaskedImage
from bird_hf.data.sources.description import Description, read_description
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.label_maps import named_values
from bird_hf.data.sources.open import open_source

from .example_sources import NOISE, SIDE, listed, save

ABOUT = """
dataset: hospital
modality: ct
region: chest
labels: {1: left lung, 2: Lung_R, 5: nodule}
exhaustive: true
lesions: [nodule]
patient: "^(p[0-9]+)"
"""


def label_map() -> np.ndarray:
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[10:40, 5:25] = 1
    values[12:15, 8:12] = values[30:34, 8:12] = 5
    return values


def test_images_with_label_maps(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text(ABOUT)
    save(tmp_path / "images" / "p01_a.png", NOISE)
    save(tmp_path / "masks" / "p01_a.png", label_map())
    save(tmp_path / "images" / "p02.png", NOISE)
    source = open_source(tmp_path)
    candidates, left_out = listed(source)
    assert left_out == {"p02": Drop.NO_MASKS}
    [(image_id, candidate)] = candidates.items()
    assert image_id == "ct_00--hospital--p01_a--2d_none" and candidate.info.case_id == "hospital/p01"
    image = source.read(candidate)
    assert [label for label, _ in image.masks] == ["left lung", "nodule", "nodule"]
    assert image.absent == ("right lung",)


def test_volumes_with_label_maps(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text(ABOUT + "axes: [axial, coronal]\n")
    rng = np.random.default_rng(0)
    voxels = rng.integers(-900, 900, (20, 24, 12)).astype(np.int16)
    labels = np.zeros(voxels.shape, np.uint8)
    labels[2:8, 5:20, 3:9] = 1
    for folder, array in (("images", voxels), ("masks", labels)):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(array, np.diag([2, 2, 2, 1])), tmp_path / folder / "p07_ct.nii.gz")
    source = open_source(tmp_path)
    candidates, left_out = listed(source)
    assert not left_out and len(candidates) == 6 + 15  # slices that show a label
    image = source.read(candidates["ct_00--hospital--p07_ct--z_0004"])
    assert image.info.case_id == "hospital/p07"
    [(label, mask)] = image.masks
    assert label == "left lung" and mask.sum() == 6 * 15
    assert image.absent == ("right lung", "nodule")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "must have dataset, modality and region"),
        ("dataset: a", "must have dataset, modality and region"),
        (ABOUT + "colour: red", "its fields can be"),
        (
            ABOUT.replace("ct", "xray"),
            "'xray' is not a valid Modality; use one of ct, mr, x_ray, pet, endoscopy, ",
        ),
        (ABOUT.replace("hospital", "../x"), "must be a plain name"),
        (ABOUT.replace("Lung_R", "class2"), "unnamed_class"),
        (ABOUT + "window: skin", "window must be one of"),
        (ABOUT + "axes: [2d]", "axes must be of"),
        (ABOUT + "axes: [oblique]", "'oblique' is not a valid Axis; use one of axial, coronal, sagittal, 2d"),
        (ABOUT + "detail: ../t1", "must be letters and digits"),
        (ABOUT.replace("true", "'no'"), "must be true or false"),
        (ABOUT.replace("[0-9]+)", "("), "labels.yaml"),
        ("{", "is not valid YAML"),
    ],
)
def test_an_invalid_description_is_refused_with_its_field(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "labels.yaml").write_text(text)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=says) as caught:
        open_source(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spelt", "modality"), [("CT", "ct"), ("X-ray", "x_ray"), ("MR", "mr"), ("Fundus", "fundus")]
)
def test_the_case_of_a_modality_does_not_count(tmp_path: Path, spelt: str, modality: str) -> None:
    (tmp_path / "labels.yaml").write_text(ABOUT.replace("modality: ct", f"modality: {spelt}"))
    assert read_description(tmp_path / "labels.yaml").modality == modality


# --- values of label maps -------------------------------------------------------------------------------------

ALL_LABELS = ("left lung", "right lung", "nodule")


def with_mask(root: Path, values: np.ndarray, more: str = "", ending: str = "png") -> Path:
    (root / "labels.yaml").write_text(ABOUT + more)
    save(root / "images" / "p01.png", NOISE)
    save(root / "masks" / f"p01.{ending}", values)
    return root


def read_only(root: Path) -> MaskedImage:
    source = open_source(root)
    [candidate] = listed(source)[0].values()
    return source.read(candidate)


def bands(*values: float, dtype: str = "uint8") -> np.ndarray:
    """A label map with a band of each value."""
    array = np.zeros((SIDE, SIDE), dtype)
    for number, value in enumerate(values):
        array[4 + 10 * number : 10 + 10 * number, 5:50] = value
    return array


@pytest.mark.parametrize(
    ("values", "more", "absent"),
    [
        (bands(1), "", ("right lung", "nodule")),
        (bands(), "", ALL_LABELS),  # background only
        (bands(1, 255), "", ()),  # 255 has no name: it may be a nodule
        (bands(1, 255), "ignore: [255]", ()),
        (bands(1, 3), "ignore: [255]", ()),  # an annotator's mistake
        (bands(255), "ignore: [255]", ()),  # nothing else
        (bands(1.0004, 0.9996, dtype="float32"), "", ("right lung", "nodule")),
        (bands(2.00003, dtype="float32"), "", ("left lung", "nodule")),
        (bands(1, -1, dtype="int32"), "ignore: [-1]", ()),
        (bands(1, -1, dtype="int32"), "", ()),
        (bands(1, 70_000, dtype="int32"), "", ()),
        (bands(1, -1, dtype="float32"), "ignore: [-1]", ()),
        (bands(1, 2**16 - 1, dtype="uint16"), "", ()),
    ],
)
def test_a_value_without_a_name_makes_nothing_absent(
    tmp_path: Path, values: np.ndarray, more: str, absent: tuple[str, ...]
) -> None:
    image = read_only(with_mask(tmp_path, values, more, "tif" if values.dtype.itemsize == 4 else "png"))
    assert image.absent == absent
    assert {label for label, _ in image.masks} <= {"left lung", "right lung"}
    near = np.abs(values - 1.0) < 0.01
    assert sum(mask.sum() for label, mask in image.masks if label == "left lung") == near.sum()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (bands(255), "values 0, 255; named 1, 2, 5"),  # 0/255 for 0/1
        (bands(128, 255), "values 0, 128, 255; named 1, 2, 5"),
        (bands(*range(60, 66)), "values 0, 60, 61, 62, 63 and 2 more; named 1, 2, 5"),
        (bands(1, 1.5, dtype="float32"), "values 1.5; named 1, 2, 5"),
        (bands(1, 2.01, dtype="float32"), "values 2.01"),
        (bands(1, np.nan, dtype="float32"), "values nan; named 1, 2, 5"),
        (bands(1, np.inf, dtype="float32"), "values inf; named 1, 2, 5"),
        (bands(-1, dtype="int32"), "values -1, 0; named 1, 2, 5"),
        (np.stack([bands(1, 200), bands(2), bands(5)], axis=-1), "a mask in colour: colours #000000, #"),
    ],
)
def test_values_that_are_no_labels_are_left_out_and_named(
    tmp_path: Path, values: np.ndarray, says: str
) -> None:
    ending = "tif" if values.dtype.itemsize == 4 else "png"
    with pytest.raises(FaultyImageError) as caught:
        read_only(with_mask(tmp_path, values, ending=ending))
    assert caught.value.reason is Drop.UNKNOWN_VALUE
    detail = caught.value.detail
    assert says[:-1] in detail and detail.endswith("named 1, 2, 5") and "\n" not in detail


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_a_lossy_mask_is_left_out_with_a_sentence(tmp_path: Path, ending: str) -> None:
    with pytest.raises(FaultyImageError, match="a format that changes values; save it as PNG") as caught:
        read_only(with_mask(tmp_path, bands(1, 2, 5), ending=ending))
    assert caught.value.reason is Drop.UNKNOWN_VALUE and caught.value.detail.endswith("named 1, 2, 5")


def test_an_array_file_is_no_mask(tmp_path: Path) -> None:
    with_mask(tmp_path, bands(1))
    (tmp_path / "masks" / "p01.png").unlink()
    np.save(tmp_path / "masks" / "p01.npy", bands(1))
    assert listed(open_source(tmp_path)) == ({}, {"p01": Drop.NO_MASKS})


def test_values_are_checked_in_arrays_of_any_size(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text(ABOUT)
    about = read_description(tmp_path / "labels.yaml")
    volume = np.zeros((300, 160, 100), np.float32)  # more than one block of values
    volume[2], volume[290], volume[299] = 1.0002, 5, 9
    whole, unknown = named_values(volume, about)
    assert unknown == (9,) and whole.dtype == np.int32
    assert [*np.unique(whole)] == [0, 1, 5, 9]
    volume[299, 0, 0] = 0.5
    with pytest.raises(FaultyImageError, match=r"values 0.5; named 1, 2, 5"):
        named_values(volume, about)


def test_grey_values_are_not_kept_as_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text(ABOUT)
    about: Description = read_description(tmp_path / "labels.yaml")
    with pytest.raises(FaultyImageError, match=r"values 0, 1, 2, 3, 4 and [0-9,]+ more; named"):
        named_values(np.arange(200_000, dtype=np.int64).reshape(400, 500), about)


def test_a_fragment_drops_the_image_or_its_object_alone(tmp_path: Path) -> None:
    values = bands(1)
    values[60, 60] = 2
    with pytest.raises(FaultyImageError) as caught:
        read_only(with_mask(tmp_path, values))
    assert caught.value.reason is Drop.FRAGMENT and caught.value.detail == "right lung"
    image = read_only(with_mask(tmp_path, values, "faulty: drop_object"))
    assert [label for label, _ in image.masks] == ["left lung"] and image.absent == ("nodule",)


def test_label_maps_without_labels_are_refused(tmp_path: Path) -> None:
    with_mask(tmp_path, bands(1))
    (tmp_path / "labels.yaml").write_text("dataset: a\nmodality: ct\nregion: chest\n")
    with pytest.raises(ValueError, match="has no labels; name the values of the label maps"):
        open_source(tmp_path)
