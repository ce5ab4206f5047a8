"""DICOM series and segmentations made from pydicom's and highdicom's own examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from bird_hf.data.masks import box_of
from bird_hf.data.records import Axis, MaskedImage
from bird_hf.data.sources.base import Candidate, LeftOut
from bird_hf.data.sources.faults import Drop
from bird_hf.data.sources.open import open_source

SHAPE = (61, 53)  # a frame's bits do not fill whole bytes

NAME, NUMBER, BORN = "Doe^Jane", "SECRET-4711", "19610203"

AXIAL = (1, 0, 0, 0, 1, 0)

KIDNEY, SPLEEN = ("Kidney_R", codes.SCT.Kidney), ("spleen", codes.SCT.Spleen)

# Centres in millimetres to the patient's left, back and head: right and front; left and back.
CENTRES = {"right kidney": (-12, -9, 0), "spleen": (13, 12, 0)}


def example(name: str) -> Any:
    return pydicom.dcmread(get_testdata_file(name, download=False))


def positions(image: Any) -> np.ndarray:
    """(rows, columns, 3): the position of each pixel in the patient, in millimetres."""
    x, y = np.reshape(np.array(image.ImageOrientationPatient, float), (2, 3))
    down, across = np.array(image.PixelSpacing, float)
    rows, columns = np.mgrid[: image.Rows, : image.Columns]
    origin = np.array(image.ImagePositionPatient, float)
    return origin + columns[..., None] * across * x + rows[..., None] * down * y


def ball(image: Any, name: str, radius: float = 5) -> np.ndarray:
    return np.linalg.norm(positions(image) - CENTRES[name], axis=-1) < radius


def series(
    folder: Path, count: int = 3, orientation: tuple = AXIAL, seed: int = 0, **changed: Any
) -> list[Any]:
    """Slices around the origin with the header of a real CT: two balls of 100 HU in noise."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = np.array(orientation, float).reshape(2, 3)
    normal = np.cross(x, y)
    uid, study, frame = generate_uid(), generate_uid(), generate_uid()
    images = []
    for number in range(count):
        image = example("CT_small.dcm")
        image.PatientName, image.PatientID, image.PatientBirthDate = NAME, NUMBER, BORN
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, uid, frame
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.Rows, image.Columns = SHAPE
        image.ImageOrientationPatient, image.PixelSpacing = list(orientation), [1, 1]
        middle = x * (SHAPE[1] - 1) / 2 + y * (SHAPE[0] - 1) / 2
        image.ImagePositionPatient = (normal * 3 * (number - count // 2) - middle).round(4).tolist()
        image.BodyPartExamined, image.RescaleSlope, image.RescaleIntercept = "ABDOMEN", 2, -1000
        if "PixelPaddingValue" in image:
            del image.PixelPaddingValue
        for tag, value in changed.items():
            setattr(image, tag, value)
        units = np.random.default_rng([seed, number]).integers(-60, 20, SHAPE)
        units[ball(image, "right kidney") | ball(image, "spleen")] = 100
        image.PixelData = ((units + 1000) // 2).astype("<i2").tobytes()
        image.save_as(folder / f"{9 - number}.dcm")  # file names in the reverse order
        images.append(image)
    return images


def segmentation(images: list[Any], kind: str = "BINARY", segments: tuple = (KIDNEY, SPLEEN)) -> Any:
    masks = np.stack(
        [np.stack([ball(image, name) for name in [*CENTRES][: len(segments)]], -1) for image in images]
    )
    pixels: np.ndarray = masks.astype(np.uint8)
    if kind == "FRACTIONAL":
        pixels = masks * 0.9 + ~masks * 0.3
    if kind == "LABELMAP":
        pixels = (masks * np.arange(1, len(segments) + 1)).sum(-1).astype(np.uint8)
    return highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(number, label, codes.SCT.Organ, code, "MANUAL")
            for number, (label, code) in enumerate(segments, start=1)
        ],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )


def listed(folder: Path) -> tuple[list[Candidate], list[Drop]]:
    items = [*open_source(folder).listed()]
    candidates = [item for item in items if isinstance(item, Candidate)]
    assert json.loads(json.dumps([item.where for item in candidates])) == [item.where for item in candidates]
    return candidates, sorted(item.reason for item in items if isinstance(item, LeftOut))


def read_all(folder: Path) -> list[MaskedImage]:
    source = open_source(folder)
    return [source.read(item) for item in source.listed() if isinstance(item, Candidate)]


def assert_sides(image: MaskedImage) -> None:
    """The right kidney is on the left of the image, the spleen on its right, and both are bright."""
    boxes = {label: box_of(mask) for label, mask in image.masks}
    assert {*boxes} == {*CENTRES}
    for label, mask in image.masks:
        assert image.pixels[mask].min() > image.pixels[~mask].mean() + 20, label
    kidney, spleen = boxes["right kidney"], boxes["spleen"]
    if image.info.axis is Axis.SAGITTAL:
        assert kidney.x2 < spleen.x1  # the front is on the left
    else:
        assert kidney.x2 < 0.5 < spleen.x1
    if image.info.axis is Axis.AXIAL:
        assert kidney.y2 < 0.5 < spleen.y1
