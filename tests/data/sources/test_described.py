"""Your own images: label maps, volumes, and what `labels.yaml` may say."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bird_hf.data.sources.description import read_description
from bird_hf.data.sources.faults import Drop
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
