"""DICOM images: what their headers say, their values, and a series of them as a volume."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...records import Modality
from ...volumes import MAX_VOXELS, Volume, canonical
from ..faults import Drop, FaultyImageError
from .files import MAX_FRAMES, check_header_size, is_dicom, quiet, read_header, read_pixels, require_pydicom
from .functional_groups import PER_FRAME, SHARED, FrameGroups, groups_of
from .planes import Plane
from .windows import Window, windows_of

_MODALITIES = {
    "CT": Modality.CT,
    "MR": Modality.MR,
    "PT": Modality.PET,
    "US": Modality.ULTRASOUND,
    "ES": Modality.ENDOSCOPY,
    "OP": Modality.FUNDUS,
    "DMS": Modality.DERMOSCOPY,
    **dict.fromkeys(("CR", "DX", "XA", "RF", "MG", "RG", "PX", "IO"), Modality.X_RAY),
}
_NOT_DISPLAYED = ("RTDOSE", "SEG")  # they have rows and columns, but what these hold is no picture
_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "Modality",
    "BodyPartExamined",
    "BurnedInAnnotation",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "BitsAllocated",
    "SamplesPerPixel",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
)


@dataclass(frozen=True)
class DicomImage:
    """The header of an image that can be read. Its identifiers are published only as hashes.

    frame: from 0; None for a file with one image. frames: in the file. rescale: slope and intercept of the frame, if
    they are in its functional groups. window: the first usable one of these groups. spacing_mm: between rows, then
    between columns, for images without a plane.
    """

    path: str
    uid: str
    series: str
    study: str
    patient: str
    frame_of_reference: str
    modality: Modality
    body_part: str
    shape: tuple[int, int]
    plane: Plane | None
    frame: int | None = None
    frames: int = 1
    rescale: tuple[float, float] | None = None
    window: Window | None = None
    spacing_mm: tuple[float, float] | None = None

    @property
    def key(self) -> tuple[str, int]:
        """The UID of the file, and the frame in it."""
        return self.uid, self.frame or 0


def known_modality(header: Any) -> Modality | None:
    """The imaging modality of a header; None for codes of other objects, such as OT for secondary captures."""
    return _MODALITIES.get(str(header.get("Modality")))


@quiet()
def read_images(
    root: Path, path: str, modality: Modality | None = None, burned_in: bool = False
) -> tuple[DicomImage, ...]:
    """The images of a file: one, or one for each frame; none if the file is not an image.

    modality: of images whose header has none of the imaging modalities. burned_in: whether images whose header says
    that the pixels contain text are read. Raises FaultyImageError if the file cannot be used.
    """
    header = read_header(root / path, Drop.UNREADABLE_IMAGE, _TAGS)
    try:
        if not _is_image(header):
            return ()
        if header.get("BurnedInAnnotation") == "YES" and not burned_in:
            raise FaultyImageError(Drop.BURNED_IN)
        of_header, code = known_modality(header), str(header.get("Modality") or "")
        if of_header is None and (modality is None or code in _NOT_DISPLAYED):
            raise FaultyImageError(Drop.UNKNOWN_MODALITY, _modality_detail(code))
        text = {
            name: str(header.get(tag) or "")
            for name, tag in (
                ("uid", "SOPInstanceUID"),
                ("series", "SeriesInstanceUID"),
                ("study", "StudyInstanceUID"),
                ("patient", "PatientID"),
                ("frame_of_reference", "FrameOfReferenceUID"),
                ("body_part", "BodyPartExamined"),
            )
        }
        if not (text["uid"] and text["series"] and text["study"]):
            raise FaultyImageError(Drop.UNREADABLE_IMAGE, "without identifiers")
        shape = int(header.Rows), int(header.Columns)
        common = {"path": path, "modality": of_header or modality, "shape": shape, **text}
        return _frames_of(root / path, header, common)
    except FaultyImageError:
        raise
    except Exception as error:  # elements are decoded when they are accessed
        raise FaultyImageError(Drop.UNREADABLE_IMAGE, type(error).__name__) from error


def _is_image(header: Any) -> bool:
    """Whether an object is an image. Raises FaultyImageError if it should be, but has no size."""
    if "Rows" in header and "Columns" in header:
        return True
    kind = header.get("SOPClassUID")
    standard = "" if kind is None or kind.name == kind else str(kind.name)
    if kind is None or "Image Storage" in standard or (not standard and known_modality(header)):
        raise FaultyImageError(Drop.UNREADABLE_IMAGE, "truncated")
    return False


def _modality_detail(code: str) -> str:
    if code in _NOT_DISPLAYED:
        return f"Modality {code} is not an image"
    readable = code if re.fullmatch(r"[A-Z]{2,10}", code) else "missing or unreadable"
    return f"Modality {readable}; give the modality of such images"


def _frames_of(path: Path, header: Any, common: dict[str, Any]) -> tuple[DicomImage, ...]:
    """One image for each frame of a file with these common fields. Raises FaultyImageError or any other error."""
    shape, frames = common["shape"], int(header.get("NumberOfFrames") or 1)
    if not 0 < frames <= MAX_FRAMES:
        raise FaultyImageError(Drop.UNREADABLE_IMAGE, f"{frames} frames, the limit is {MAX_FRAMES:,}")
    groups: list[FrameGroups] = []
    if "NumberOfFrames" in header:
        check_header_size(path, header, Drop.UNREADABLE_IMAGE)
        tags = ("Rows", "Columns", SHARED, PER_FRAME)
        groups = groups_of(read_header(path, Drop.UNREADABLE_IMAGE, tags), frames)
    if not groups and frames == 1:
        return (DicomImage(**common, plane=_plane_of(header, shape), spacing_mm=_spacing_of(header)),)
    found = []
    for number in range(frames):
        of_frame = groups[number] if groups else FrameGroups(None, None)
        measures = of_frame.first("PixelMeasuresSequence") or header
        found.append(
            DicomImage(
                **common,
                plane=of_frame.plane(shape),
                frame=number if frames > 1 else None,
                frames=frames,
                rescale=_rescale_of(of_frame.first("PixelValueTransformationSequence")),
                window=next(iter(windows_of(of_frame.first("FrameVOILUTSequence"))), None),
                spacing_mm=_spacing_of(measures),
            )
        )
    return tuple(found)


def _plane_of(header: Any, shape: tuple[int, int]) -> Plane | None:
    """The plane of an image; None if the header has no position, as for projections and video frames."""
    position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    spacing = header.get("PixelSpacing")
    if position is None or orientation is None or spacing is None:
        return None
    return Plane.of(position, orientation, spacing, shape)


def _spacing_of(header: Any) -> tuple[float, float] | None:
    """The spacing of rows and columns; None if the header has none that can be used."""
    try:
        rows_mm, columns_mm = (float(value) for value in header.get("PixelSpacing") or ())
    except (TypeError, ValueError):
        return None
    usable = min(rows_mm, columns_mm) > 0 and np.isfinite([rows_mm, columns_mm]).all()
    return (rows_mm, columns_mm) if usable else None


def _rescale_of(item: Any) -> tuple[float, float] | None:
    """Slope and intercept of a pixel value transformation. Raises ValueError if they are not numbers."""
    if item is None:
        return None
    slope, intercept = float(item.RescaleSlope), float(item.RescaleIntercept)
    if not np.isfinite([slope, intercept]).all():
        raise ValueError("a rescale that is not finite")
    return slope, intercept


@quiet()
def read_values(
    path: Path, frame: int | None = None, rescale: tuple[float, float] | None = None
) -> tuple[Any, np.ndarray]:
    """Header and values: (H, W) float32 in the modality's unit, or (H, W, 3) uint8. Raises FaultyImageError.

    frame: of a file with several, from 0. rescale: slope and intercept of the frame, if it has its own.
    """
    from pydicom.pixels import apply_modality_lut

    header, stored = read_pixels(path, Drop.UNREADABLE_IMAGE, frame)
    try:
        if stored.ndim == 3 and stored.shape[-1] == 3:
            return header, stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)
        if stored.ndim != 2:
            raise ValueError("not a single image")
        if rescale is None:
            return header, apply_modality_lut(stored, header).astype(np.float32)
        return header, (stored.astype(np.float64) * rescale[0] + rescale[1]).astype(np.float32)
    except Exception as error:
        raise FaultyImageError(Drop.UNREADABLE_IMAGE, type(error).__name__) from error


def read_series(path: Path) -> Volume:
    """Read one series of parallel, evenly spaced slices as a volume.

    path: a folder that contains one file for each slice, under any names, or one file with a frame for each slice; or
    such a file itself. Raises ValueError, in one line, if the slices do not make a volume.
    """
    require_pydicom(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    images = [
        image
        for file in files
        if file.is_file() and is_dicom(file)
        # Only voxels are taken, so a modality is given to headers without one.
        for image in read_images(file.parent, file.name, Modality.CT)
    ]
    number = len({image.series for image in images})
    if number != 1:
        raise ValueError(f"{path} contains {number} DICOM series of images; give each its own folder")
    placed = [(image.plane, image) for image in images if image.plane is not None]
    if len(placed) < len(images) or len(placed) < 2:
        raise ValueError(
            f"{path}: at least two slices are needed, all with position, orientation and spacing"
        )
    placed.sort(key=lambda item: item[0].axis_and_height()[1])
    step = _step_of([plane for plane, _ in placed], path)
    first = placed[0][0]
    if len(placed) * first.shape[0] * first.shape[1] > MAX_VOXELS:
        raise ValueError(f"{path} has more than {MAX_VOXELS:,} voxels; crop it first")
    folder = path if path.is_dir() else path.parent
    values = [read_values(folder / image.path, image.frame, image.rescale)[1].T for _, image in placed]
    return canonical(np.stack(values, axis=2), first.affine(step), str(path))


def _step_of(planes: Sequence[Plane], path: Path) -> np.ndarray:
    """(3,) from a slice to the next. Raises ValueError if the slices are not parallel and evenly spaced."""
    first, last = planes[0], planes[-1]
    step = (last.origin - first.origin) / (len(planes) - 1)
    expected = [np.tile(step * number, 3) + first.corners for number in range(len(planes))]
    apart = max(np.abs(plane.corners - e).max() for plane, e in zip(planes, expected, strict=True))
    same = all(plane.shape == first.shape for plane in planes)
    if not same or apart > first.half_pixel or not np.linalg.norm(step) > 2 * apart:
        raise ValueError(f"{path}: the slices are not parallel and evenly spaced; is one missing?")
    return step
