"""DICOM images: their planes in the patient, as their headers give them, and their display.

DICOM coordinates are in millimetres to the patient's left, back and head (LPS); those of a `Volume` are to the right,
front and head (RAS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....hub.pixels import stretch_to_uint8
from ...records import Axis, Modality
from ...volumes import (
    MAX_VOXELS,
    VOXEL_AXIS,
    Volume,
    canonical,
    label_slice_at,
    mr_window,
    slice_at,
    to_uint8,
)
from ..faults import Drop, FaultyImageError
from .files import is_dicom, read_header, read_pixels

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
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
)
_PHYSICAL = (Modality.CT, Modality.PET)  # values have a unit, and larger ones are displayed brighter
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Plane:
    """The plane of an image in the patient's LPS coordinates, in millimetres."""

    origin: np.ndarray  # (3,) centre of the first pixel
    column_step: np.ndarray  # (3,) from a pixel to the one in the next column
    row_step: np.ndarray  # (3,) from a pixel to the one in the next row
    shape: tuple[int, int]  # rows, columns

    @classmethod
    def of(cls, position: Any, orientation: Any, spacing: Any, shape: tuple[int, int]) -> Plane:
        """The plane of DICOM's position, orientation and spacing. Raises ValueError if they do not define one."""
        directions = np.array(orientation, float).reshape(2, 3)
        row_mm, column_mm = np.array(spacing, float)
        plane = cls(np.array(position, float), directions[0] * column_mm, directions[1] * row_mm, shape)
        square = np.allclose(directions @ directions.T, np.eye(2), atol=0.01)
        if plane.origin.shape != (3,) or not square or not min(row_mm, column_mm) > 0:
            raise ValueError("position, orientation and spacing do not define a plane")
        if not np.isfinite(plane.corners).all():
            raise ValueError("the plane is not finite")
        return plane

    @property
    def corners(self) -> np.ndarray:
        """(9,) the centres of the first pixel, the last pixel of the first row and the last of the first column."""
        across, down = self.column_step * (self.shape[1] - 1), self.row_step * (self.shape[0] - 1)
        return np.concatenate([self.origin, self.origin + across, self.origin + down])

    @property
    def half_pixel(self) -> float:
        """Half of the smaller side of a pixel, in millimetres."""
        return float(min(np.linalg.norm(self.column_step), np.linalg.norm(self.row_step))) / 2

    def affine(self, slice_step: np.ndarray | None = None) -> np.ndarray:
        """(4, 4) (column, row, slice) -> RAS+ millimetres. Without `slice_step`, slices are 1 mm apart."""
        normal = np.cross(self.column_step, self.row_step)
        step = normal / np.linalg.norm(normal) if slice_step is None else slice_step
        affine = np.eye(4)
        affine[:3] = np.stack([self.column_step, self.row_step, step, self.origin], axis=1)
        return _LPS_TO_RAS @ affine

    def axis_and_height(self) -> tuple[Axis, float]:
        """The nearest plane of the body, and the position (mm) along its normal: to the right, front or head."""
        import nibabel as nib

        affine = self.affine()
        number = int(nib.orientations.io_orientation(affine)[2, 0])
        normal = affine[:3, 2] * np.sign(affine[number, 2])
        axis = next(axis for axis, voxel_axis in VOXEL_AXIS.items() if voxel_axis == number)
        return axis, float(normal @ affine[:3, 3])

    def displayed(self, values: np.ndarray, is_mask: bool) -> np.ndarray:
        """Values (rows, columns) of this plane in radiological convention, as `volumes.slice_at` displays slices."""
        volume = canonical(values.T[:, :, None], self.affine())
        axis = self.axis_and_height()[0]
        return label_slice_at(volume, axis, 0) if is_mask else slice_at(volume, axis, 0)


@dataclass(frozen=True)
class DicomImage:
    """The header of an image that can be read. Its identifiers are published only as hashes."""

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


def read_image(root: Path, path: str) -> DicomImage | None:
    """The header of an image file; None if the file is not an image. Raises FaultyImageError if it cannot be used."""
    header = read_header(root / path, Drop.UNREADABLE_IMAGE, _TAGS)
    try:
        if "Rows" not in header or "Columns" not in header:
            if "SOPClassUID" not in header or str(header.get("Modality")) in _MODALITIES:
                raise FaultyImageError(Drop.UNREADABLE_IMAGE, "truncated")
            return None
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise FaultyImageError(Drop.MULTI_FRAME)
        if header.get("BurnedInAnnotation") == "YES":
            raise FaultyImageError(Drop.BURNED_IN)
        if (modality := _MODALITIES.get(str(header.get("Modality")))) is None:
            raise FaultyImageError(Drop.UNKNOWN_MODALITY)
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
        return DicomImage(path=path, modality=modality, shape=shape, plane=_plane_of(header, shape), **text)
    except FaultyImageError:
        raise
    except Exception as error:  # elements are decoded when they are accessed
        raise FaultyImageError(Drop.UNREADABLE_IMAGE, type(error).__name__) from error


