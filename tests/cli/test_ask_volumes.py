"""`bird ask` about slices of volumes and turned photographs: options, the line and the JSON that say what is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

Bird = Callable[..., Any]


@pytest.fixture
def raw_answer() -> str:
    return "The <ref>liver</ref><box>(200,250),(400,1000)</box>."


@pytest.fixture
def volume(tmp_path: Path) -> str:
    """A file of 40 x 20 x 9 voxels, 1 x 1 x 2.5 mm, whose first axis grows to the patient's left."""
    voxels = np.random.default_rng(0).integers(0, 500, (40, 20, 9)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, 1, 2.5, 1])), tmp_path / "scan.nii.gz")
    return "scan.nii.gz"


def test_the_slice_is_said_and_boxes_are_in_its_pixels(
    bird: Bird, volume: str, asked: list[Any], tiny_checkpoint: Path
) -> None:
    ran = bird("ask", volume, "Where?", "--slice", "axial:2", "--window", "bone", "--model", tiny_checkpoint)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "The liver.\n  liver: 8,5,16,20\n"
        "  shown: axial slice 2 of 0 to 8, window bone (level 400, width 1800)\n"
    )
    assert asked[0].image.size == (40, 20)


def test_json_says_what_is_shown_in_millimetres_and_in_voxels_of_the_file(
    bird: Bird, volume: str, asked: list[Any], tiny_checkpoint: Path
) -> None:
    options = ["--slice", "coronal:7", "--window", "250,500", "--box", "10,5,20,20", "--json"]
    ran = bird("ask", volume, "What is this?", *options, "--model", tiny_checkpoint)
    document = json.loads(ran.out)
    assert document["shown"] == {
        "note": "coronal slice 7 of 0 to 19, window level 250, width 500",
        "axis": "coronal",
        "slice": 7,
        "slices": 20,
        "window": [250, 500],
        "pixel_mm": [1, pytest.approx(22.5 / 22)],  # 9 slices of 2.5 mm are shown in 22 pixels
    }
    assert (document["image"], document["image_wh"]) == (volume, [40, 22])
    # The box of the question comes back as the model reads it, in thousandths of the picture.
    assert document["question_boxes_px"] == [pytest.approx([10, 5, 20, 20], abs=0.02)]
    # A picture shows the patient's right on its left, where this file begins; the head is up, where the file ends.
    assert document["question_boxes_voxel"] == [[[10, 7, 1], [20, 8, 7]]]
    assert document["question_boxes_mm"] == [pytest.approx([10, 5 * 22.5 / 22, 20, 20 * 22.5 / 22], abs=0.02)]
    (span,) = document["spans"]
    assert span["boxes_px"] == [[8, 5.5, 16, 22]]
    assert span["boxes_voxel"] == [[[8, 7, 0], [16, 8, 7]]]
    assert span["boxes_mm"] == [[8, pytest.approx(5.625), 16, pytest.approx(22.5)]]


def test_a_box_on_a_turned_photograph_is_in_upright_pixels_and_the_output_says_so(
    bird: Bird, asked: list[Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "photo.jpg", exif=exif)
    words = ["ask", "photo.jpg", "What is this?", "--box", "0,20,10,40", "--model", tiny_checkpoint]
    note = "EXIF orientation 6 is applied; boxes are in pixels of the upright picture, 20x40"
    assert f"  shown: {note}\n" in bird(*words).out
    assert asked[0].question == "What is <ref>this</ref><box>(0,500),(500,1000)</box>?"
    document = json.loads(bird(*words, "--json").out)
    assert (document["shown"], document["image_wh"]) == ({"note": note}, [20, 40])
    assert "boxes_mm" not in document["spans"][0]


def test_several_questions_about_a_slice_share_its_picture(
    bird: Bird, volume: str, asked: list[Any], tiny_checkpoint: Path
) -> None:
    ran = bird("ask", volume, "Where?", "--question", "What?", "--slice", "3", "--model", tiny_checkpoint)
    assert asked[0].image is asked[1].image
    assert ran.out.count("  shown: axial slice 3 of 0 to 8") == 2


@pytest.mark.parametrize(
    ("image", "options", "fragments"),
    [
        ("scan.nii.gz", ["--slice", "axial:9"], ["scan.nii.gz: axial slice 9 is outside 0 to 8"]),
        ("scan.nii.gz", ["--slice", "axail:3"], ["--slice 'axail:3' is not AXIS:NUMBER, such as axial:72"]),
        ("scan.nii.gz", ["--frame", "1"], ["is one volume", "--frame is for", "use --slice"]),
        ("scan.nii.gz", ["--window", "lungs"], ["'lungs' is unknown", "soft tissue"]),
        ("scan.nii.gz", ["--window", "40,0"], ["window 40,0 is not LEVEL,WIDTH"]),
        ("scan.nii.gz", ["--box", "0,0,41,20"], ["x2=41.0", "pixels of a 40x20 image"]),
        ("image.png", ["--slice", "3"], ["image image.png is one picture", "--slice is for volumes"]),
        ("image.png", ["--frame", "0"], ["image image.png is one picture", "--frame is for volumes"]),
        ("image.png", ["--window", "lung"], ["image image.png is one picture", "--window is for volumes"]),
        ("nowhere.nii", [], ["nowhere.nii cannot be opened", "check the path"]),
    ],
)
def test_views_that_a_file_does_not_have_are_refused(
    bird: Bird,
    volume: str,
    image: str,
    asked: list[Any],
    tiny_checkpoint: Path,
    options: list[str],
    fragments: list[str],
    assert_refused: Bird,
    tmp_path: Path,
) -> None:
    Image.new("L", (40, 20)).save(tmp_path / "image.png")
    assert_refused(bird("ask", image, "Where?", *options, "--model", tiny_checkpoint), *fragments)
    assert not asked
