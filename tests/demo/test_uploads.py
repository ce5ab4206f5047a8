"""Uploads of volumes and photographs: which slice is shown, and where the boxes of answers lie in the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from bird_hf.demo.callbacks import Callbacks, Upload
from bird_hf.demo.page import build_page

from .page_content import NO_ANSWER, callbacks, downloads_of, words

pytestmark = pytest.mark.slow

SHAPE = (20, 30, 12)


def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)


@pytest.fixture
def volume(tmp_path: Path) -> str:
    """A volume in RAS+ order, of 1 x 1 x 2 mm."""
    path = tmp_path / "volume.nii.gz"
    nib.save(nib.Nifti1Image(voxels(), np.diag([1.0, 1, 2, 1])), path)
    return str(path)


def received(path: str | Path) -> tuple[Image.Image, Upload]:
    """What the page stores of an upload that can be read."""
    *start, picture, message, answer, upload = callbacks().receive(str(path))
    assert (start, (message, answer)) == ([None, None, ""], NO_ANSWER)
    return picture, upload


def shown_by(page: Callbacks, upload: Upload | None) -> list[dict[str, Any]]:
    """The updates of plane, number, note and window, without what only gradio reads."""
    updates = [*page.controls(upload), page.window_choice(upload)]
    return [{key: value for key, value in each.items() if key != "__type__"} for each in updates]


def test_a_volume_is_shown_at_its_middle_slice(volume: str) -> None:
    picture, upload = received(volume)
    plane, number, note, window = shown_by(callbacks(), upload)
    assert picture.size == (20, 30)
    assert plane == {"visible": True, "value": "axial"}
    assert number == {"visible": True, "label": "Slice", "minimum": 0, "maximum": 11, "value": 6}
    assert note["visible"] and note["value"].startswith("axial slice 6 of 0 to 11, window level")
    assert window == {"visible": True, "value": "default"}


def test_a_picture_and_an_example_have_nothing_to_choose(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    _, upload = received(tmp_path / "a.png")
    assert shown_by(callbacks(), upload) == shown_by(callbacks(), None)
    assert not any(each["visible"] for each in shown_by(callbacks(), None))


def test_a_turned_photograph_says_in_which_pixels_its_boxes_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    picture, upload = received(tmp_path / "a.jpg")
    assert picture.size == (20, 30)
    note = shown_by(callbacks(), upload)[2]
    assert note["visible"] and "EXIF orientation 6" in note["value"] and "20x30" in note["value"]


@pytest.mark.parametrize(
    ("plane", "number", "window", "size", "note"),
    [
        ("axial", 3, "default", (20, 30), "axial slice 3 of 0 to 11, window level"),
        ("axial", 3.0, "lung", (20, 30), "axial slice 3 of 0 to 11, window lung (level -600, width 1500)"),
        ("coronal", 0, "bone", (20, 24), "coronal slice 0 of 0 to 29, window bone (level 400, width 1800)"),
        ("sagittal", None, "default", (30, 24), "sagittal slice 10 of 0 to 19"),  # the middle one
    ],
)
def test_a_slice_and_a_window_are_chosen(
    volume: str, plane: str, number: float | None, window: str, size: tuple[int, int], note: str
) -> None:
    _, upload = received(volume)
    box, picture, message, answer, turned = callbacks().turn(upload, plane, number, window)
    assert (box, (message, answer), picture.size) == ("", NO_ANSWER, size)
    assert turned.path == volume and turned.shown.note.startswith(note)


def test_another_plane_starts_at_its_middle_slice(volume: str) -> None:
    _, upload = received(volume)
    *_, turned = callbacks().turn_plane(upload, "coronal", "default")
    assert shown_by(callbacks(), turned)[:2] == [
        {"visible": True, "value": "coronal"},
        {"visible": True, "label": "Slice", "minimum": 0, "maximum": 29, "value": 15},
    ]


@pytest.mark.parametrize(
    ("plane", "number", "window", "complaint"),
    [
        ("axial", 12, "default", "the image: axial slice 12 is outside 0 to 11"),
        ("axial", -1, "default", "outside 0 to 11"),
        ("oblique", 0, "default", "not a valid Axis"),
        ("2d", 0, "default", "not a plane of a volume"),
        ("axial", 0, "<b>", "CT window &#x27;&lt;b&gt;&#x27; is unknown"),
    ],
)
def test_what_the_browser_sends_is_checked(
    volume: str, plane: str, number: float, window: str, complaint: str
) -> None:
    _, upload = received(volume)
    box, _, message, _, kept = callbacks().turn(upload, plane, number, window)
    assert complaint in words(message)
    assert (box, kept) == ("", upload)


def test_a_file_that_was_deleted_is_asked_for_again(volume: str) -> None:
    _, upload = received(volume)
    Path(volume).unlink()
    message = words(callbacks().turn(upload, "axial", 0, "default")[2])
    assert message.startswith("the image cannot be opened") and "/" not in message
    assert "upload one" in words(callbacks().turn(None, "axial", 0, "default")[2])


def test_the_answer_about_a_slice_holds_the_voxels_of_its_boxes(
    volume: str, asked: list[Any], tmp_path: Path
) -> None:
    *_, picture, _, _, upload = callbacks().turn(received(volume)[1], "axial", 3, "default")
    picture.save(tmp_path / "stored.png")
    _, _, answer = callbacks().ask(
        str(tmp_path / "stored.png"), None, "roc", "What is this?", "2,3,5,9", upload
    )
    (content,) = [each for name, each in downloads_of(answer).items() if name == "answer.json"]
    document = json.loads(content)
    assert document["shown"]["slice"] == 3 and document["shown"]["axis"] == "axial"
    # Both axes of a displayed slice of a volume in RAS+ order are reversed: x from 20 - 5, y from 30 - 9.
    assert document["question_boxes_voxel"] == [[[15, 21, 3], [18, 27, 4]]]
    assert document["question_boxes_mm"] == [[2, 3, 5, 9]]
    assert document["spans"][0]["boxes_voxel"] == [
        [[10, 0, 3], [18, 22, 4]]
    ]  # voxel 22: its centre is on the edge
    assert "volume" not in json.dumps(document) and str(tmp_path) not in json.dumps(document)


def test_a_frame_of_a_dicom_file_is_chosen() -> None:
    path = get_testdata_file("SC_rgb_rle_2frame.dcm", download=False)
    _, upload = received(path)
    plane, number, note, window = shown_by(callbacks(), upload)
    assert number == {"visible": True, "label": "Frame", "minimum": 0, "maximum": 1, "value": 1}
    assert not plane["visible"] and not window["visible"]  # it is in colour
    assert note["value"] == "frame 1 of 0 to 1"
    *_, turned = callbacks().turn(upload, "axial", 0, "default")
    assert turned.shown.note == "frame 0 of 0 to 1"


def test_a_ct_has_windows_and_its_patient_is_not_shown(asked: list[Any], tmp_path: Path) -> None:
    image = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    image.PatientName = image.PatientID = image.StudyDescription = image.InstitutionName = "SECRETNAME"
    image.save_as(tmp_path / "SECRETNAME.dcm")
    picture, upload = received(tmp_path / "SECRETNAME.dcm")
    plane, number, note, window = shown_by(callbacks(), upload)
    assert (plane["visible"], number["visible"], window["visible"]) == (False, False, True)
    *_, turned = callbacks().turn(upload, "axial", None, "lung")
    assert turned.shown.note == "window lung (level -600, width 1500), in radiological convention"
    picture.save(tmp_path / "stored.png")
    reply = callbacks().ask(str(tmp_path / "stored.png"), None, "vg", "Where?", "", turned)
    pages = [
        *map(str, reply),
        *(each.decode("latin1") for each in downloads_of(reply[2]).values()),
        str(note),
    ]
    assert not any("SECRETNAME" in each for each in pages)


def _cut(path: Path) -> None:
    nib.save(nib.Nifti1Image(voxels(), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:2000])


def _pointing_elsewhere(path: Path) -> None:
    header = {"space": "left-posterior-superior", "space directions": np.eye(3), "space origin": [0, 0, 0]}
    nrrd.write(str(path), voxels(), header, detached_header=False)
    content = path.read_bytes().replace(b"encoding: gzip", b"data file: /etc/passwd\nencoding: gzip")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "make", "complaint"),
    [
        ("smith_john.nii", _cut, "the image: cannot be read as NIfTI"),
        ("smith_john.nii.gz", _cut, "the image: cannot be read as NIfTI"),
        ("smith_john.nrrd", _pointing_elsewhere, "in a separate file"),
        ("smith_john.nii.gz", lambda path: path.write_bytes(b"no volume"), "cannot be read as NIfTI"),
        ("smith_john.png", lambda path: path.write_bytes(b"text"), "the image is not a readable image"),
        ("smith_john.zip", lambda path: path.write_bytes(b"PK\3\4"), "the image is not a readable image"),
    ],
)
def test_hostile_uploads_are_refused_in_one_line_without_their_name(
    tmp_path: Path, name: str, make: Callable[[Path], Any], complaint: str
) -> None:
    make(tmp_path / name)
    *_, picture, message, _, upload = callbacks().receive(str(tmp_path / name))
    assert complaint in words(message) and "smith" not in message and "/" not in words(message)
    assert (picture, upload) == (None, None)


def test_the_page_has_the_controls_hidden_at_first() -> None:
    config = build_page(callbacks()).get_config_file()
    visible = {each["props"].get("elem_id"): each["props"].get("visible") for each in config["components"]}
    assert {visible[part] for part in ("plane", "number", "window", "shown")} == {False}