def _plane_of(header: Any, shape: tuple[int, int]) -> Plane | None:
    """The plane of an image; None if the header has no position, as for projections and video frames."""
    position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    spacing = header.get("PixelSpacing")
    if position is None or orientation is None or spacing is None:
        return None
    return Plane.of(position, orientation, spacing, shape)


def read_values(path: Path) -> tuple[Any, np.ndarray]:
    """Header and values: (H, W) float32 in the modality's unit, or (H, W, 3) uint8. Raises FaultyImageError."""
    from pydicom.pixels import apply_modality_lut

    header, stored = read_pixels(path, Drop.UNREADABLE_IMAGE)
    try:
        if stored.ndim == 3 and stored.shape[-1] == 3:
            return header, stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)
        if stored.ndim != 2:
            raise ValueError("not a single image")
        return header, apply_modality_lut(stored, header).astype(np.float32)
    except Exception as error:
        raise FaultyImageError(Drop.UNREADABLE_IMAGE, type(error).__name__) from error


def grey_range(paths: Sequence[Path]) -> tuple[float, float] | None:
    """The values a series displays as black and as white, from up to nine slices; None if none can be read."""
    samples = []
    for path in paths[:: -(-len(paths) // 9)]:
        try:
            values = read_values(path)[1]
        except FaultyImageError:
            continue
        samples.append(values.ravel()[:: max(1, values.size // 100_000)])
    return mr_window(np.concatenate(samples)) if samples else None


def pixels_of(image: DicomImage, path: Path, grey: tuple[float, float] | None) -> np.ndarray:
    """The displayed image, uint8: slices in radiological convention, other images as they are stored."""
    from pydicom.pixels import apply_voi_lut

    header, values = read_values(path)
    try:
        if values.ndim == 3:
            return _displayed_rgb(values, image.plane)
        if image.plane is None:
            pixels = stretch_to_uint8(apply_voi_lut(np.rint(values).astype(np.int32), header))
        else:
            pixels = to_uint8(image.plane.displayed(values, is_mask=False), *(grey or mr_window(values)))
        inverted = header.PhotometricInterpretation == "MONOCHROME1" and image.modality not in _PHYSICAL
        return 255 - pixels if inverted else pixels
    except Exception as error:
        raise FaultyImageError(Drop.UNREADABLE_IMAGE, type(error).__name__) from error


def _displayed_rgb(values: np.ndarray, plane: Plane | None) -> np.ndarray:
    if plane is None:
        return values
    channels = [plane.displayed(values[..., channel], is_mask=False) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def read_series(folder: Path) -> Volume:
    """Read a folder that contains one series of parallel, evenly spaced slices, under any names, as a volume.

    Raises ValueError, in one line, if it does not.
    """
    images = [
        image
        for path in sorted(folder.iterdir())
        if path.is_file() and is_dicom(path) and (image := read_image(folder, path.name))
    ]
    number = len({image.series for image in images})
    if number != 1:
        raise ValueError(f"{folder} contains {number} DICOM series of images; give each its own folder")
    planes = [(image.plane, image) for image in images]
    placed = [(plane, image) for plane, image in planes if plane is not None]
    if len(placed) < len(planes) or len(placed) < 2:
        raise ValueError(
            f"{folder}: at least two slices are needed, all with position, orientation and spacing"
        )
    placed.sort(key=lambda item: item[0].axis_and_height()[1])
    first, last = placed[0][0], placed[-1][0]
    step = (last.origin - first.origin) / (len(placed) - 1)
    expected = [np.tile(step * number, 3) + first.corners for number in range(len(placed))]
    apart = max(np.abs(plane.corners - e).max() for (plane, _), e in zip(placed, expected, strict=True))
    same = all(plane.shape == first.shape for plane, _ in placed)
    if not same or apart > first.half_pixel or not np.linalg.norm(step) > 2 * apart:
        raise ValueError(f"{folder}: the slices are not parallel and evenly spaced; is one missing?")
    if len(placed) * first.shape[0] * first.shape[1] > MAX_VOXELS:
        raise ValueError(f"{folder} has more than {MAX_VOXELS:,} voxels; crop it first")
    voxels = np.stack([read_values(folder / image.path)[1].T for _, image in placed], axis=2)
    return canonical(voxels, first.affine(step), str(folder))
