"""Multi-frame DICOM images and structure sets, written element by element."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from .example_files import AXIAL, BORN, NAME, NUMBER, SHAPE, segmentation, series

ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
CINE_US, CAPTURE = "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.7"
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"

# An object in stored pixels: rows 20 to 35 and columns 8 to 16, the ends excluded.
TOP, BOTTOM, LEFT, RIGHT = 20, 36, 8, 17


def dataset(**elements: Any) -> Dataset:
    made = Dataset()
    for tag, value in elements.items():
        setattr(made, tag, value)
    return made


def new_object(kind: str, **elements: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(kind), generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = UID(kind), meta.MediaStorageSOPInstanceUID
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = NAME, NUMBER, BORN, "O"
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.FrameOfReferenceUID, made.StudyID, made.SeriesNumber, made.InstanceNumber = generate_uid(), "1", 1, 1
    made.StudyDate, made.StudyTime, made.AccessionNumber, made.ReferringPhysicianName = (
        "20040119",
        "1200",
        "",
        "",
    )
    for tag, value in elements.items():
        setattr(made, tag, value)
    return made


def set_pixels(made: Dataset, frames: np.ndarray) -> None:
    """frames: (N, H, W) or (N, H, W, 3); 8-bit arrays stay, others become 16-bit."""
    wide = frames.dtype != np.uint8
    bits = 16 if wide else 8
    made.NumberOfFrames, made.Rows, made.Columns = frames.shape[:3]
    made.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    made.PhotometricInterpretation = "RGB" if frames.ndim == 4 else "MONOCHROME2"
    if frames.ndim == 4:
        made.PlanarConfiguration = 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = bits, bits, bits - 1, 0
    made.PixelData = frames.astype("<u2" if wide else np.uint8).tobytes()
    made["PixelData"].VR = "OW" if wide else "OB"


def noise(count: int, bright: Sequence[int], shape: tuple[int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """(count, H, W): values of 40 to 90, and 200 in the object of the frames `bright`."""
    frames = np.random.default_rng(seed).integers(40, 90, (count, *shape))
    frames[[*bright], TOP:BOTTOM, LEFT:RIGHT] = 200
    return frames


def enhanced(
    path: Path,
    frames: np.ndarray,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (1, 1),
    step: float = 3,
    rescale: Sequence[tuple[float, float]] = (),
    **changed: Any,
) -> FileDataset:
    """An enhanced CT whose frames are `step` mm apart along the normal. rescale: (slope, intercept) of each frame."""
    made = new_object(ENHANCED_CT, Modality="CT", BodyPartExamined="ABDOMEN", ImageType=["ORIGINAL"])
    set_pixels(made, frames)
    x, y = np.reshape(np.array(orientation, float), (2, 3))
    shared = dataset(
        PlaneOrientationSequence=[dataset(ImageOrientationPatient=[*orientation])],
        PixelMeasuresSequence=[dataset(PixelSpacing=[*spacing], SliceThickness=abs(step))],
    )
    if not rescale:
        shared.PixelValueTransformationSequence = [dataset(RescaleSlope=1, RescaleIntercept=-100)]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = []
    for number in range(len(frames)):
        at = np.cross(x, y) * step * number
        own = dataset(PlanePositionSequence=[dataset(ImagePositionPatient=at.round(6).tolist())])
        own.FrameContentSequence = [dataset(DimensionIndexValues=[1, number + 1])]
        if rescale:
            slope, intercept = rescale[number]
            own.PixelValueTransformationSequence = [dataset(RescaleSlope=slope, RescaleIntercept=intercept)]
        made.PerFrameFunctionalGroupsSequence.append(own)
    for tag, value in changed.items():
        setattr(made, tag, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return made


def cine(path: Path, frames: np.ndarray, **changed: Any) -> FileDataset:
    """An ultrasound clip: frames without planes."""
    made = new_object(CINE_US, Modality="US", BodyPartExamined="HEART")
    set_pixels(made, frames)
    for tag, value in changed.items():
        setattr(made, tag, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return made


def frame_segmentation(
    folder: Path, image: Dataset, drawn: Sequence[int], numbers: bool = True, planes: bool = False
) -> Dataset:
    """A binary segmentation of the object on the frames `drawn` (from 0) of an image of several frames.

    numbers: whether the frames are named. planes: whether each frame has the plane of its image's frame.
    """
    template = segmentation(series(folder / "template", count=len(drawn), Rows=SHAPE[0]))
    for path in (folder / "template").iterdir():
        path.unlink()
    masks = np.zeros((len(drawn), *SHAPE), np.uint8)
    masks[:, TOP:BOTTOM, LEFT:RIGHT] = 1
    template.SegmentSequence = template.SegmentSequence[:1]
    template.NumberOfFrames = len(drawn)
    template.PixelData = np.packbits(masks.ravel(), bitorder="little").tobytes()
    template.PixelData += b"\0" * (len(template.PixelData) % 2)
    template.SharedFunctionalGroupsSequence = [dataset()]
    if planes:
        shared = image.SharedFunctionalGroupsSequence[0]
        template.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = shared.PlaneOrientationSequence
        template.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = shared.PixelMeasuresSequence
    template.ReferencedSeriesSequence = [dataset(SeriesInstanceUID=image.SeriesInstanceUID)]
    template.PerFrameFunctionalGroupsSequence = []
    for number in drawn:
        source = dataset(
            ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID
        )
        if numbers:
            source.ReferencedFrameNumber = number + 1
        own = dataset(
            SegmentIdentificationSequence=[dataset(ReferencedSegmentNumber=1)],
            DerivationImageSequence=[dataset(SourceImageSequence=[source])],
        )
        if planes:
            of_image = image.PerFrameFunctionalGroupsSequence[number]
            own.PlanePositionSequence = of_image.PlanePositionSequence
        template.PerFrameFunctionalGroupsSequence.append(own)
    template.save_as(folder / "seg.dcm")
    return template


def rectangle(image: Dataset, sides: tuple[float, float, float, float], off_mm: float = 0) -> list[float]:
    """The corners in the patient of (top, bottom, left, right) edges in pixels, by the formula of DICOM C.7.6.2.1.1."""
    x, y = np.reshape(np.array(image.ImageOrientationPatient, float), (2, 3))
    between_rows, between_columns = (float(value) for value in image.PixelSpacing)
    origin = np.array(image.ImagePositionPatient, float) + np.cross(x, y) * off_mm
    top, bottom, left, right = sides
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    points = [
        origin + x * between_columns * (column - 0.5) + y * between_rows * (row - 0.5)
        for column, row in corners
    ]
    return np.concatenate(points).round(6).tolist()


def contour(
    points: Sequence[float],
    image: Dataset | None = None,
    kind: str = "CLOSED_PLANAR",
    frame: int | None = None,
) -> Dataset:
    made = dataset(ContourGeometricType=kind, NumberOfContourPoints=len(points) // 3)
    made.ContourData = [f"{value:.6g}" for value in points]
    if image is not None:
        source = dataset(
            ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID
        )
        if frame is not None:
            source.ReferencedFrameNumber = frame + 1
        made.ContourImageSequence = [source]
    return made


def structures(
    path: Path, image: Dataset, rois: dict[str, list[Dataset]], named_series: bool = True
) -> FileDataset:
    """A structure set. rois: name -> contours. image: of the frame of reference and the series."""
    made = new_object(STRUCTURES, Modality="RTSTRUCT", StructureSetLabel="plan")
    reference = image.FrameOfReferenceUID
    made.ReferencedFrameOfReferenceSequence = [dataset(FrameOfReferenceUID=reference)]
    if named_series:
        of_series = dataset(SeriesInstanceUID=image.SeriesInstanceUID, ContourImageSequence=[])
        study = dataset(RTReferencedSeriesSequence=[of_series])
        made.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence = [study]
    made.StructureSetROISequence = [
        dataset(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=reference)
        for number, name in enumerate(rois, start=1)
    ]
    made.ROIContourSequence = [
        dataset(ReferencedROINumber=number, ContourSequence=contours)
        for number, contours in enumerate(rois.values(), start=1)
    ]
    made.save_as(path)
    return made


def published_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all tasks of a built dataset, without pixels."""
    files = [path for path in sorted(folder.rglob("*.parquet")) if ".build" not in path.parts]
    return [row for path in files for row in pq.read_table(path).drop_columns("image").to_pylist()]
