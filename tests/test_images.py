"""One door for images: what is shown of a file of each kind, where its boxes lie in the file, and what is refused."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
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

from bird_hf.data.records import Axis
from bird_hf.images.open import open_image
from bird_hf.images.view import OpenedImage, View, read_view
from bird_hf.inference import Answer

SHAPE = (24, 30, 16)  # to the patient's right, front, head
BLOCK = ((4, 9), (15, 26), (3, 7))  # bright voxels: first and last + 1 along each
SPACING = (1.0, 2.0, 1.5)


def patient() -> np.ndarray:
    """RAS+ voxels: noise, and a bright block that lies off the middle along each axis."""
    voxels = np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.int16)
    voxels[tuple(slice(*each) for each in BLOCK)] = 1000
    return voxels


def rotation(degrees: float) -> np.ndarray:
    """A turn about the axis through the head, which makes a volume oblique."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


def stored(
    order: tuple[int, ...], flipped: tuple[int, ...], turn: float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The patient as a scanner stores it: axis n of the file runs along RAS axis order[n], reversed if in `flipped`."""
    voxels = np.transpose(patient(), order)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, ras in enumerate(order):
        affine[ras, axis] = SPACING[ras]
        if axis in flipped:
            voxels = np.flip(voxels, axis)
            affine[ras, axis] *= -1
            affine[ras, 3] = SPACING[ras] * (SHAPE[ras] - 1)
    return np.ascontiguousarray(voxels), rotation(turn) @ affine


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def write_nrrd(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    header = {
        "space": "right-anterior-superior",
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
    }
    nrrd.write(str(path), voxels, header, index_order="F")
    return path


def bright_box(opened: OpenedImage) -> tuple[int, int, int, int]:
    """The box of the bright pixels of a picture."""
    rows, columns = np.nonzero(np.asarray(opened.picture)[..., 0] > 128)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


# --- where a box lies in the file -----------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize(
    ("order", "turn"),
    [
        ((0, 1, 2), 0),
        ((2, 0, 1), 0),
        ((1, 0, 2), 0),
        ((2, 1, 0), 0),
        ((0, 1, 2), 20),  # oblique
        ((1, 2, 0), -30),
    ],
)
def test_the_box_of_a_bright_block_is_its_own_voxels_in_the_file(
    tmp_path: Path, order: tuple[int, ...], turn: float, flipped: tuple[int, ...], axis: str
) -> None:
    voxels, affine = stored(order, flipped, turn)
    path = write_nifti(tmp_path / "volume.nii", voxels, affine)
    normal = ["sagittal", "coronal", "axial"].index(axis)
    opened = open_image(path, View(axis, BLOCK[normal][0] + 1, window=(500, 1000)))
    first, end = opened.shown.box_voxel(bright_box(opened)) or ((), ())
    # What the file holds there: computed from the stored array alone, without any affine.
    where = np.argwhere(voxels == 1000)
    expected = np.stack([where.min(axis=0), where.max(axis=0) + 1])
    across = order.index(normal)  # the axis of the file that runs across the slices: one voxel of the block
    for n in range(3):
        if n != across:
            assert (first[n], end[n]) == tuple(expected[:, n])
    assert end[across] == first[across] + 1 and expected[0, across] <= first[across] < expected[1, across]


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("write", [write_nifti, write_nrrd])
def test_every_slice_is_the_files_own(tmp_path: Path, write: Callable[..., Path], axis: str) -> None:
    voxels, affine = stored((2, 0, 1), (1,))
    path = write(tmp_path / ("a.nii.gz" if write is write_nifti else "a.nrrd"), voxels, affine)
    across = (2, 0, 1).index(["sagittal", "coronal", "axial"].index(axis))
    seen = set()
    for index in range(voxels.shape[across]):
        first, end = open_image(path, View(axis, index)).shown.box_voxel((0, 0, 8, 8)) or ((), ())
        assert end[across] - first[across] == 1
        seen.add(first[across])
    assert seen == {*range(voxels.shape[across])}


@pytest.mark.parametrize(
    ("box", "first", "end"),
    [
        ((0, 0, 30, 60), (0, 0, 6), (30, 20, 7)),  # the whole picture is the whole slice
        ((0.2, 0.2, 0.3, 0.4), (29, 19, 6), (30, 20, 7)),  # less than a voxel is one voxel
        ((2.9, 2.9, 9.2, 9.2), (21, 17, 6), (27, 19, 7)),  # a voxel belongs to it if its centre does
        ((29.99, 59.99, 30, 60), (0, 0, 6), (1, 1, 7)),  # the far corner
    ],
)
def test_boxes_are_whole_voxels_and_never_none(
    tmp_path: Path, box: Any, first: tuple[int, ...], end: tuple[int, ...]
) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros((30, 20, 12), np.uint8), np.diag([1.0, 3, 1, 1]))
    shown = open_image(path).shown
    assert shown.box_voxel(box) == (first, end)
    assert shown.box_mm(box) == box  # pixels of 1 mm


def test_millimetres_are_those_of_the_finer_spacing(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", *stored((0, 1, 2), ()))
    opened = open_image(path, View("coronal"))
    assert opened.picture.size == (24, 24)  # 24 of 1 mm, and 16 of 1.5 mm
    assert opened.shown.pixel_mm == (1, 1)
    assert open_image(path, View("sagittal")).shown.pixel_mm == (1.5, 1.5)


def test_a_picture_has_no_millimetres_and_no_voxels() -> None:
    shown = open_image(Image.new("RGB", (9, 9))).shown
    assert (shown.box_mm((0, 0, 1, 1)), shown.box_voxel((0, 0, 1, 1)), shown.to_json()) == (None, None, {
        "note": ""
    })  # fmt: skip


# --- what is shown --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ((None, None, None), "axial slice 8 of 0 to 15, window level"),
        (("axial:3", None, None), "axial slice 3 of 0 to 15, "),
        (("3", None, None), "axial slice 3 of 0 to 15, "),
        ((" Coronal:0 ", None, None), "coronal slice 0 of 0 to 29, "),
        (("sagittal", None, None), "sagittal slice 12 of 0 to 23, "),
        ((None, None, "lung"), "axial slice 8 of 0 to 15, window lung (level -600, width 1500)"),
        (
            ("coronal:1", None, "soft tissue"),
            "coronal slice 1 of 0 to 29, window soft tissue (level 40, width",
        ),
        ((None, None, "300,-0.5"), ""),
        ((None, None, "300,1.5"), "axial slice 8 of 0 to 15, window level 300, width 1.5"),
    ],
)
def test_the_options_choose_a_slice_and_a_window(tmp_path: Path, options: Any, note: str) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", *stored((0, 1, 2), (0,)))
    if not note:
        with pytest.raises(ValueError, match="the width is above 0"):
            read_view(*options)
        return
    assert open_image(path, read_view(*options)).shown.note.startswith(note)


def test_a_volume_with_a_fourth_axis_has_frames(tmp_path: Path) -> None:
    voxels = np.stack([np.full((16, 12, 9), 100 * number, np.int16) for number in range(4)], axis=-1)
    path = write_nifti(tmp_path / "a.nii.gz", voxels, np.eye(4))
    for frame, expected in ((None, 2), (0, 0), (3, 3)):
        opened = open_image(path, View(frame=frame, window=(150, 300)))
        assert opened.shown.note.startswith(f"frame {expected} of 0 to 3, axial slice 4 of 0 to 8, window")
        assert opened.picture.getpixel((0, 0))[0] == 85 * expected
        assert (opened.shown.to_json()["frame"], opened.shown.to_json()["frames"]) == (expected, 4)
    with pytest.raises(ValueError, match="frame 4 is outside 0 to 3"):
        open_image(path, View(frame=4))


def test_a_volume_with_the_air_of_a_ct_is_shown_in_a_window_of_soft_tissue(tmp_path: Path) -> None:
    voxels = np.full((16, 16, 3), -1000, np.int16)
    voxels[4:8] = 40
    shown = open_image(write_nifti(tmp_path / "a.nii", voxels, np.eye(4))).shown
    assert (shown.window, shown.axis, shown.index, shown.slices) == ((40, 400), Axis.AXIAL, 1, 3)
    assert "soft tissue" in shown.note and "CT" in shown.note


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd"])
def test_the_bytes_of_a_file_are_opened_as_the_file_is(tmp_path: Path, name: str) -> None:
    write = write_nrrd if name.endswith("nrrd") else write_nifti
    path = write(tmp_path / name, *stored((1, 0, 2), (2,)))
    of_file, of_bytes = (open_image(source, View("coronal", 4)) for source in (path, path.read_bytes()))
    assert of_file.picture.tobytes() == of_bytes.picture.tobytes()
    assert of_file.shown.note == of_bytes.shown.note
    assert np.array_equal(of_file.shown.voxel_of_pixel, of_bytes.shown.voxel_of_pixel)


@pytest.mark.parametrize("number", range(1, 9))
def test_a_turned_photograph_says_so_however_it_comes(tmp_path: Path, number: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = number
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        image.load()
    for source in (tmp_path / "a.jpg", str(tmp_path / "a.jpg"), (tmp_path / "a.jpg").read_bytes(), image):
        opened = open_image(source)
        size = (20, 40) if number >= 5 else (40, 20)
        assert opened.picture.size == size
        said = f"EXIF orientation {number} is applied; boxes are in pixels of the upright picture, "
        assert opened.shown.note == ("" if number == 1 else f"{said}{size[0]}x{size[1]}")


def test_nothing_of_a_header_is_repeated(tmp_path: Path) -> None:
    image = nib.Nifti1Image(*stored((0, 1, 2), ()))
    for field in ("descrip", "aux_file", "intent_name"):
        image.header[field] = b"SECRETNAME"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"SECRETNAME"))
    nib.save(image, tmp_path / "a.nii")
    assert b"SECRETNAME" in (tmp_path / "a.nii").read_bytes()
    assert "SECRETNAME" not in repr(open_image(tmp_path / "a.nii").shown)


# --- DICOM ----------------------------------------------------------------------------------------------------


def dicom_file(path: Path, values: np.ndarray | None = None, **changed: Any) -> Path:
    """A CT slice with 1,000 HU in a block of rows 4 to 8 and columns 5 to 14, and values of its header."""
    image = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    if values is None:
        values = np.zeros((24, 30), np.int16)
        values[4:9, 5:15] = 1000
    image.Rows, image.Columns = values.shape
    image.RescaleIntercept, image.PixelSpacing = 0, [1, 1]
    image.PixelData = values.astype("<i2").tobytes()
    for tag, value in changed.items():
        setattr(image, tag, value)
    image.save_as(path)
    return path


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (0, 1, 0, 1, 0, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, 1)],
)
@pytest.mark.parametrize("spacing", [[1, 1], [1, 2]])
def test_the_box_of_a_block_in_a_dicom_slice_is_its_own_columns_and_rows(
    tmp_path: Path, orientation: tuple[int, ...], spacing: list[float]
) -> None:
    path = dicom_file(tmp_path / "a.dcm", ImageOrientationPatient=list(orientation), PixelSpacing=spacing)
    opened = open_image(path, View(window=(500, 1000)))
    assert opened.shown.box_voxel(bright_box(opened)) == ((5, 4, 0), (15, 9, 1))
    assert opened.shown.pixel_mm == pytest.approx((1, 1))
    assert opened.shown.note == "window level 500, width 1000, in radiological convention"


def test_a_named_window_is_for_a_ct(tmp_path: Path) -> None:
    path = dicom_file(tmp_path / "a.dcm")
    assert open_image(path, View(window="lung")).shown.note.startswith("window lung (level -600, width 1500)")
    assert open_image(path).shown.window == (40, 400)
    path = dicom_file(tmp_path / "a.dcm", Modality="MR")
    with pytest.raises(ValueError, match=r"a\.dcm is not a CT; give --window as LEVEL,WIDTH"):
        open_image(path, View(window="lung"))


@pytest.mark.parametrize("of_bytes", [False, True])
def test_the_middle_frame_is_shown_or_the_chosen_one(of_bytes: bool) -> None:
    path = Path(get_testdata_file("SC_rgb_rle_2frame.dcm", download=False))
    source = path.read_bytes() if of_bytes else path
    name = "the image" if of_bytes else str(path)
    middle, first = open_image(source), open_image(source, View(frame=0))
    assert (middle.shown.note, first.shown.note) == ("frame 1 of 0 to 1", "frame 0 of 0 to 1")
    assert (first.shown.frame, first.shown.frames, first.shown.axis) == (0, 2, None)
    assert first.shown.box_voxel((1, 2, 3, 4)) == ((1, 2, 0), (3, 4, 1))
    for view, words in (
        (View(frame=2), "0 to 1"),
        (View(frame=-1), "0 to 1"),
        (View("axial"), "is a DICOM file; --slice is for volumes"),
        (View(window=(40, 400)), "is in colour; --window is for grey values"),
    ):
        with pytest.raises(ValueError) as refused:
            open_image(source, view)
        assert words in str(refused.value) and str(refused.value).startswith(name)


def test_a_folder_with_a_series_is_a_volume(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 500, (10, 24, 30)).astype(np.int16)
    values[2:5, 4:9, 5:15] = 1000
    for number, each in enumerate(values):
        uid = f"1.2.3.{number}"
        place = [0, 0, 3.0 * number]
        changed = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": place}
        dicom_file(tmp_path / f"{9 - number}.dcm", each, SOPInstanceUID=uid, **changed)
    opened = open_image(tmp_path, View("coronal", 24 - 5, window=(750, 500)))
    assert opened.picture.size == (30, 30)  # ten slices of 3 mm
    assert opened.shown.box_voxel(bright_box(opened)) == ((5, 4, 2), (15, 5, 5))
    shown = open_image(tmp_path).shown
    assert shown.note == "axial slice 5 of 0 to 9, window level 40, width 400"  # as a build shows a CT
    with pytest.raises(ValueError, match="use --slice"):
        open_image(tmp_path, View(frame=1))


def _name_everywhere(path: Path) -> Path:
    """A DICOM file with a name in each text element that is not needed to read it."""
    image = pydicom.dcmread(path)
    for element in image:
        if element.VR in ("PN", "LO", "SH", "LT", "ST", "UT", "AE") and not element.tag.is_private:
            element.value = "SECRETNAME"
    image.PatientName, image.PatientID, image.PatientComments = "SECRETNAME", "SECRETNAME", "SECRETNAME"
    image.save_as(path)
    return path


def test_no_field_of_a_patient_leaves_a_dicom_file(tmp_path: Path) -> None:
    path = _name_everywhere(dicom_file(tmp_path / "a.dcm"))
    assert path.read_bytes().count(b"SECRETNAME") > 5
    opened = open_image(path)
    answer = Answer.from_raw(
        "A <ref>lung</ref><box>(0,0),(500,500)</box>.", opened.picture, shown=opened.shown
    )
    assert "SECRETNAME" not in json.dumps(answer.to_json()) + repr(opened.shown) + repr(opened.picture.info)
    path.write_bytes(path.read_bytes()[:-500])  # cut
    with pytest.raises(ValueError) as refused:
        open_image(path)
    assert "SECRETNAME" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "rtdose.dcm"])
def test_dicom_without_a_picture_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*give") as refused:
        open_image(get_testdata_file(name, download=False))
    assert "\n" not in str(refused.value)


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("axail:3", "--slice 'axail:3' is not AXIS:NUMBER, such as axial:72"),
        ("axial:", "is not AXIS:NUMBER"),
        (":3", "is not AXIS:NUMBER"),
        ("axial:1.5", "is not AXIS:NUMBER"),
        ("axial:1:2", "is not AXIS:NUMBER"),
        ("2d:1", "the axes are axial, coronal and sagittal"),
        ("", "is not AXIS:NUMBER"),
        ("9" * 5000, "is not AXIS:NUMBER"),
    ],
)
def test_what_is_no_slice_is_refused(text: str, fragment: str) -> None:
    with pytest.raises(ValueError) as refused:
        read_view(text)
    assert fragment in str(refused.value)


@pytest.mark.parametrize("window", ["1,2,3", "40,0", "nan,4", "40,inf", ","])
def test_what_is_no_window_is_refused(tmp_path: Path, window: str) -> None:
    path = write_nifti(tmp_path / "a.nii", *stored((0, 1, 2), ()))
    with pytest.raises(ValueError, match="window"):
        open_image(path, read_view(window=window))


@pytest.mark.parametrize(
    ("view", "fragment"),
    [
        (View("axial", 16), "a.nii: axial slice 16 is outside 0 to 15"),
        (View("coronal", -1), "a.nii: coronal slice -1 is outside 0 to 29"),
        (View(index=10**30), "is outside 0 to 15"),
        (View(frame=0), "a.nii is one volume; --frame is for"),
        (View(window="lungs"), "CT window 'lungs' is unknown; choose one of lung, "),
    ],
)
def test_a_view_that_a_volume_does_not_have_is_refused(tmp_path: Path, view: View, fragment: str) -> None:
    path = write_nifti(tmp_path / "a.nii", *stored((0, 1, 2), ()))
    with pytest.raises(ValueError) as refused:
        open_image(path, view)
    assert fragment in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("view", "option"),
    [
        (View("axial"), "--slice"),
        (View(index=0), "--slice"),
        (View(frame=0), "--frame"),
        (View(window="lung"), "--w"),
    ],
)
def test_options_of_volumes_do_not_fit_a_picture(tmp_path: Path, view: View, option: str) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.load()
    for source in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), image, open_image(image)):
        with pytest.raises(ValueError, match=f"is one picture; {option}.*leave it out"):
            open_image(source, view)


def _nifti(shape: tuple[int, ...] = (16, 16, 9)) -> bytes:
    return nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)).to_bytes()


def _unplaced(content: bytes) -> bytes:
    """A header whose sform and qform codes say that its orientation is unknown."""
    return content[:252] + bytes(4) + content[256:]


def _lying(content: bytes) -> bytes:
    """A header that announces 32,767 voxels along each axis."""
    return content[:42] + np.array([32767, 32767, 32767], "<i2").tobytes() + content[48:]


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("a.nii", b"", "cannot be read as NIfTI"),
        ("a.nii", _nifti()[:400], "cannot be read as NIfTI"),  # cut
        ("a.nii.gz", gzip.compress(_nifti(), mtime=0)[:60], "cannot be read as NIfTI"),
        ("a.nii", _lying(_nifti()), "more than the limit"),
        ("a.nii.gz", gzip.compress(_lying(_nifti()), mtime=0), "more than the limit"),
        ("a.nii", _unplaced(_nifti()), "the header has no orientation"),
        ("a.nii", _nifti((3, 4, 9)), "a.nii: axial slices are 3x4 pixels; sides must be at least 8"),
        ("a.nrrd", b"NRRD0004\ntype: uint8\n", "a.nrrd"),
        (
            "a.nrrd",
            b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 9 9 9\nencoding: raw\n\n" + bytes(729),
            "anatomical",
        ),
        ("a.nrrd", b"no volume", "cannot be read as NRRD"),
        ("a.png", b"no picture", "is not a readable image"),
        ("a", b"", "is not a readable image"),
        ("a.zip", b"PK\x03\x04", "is not a readable image"),
        ("a.dcm", b"", "a.dcm cannot be displayed"),
        ("a.dcm", b"no DICOM", "a.dcm cannot be displayed"),
        ("a", bytes(128) + b"DICM", "a cannot be displayed"),
        ("a", bytes(128) + b"DICM" + b"\xff" * 500, "a cannot be displayed"),
    ],
)
def test_damaged_and_hostile_files_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, fragment: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as refused:
        open_image(tmp_path / name)
    assert fragment in str(refused.value) and "\n" not in str(refused.value)


_WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None  # importing it would fail
from bird_hf import open_image
try:
    open_image(sys.argv[2])
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["nibabel", "nrrd", "scipy"])
def test_without_the_medical_extra_one_line_says_what_to_install(tmp_path: Path, package: str) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", *stored((0, 1, 2), ()))
    command = [sys.executable, "-c", _WITHOUT, package, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{path} needs {package}, which is not installed; ") and said.count("\n") == 1
    assert '".[medical]"' in said


def test_without_pydicom_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dicom_file(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"needs pydicom.*\[medical\]"):
        open_image(path)


def test_names_are_replaced_in_errors(tmp_path: Path) -> None:
    for name, content in itertools.product(("smith.nii", "smith.png", "smith.nrrd"), (b"", b"x" * 500)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"^the image") as refused:
            open_image(tmp_path / name, name="the image")
        assert "smith" not in str(refused.value)
