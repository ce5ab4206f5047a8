"""Files with several frames: enhanced CT and MR are slices, clips are images without a plane."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom.pixels import get_decoder
from pydicom.sr.codedict import codes
from pydicom.uid import UID, RLELossless, generate_uid

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.masks import box_of
from bird_hf.data.records import Axis, Modality
from bird_hf.data.sources.base import Candidate, LeftOut
from bird_hf.data.sources.dicom import files, images
from bird_hf.data.sources.dicom.display import open_dicom_image
from bird_hf.data.sources.dicom.images import read_images, read_series, read_values
from bird_hf.data.sources.dicom.source import DicomFolder
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source

from .example_files import AXIAL, NAME, NUMBER, SHAPE, read_all
from .example_frames import (
    BOTTOM,
    CAPTURE,
    LEFT,
    RIGHT,
    TOP,
    cine,
    dataset,
    enhanced,
    frame_segmentation,
    noise,
    published_rows,
)

BOX = (LEFT / SHAPE[1], TOP / SHAPE[0], RIGHT / SHAPE[1], BOTTOM / SHAPE[0])


def left_out(folder: Path) -> list[tuple[Drop, str]]:
    items = open_source(folder).listed()
    return [(i.reason, i.detail) for i in items if isinstance(i, LeftOut) and i.reason is not Drop.NO_MASKS]


def assert_box(image, box=BOX):
    ((_, mask),) = image.masks
    found = box_of(mask)
    assert (found.x1, found.y1, found.x2, found.y2) == pytest.approx(box, abs=1 / min(mask.shape))
    assert image.pixels[mask].min() > image.pixels[~mask].mean() + 20  # the object is on this frame


@pytest.mark.parametrize("spacing", [(1, 1), (2, 1), (0.7, 1.4)])
@pytest.mark.parametrize(
    ("numbers", "planes"),
    [(True, False), (True, True), (False, True)],  # frames that are named, and such that only have a place
)
@pytest.mark.parametrize("step", [3, -3])  # frames from feet to head, and from head to feet
def test_frames_of_an_enhanced_file_are_slices(tmp_path, numbers, planes, step, spacing):
    made = enhanced(tmp_path / "ct.dcm", noise(5, [1, 2]), step=step, spacing=spacing)
    frame_segmentation(tmp_path, made, [1, 2], numbers, planes)
    seen = {image.info.slice_index: image for image in read_all(tmp_path)}
    assert {*seen} == ({1, 2} if step > 0 else {2, 3})  # numbered from the feet
    for image in seen.values():
        assert_box(image)
        assert (image.info.axis, image.info.modality) == (Axis.AXIAL, Modality.CT)
        assert not re.search(r"_f\d{4}(?!\w)", image.info.image_id)


@pytest.mark.parametrize(
    ("orientation", "axis", "box"),
    [
        ((-1, 0, 0, 0, 1, 0), Axis.AXIAL, (1 - BOX[2], BOX[1], 1 - BOX[0], BOX[3])),
        ((1, 0, 0, 0, 0, -1), Axis.CORONAL, BOX),
        ((0, 1, 0, 0, 0, -1), Axis.SAGITTAL, BOX),
        ((0.96, 0.28, 0, -0.224, 0.768, 0.6), Axis.AXIAL, BOX),
    ],
)
def test_other_planes_of_frames(tmp_path, orientation, axis, box):
    made = enhanced(tmp_path / "ct.dcm", noise(3, [1]), orientation, (1.5, 1))
    frame_segmentation(tmp_path, made, [1], numbers=False, planes=True)
    (image,) = read_all(tmp_path)
    assert image.info.axis is axis
    assert_box(image, box)


def test_a_segmentation_by_another_writer_finds_its_frames(tmp_path):
    made = enhanced(tmp_path / "ct.dcm", noise(4, [1, 2]), ContentDate="20040119", ContentTime="1200")
    masks = np.zeros((4, *SHAPE, 1), np.uint8)
    masks[1:3, TOP:BOTTOM, LEFT:RIGHT] = 1
    description = highdicom.seg.SegmentDescription(1, "Kidney_R", codes.SCT.Organ, codes.SCT.Kidney, "MANUAL")
    highdicom.seg.Segmentation(
        source_images=[made],
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=[description],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    ).save_as(tmp_path / "seg.dcm")
    seen = read_all(tmp_path)
    assert [image.info.slice_index for image in seen] == [1, 2]
    for image in seen:
        assert_box(image)


def test_each_frame_has_its_own_rescale(tmp_path):
    frames = np.full((3, *SHAPE), 10)
    path = tmp_path / "pet.dcm"
    enhanced(path, frames, rescale=[(1, 0), (2, 5), (0.5, -1)])
    found = [
        read_values(path, image.frame, image.rescale)[1][0, 0] for image in read_images(tmp_path, "pet.dcm")
    ]
    assert found == [10, 25, 4]
    series = read_series(tmp_path)
    assert [series.voxels[0, 0, i] for i in range(3)] == [10, 25, 4]


def test_frames_in_one_place_need_their_numbers(tmp_path):
    made = enhanced(tmp_path / "heart.dcm", noise(4, [2]), step=0)
    frame_segmentation(tmp_path, made, [2], numbers=True, planes=True)
    (image,) = read_all(tmp_path)
    assert_box(image)
    frame_segmentation(tmp_path, made, [2], numbers=False, planes=True)
    assert read_all(tmp_path) == []
    faults = left_out(tmp_path)
    assert len(faults) == 4 and {*faults} == {
        (Drop.OFF_GRID, "4 frames are in the place of a segmentation frame that names none of them")
    }


@pytest.mark.parametrize("colour", [False, True])
def test_frames_of_a_clip_are_images(tmp_path, colour):
    frames = noise(4, [1, 3]).astype(np.uint8)
    made = cine(tmp_path / "clip.dcm", np.stack([frames] * 3, -1) if colour else frames)
    frame_segmentation(tmp_path, made, [1, 3])
    seen = read_all(tmp_path)
    names = [image.info.image_id for image in seen]
    assert all(name.startswith("ultrasound_00--dicom--") for name in names)
    assert names[0].endswith("_f0001--2d_none") and names[1].endswith("_f0003--2d_none")
    assert len({image.info.case_id for image in seen}) == 1
    for image in seen:
        assert_box(image)
        assert (image.info.modality, image.info.axis) == (Modality.ULTRASOUND, Axis.PLANAR)
        assert image.pixels.ndim == (3 if colour else 2)


def test_a_segmentation_of_a_clip_that_names_no_frame_is_not_guessed(tmp_path):
    made = cine(tmp_path / "clip.dcm", noise(4, [1]).astype(np.uint8))
    frame_segmentation(tmp_path, made, [1], numbers=False)
    assert read_all(tmp_path) == []
    assert {*left_out(tmp_path)} == {
        (Drop.OFF_GRID, "a frame names no single image and has no place of its own")
    }


def test_one_frame_is_decoded_at_a_time(tmp_path, monkeypatch):
    made = cine(tmp_path / "clip.dcm", noise(6, [4]).astype(np.uint8))
    frame_segmentation(tmp_path, made, [4])
    whole = read_values(tmp_path / "clip.dcm", 4)[1]
    monkeypatch.setattr(files, "_MAX_VALUES", SHAPE[0] * SHAPE[1] * 2)  # of two frames; the file has six
    assert np.array_equal(read_values(tmp_path / "clip.dcm", 4)[1], whole)
    with pytest.raises(FaultyImageError, match="6 frames of 53 x 61 pixels and 1 samples are too many"):
        read_values(tmp_path / "clip.dcm")
    with pytest.raises(FaultyImageError, match="frame 6 of 6"):
        read_values(tmp_path / "clip.dcm", 6)


def test_compressed_frames(tmp_path):
    made = cine(tmp_path / "clip.dcm", noise(4, [1]).astype(np.uint8))
    plain = [read_values(tmp_path / "clip.dcm", number)[1] for number in range(4)]
    made.compress(RLELossless, generate_instance_uid=False)
    made.save_as(tmp_path / "clip.dcm")
    assert made.file_meta.TransferSyntaxUID == RLELossless and get_decoder(RLELossless).is_available
    for number in range(4):
        assert np.array_equal(read_values(tmp_path / "clip.dcm", number)[1], plain[number])


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"NumberOfFrames": 9}, "groups of 4 frames for 9 frames"),  # the header lies
        ({"NumberOfFrames": 2_000_000}, "2000000 frames, the limit is 100,000"),
        ({"NumberOfFrames": -3}, "-3 frames"),
        ({"SharedFunctionalGroupsSequence": [dataset(FrameVOILUTSequence=[])]}, None),  # without planes
    ],
)
def test_headers_of_many_frames_are_checked_first(tmp_path, changed, detail):
    enhanced(tmp_path / "ct.dcm", noise(4, [1]), **changed)
    faults = left_out(tmp_path)
    assert len(faults) == (detail is not None)
    assert all(reason is Drop.UNREADABLE_IMAGE for reason, _ in faults)
    if detail is None:
        assert all(image.plane is None for image in read_images(tmp_path, "ct.dcm"))


def test_a_large_header_is_named(tmp_path, monkeypatch):
    enhanced(tmp_path / "ct.dcm", noise(4, [1]))
    monkeypatch.setattr(files, "_MAX_HEADER_BYTES", 500)
    assert left_out(tmp_path) == [(Drop.UNREADABLE_IMAGE, "its header is too large")]


def test_video_is_named(tmp_path):
    made = cine(tmp_path / "clip.dcm", noise(2, []).astype(np.uint8))
    made.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")
    made["PixelData"].is_undefined_length = True
    made.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\4\0\0\0abcd\xfe\xff\xdd\xe0\0\0\0\0"
    made.save_as(tmp_path / "clip.dcm")
    ((reason, detail),) = left_out(tmp_path)
    assert reason is Drop.UNREADABLE_IMAGE and "MPEG-4" in detail and "single frames" in detail


def test_an_enhanced_file_is_a_volume_in_a_folder_or_alone(tmp_path):
    frames = np.zeros((4, *SHAPE), int) + np.arange(4)[:, None, None] * 10
    enhanced(tmp_path / "ct.dcm", frames, spacing=(2, 1), step=-3)
    for path in (tmp_path, tmp_path / "ct.dcm"):
        volume = read_series(path)
        assert volume.voxels.shape == (SHAPE[1], SHAPE[0], 4) and volume.spacing_mm == pytest.approx(
            (1, 2, 3)
        )
        assert [volume.voxels[0, 0, i] for i in range(4)] == [-70, -80, -90, -100]  # the last frame is lowest
    enhanced(tmp_path / "ct.dcm", frames, step=0)
    with pytest.raises(ValueError, match="evenly spaced"):
        read_series(tmp_path)


def test_a_frame_is_displayed_as_in_the_build(tmp_path):
    made = enhanced(tmp_path / "ct.dcm", noise(5, [1, 2]), (-1, 0, 0, 0, 1, 0), (2, 1))
    frame_segmentation(tmp_path, made, [2])
    (built,) = read_all(tmp_path)
    shown = open_dicom_image(tmp_path / "ct.dcm")
    assert (shown.frame, shown.frames, shown.window) == (2, 5, (40, 400)) and shown.plane is not None
    assert np.array_equal(shown.pixels, built.pixels) and shown.spacing_mm == pytest.approx((1, 1))


@pytest.mark.parametrize("code", ["OT", "SC", "NM", "XC"])
def test_other_codes_take_the_modality_that_is_given(tmp_path, code):
    made = cine(tmp_path / "photo.dcm", noise(2, [0]).astype(np.uint8), Modality=code, SOPClassUID=CAPTURE)
    frame_segmentation(tmp_path, made, [0])
    unknown = [item for item in DicomFolder(tmp_path).listed() if isinstance(item, LeftOut)]
    assert (unknown[0].reason, unknown[0].detail) == (
        Drop.UNKNOWN_MODALITY, f"Modality {code}; give the modality of such images",
    )  # fmt: skip
    source = DicomFolder(tmp_path, Modality.DERMOSCOPY)
    (candidate,) = [item for item in source.listed() if isinstance(item, Candidate)]
    image = source.read(candidate)
    assert image.info.modality is Modality.DERMOSCOPY
    assert_box(image)


@pytest.mark.parametrize("code", ["SR", "PR", "KO", "RTDOSE", "CT", "Doe^Jane", ""])
def test_objects_that_are_no_images(tmp_path, code):
    kinds = {"SR": "88.11", "PR": "11.1", "KO": "88.59", "CT": "66"}  # 66: raw data of a scanner
    made = cine(tmp_path / "object.dcm", noise(2, []).astype(np.uint8), Modality=code)
    if code in kinds:
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kinds[code]}"
        for tag in ("Rows", "Columns", "PixelData", "NumberOfFrames"):
            delattr(made, tag)
    made.save_as(tmp_path / "object.dcm")
    modality = Modality.CT if code == "RTDOSE" else None  # a dose is no picture, whatever is given
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom's would quote the header
        faults = [item for item in DicomFolder(tmp_path, modality).listed() if isinstance(item, LeftOut)]
    assert [fault.reason for fault in faults] == ([] if code in kinds else [Drop.UNKNOWN_MODALITY])
    assert not any("Doe" in fault.detail for fault in faults)


@pytest.mark.parametrize("kind", ["enhanced", "clip"])
def test_files_with_frames_are_built(tmp_path, kind):
    source = tmp_path / "source"
    for number in range(3):
        frames = noise(4, [1, 2], seed=number)
        path, patient = source / f"s{number}" / "image.dcm", {"PatientID": f"{NUMBER}-{number}"}
        if kind == "enhanced":
            made = enhanced(path, frames, spacing=(2, 1), **patient)
        else:
            made = cine(path, frames.astype(np.uint8), **patient)
        frame_segmentation(source / f"s{number}", made, [1, 2])
    manifest = build(source, tmp_path / "out", BuildSettings(seed=1), workers=1)
    assert manifest["images"][{"enhanced": "ct", "clip": "ultrasound"}[kind]]["dicom"]
    rows = published_rows(tmp_path / "out")
    boxes = [item["box"] for row in rows for item in row["objects"] if item["present"]]
    assert boxes and all(box == pytest.approx(BOX, abs=0.01) for box in boxes)
    uids = [made.SOPInstanceUID, made.SeriesInstanceUID, made.StudyInstanceUID]
    assert not any(str(secret) in str(rows) for secret in (NAME, NUMBER, *uids))


def test_the_headers_of_a_file_are_read_once_for_its_frames(tmp_path, monkeypatch):
    made = enhanced(tmp_path / "ct.dcm", noise(5, [1, 2, 3]), AXIAL)
    frame_segmentation(tmp_path, made, [1, 2, 3])
    source = open_source(tmp_path)
    candidates = [item for item in source.listed() if isinstance(item, Candidate)]
    counted = []
    whole = images.groups_of
    monkeypatch.setattr(images, "groups_of", lambda *args: counted.append(1) or whole(*args))
    assert len([source.read(candidate) for candidate in candidates]) == 3 and len(counted) == 1
