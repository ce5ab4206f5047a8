"""A decoded picture with the frame of its file: masks and boxes are brought onto it here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...hub.boxes import Box
from ..frames import Frame, FrameError, Orientation, frame_of
from ..records import Modality
from .dicom.files import read_header
from .dicom.images import DicomImage, pixels_of
from .faults import Drop, FaultyImageError, read_mask, read_pixels, read_values

_SLACK_PX = (
    1.0  # a box may lie this far outside the picture, as rounding puts it, and is then cut at the border
)
_MOST_VALUES = 6  # of a mask, in a message
_JPEG = (".jpg", ".jpeg")
_DICOM_TAGS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "BurnedInAnnotation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
)


@dataclass(frozen=True)
class Photograph:
    """pixels: upright, (H, W) or (H, W, 3) uint8. frame: how the pixels of the file lie. declared: `orientation`."""

    pixels: np.ndarray
    frame: Frame
    declared: Orientation | None = None

    @classmethod
    def of_file(cls, content: bytes, declared: Orientation | None) -> Photograph:
        """Decode an image file. Raises FaultyImageError."""
        pixels = read_pixels(content)
        try:
            return cls(pixels, frame_of(content), declared)
        except ValueError as error:
            raise FaultyImageError(Drop.UNREADABLE_IMAGE, str(error)) from error

    @classmethod
    def of_dicom(cls, path: Path, modality: Modality) -> Photograph:
        """Decode a DICOM file of one frame on its stored pixels. Raises FaultyImageError.

        A slice with a position in the patient is refused: it would be displayed in radiological convention, and marks
        of its stored pixels would be mirrored with it or not.
        """
        header = read_header(path, Drop.UNREADABLE_IMAGE, _DICOM_TAGS)
        try:
            if int(header.get("NumberOfFrames") or 1) > 1:
                raise FaultyImageError(Drop.MULTI_FRAME)
            if header.get("BurnedInAnnotation") == "YES":
                raise FaultyImageError(Drop.BURNED_IN)
            if header.get("ImagePositionPatient") and header.get("ImageOrientationPatient"):
                raise FaultyImageError(
                    Drop.ORIENTATION_UNKNOWN, "a slice with a position in the patient; save it as PNG"
                )
            shape = int(header.Rows), int(header.Columns)
        except FaultyImageError:
            raise
        except Exception as error:  # elements are decoded when they are accessed
            raise FaultyImageError(Drop.UNREADABLE_IMAGE, type(error).__name__) from error
        image = DicomImage(
            path=path.name,
            uid="",
            series="",
            study="",
            patient="",
            frame_of_reference="",
            modality=modality,
            body_part="",
            shape=shape,
            plane=None,
        )
        return cls(pixels_of(image, path, None), Frame(1, (shape[1], shape[0])))

    def mask(self, content: bytes, name: str) -> np.ndarray:
        """A mask file's bytes -> (H, W) bool on the upright picture.

        name: of the file. Raises FaultyImageError if the file is no mask or was made on an image of another size.
        """
        if name.lower().endswith(_JPEG):
            raise FaultyImageError(Drop.UNREADABLE_MASK, f"{name}: JPEG changes values; save masks as PNG")
        try:
            values = read_mask(content)
        except FaultyImageError as error:
            if error.reason is not Drop.NOT_BINARY or error.detail:
                raise
            found = np.unique(read_values(content)).tolist()
            listed = ", ".join(map(str, found[:_MOST_VALUES])) + (
                ", ..." if len(found) > _MOST_VALUES else ""
            )
            raise FaultyImageError(
                Drop.NOT_BINARY, f"{name}: values {listed}; a mask has 0 and one more"
            ) from error
        stored = self._orientation_of((values.shape[1], values.shape[0])) is Orientation.STORED
        return self.frame.upright(values) if stored else values

    def box(self, xyxy_px: Sequence[float], marks_wh: tuple[int, int] | None) -> Box:
        """A box of half-open pixels -> the box on the upright picture.

        marks_wh: width and height of the image that the box was drawn on; None if unknown. Raises FaultyImageError.
        """
        stored = self._orientation_of(marks_wh) is Orientation.STORED
        width, height = self.frame.stored_wh if stored else self.frame.upright_wh
        x1, y1, x2, y2 = xyxy_px
        text = f"box {x1:g}, {y1:g}, {x2:g}, {y2:g}"
        if not (x1 < x2 and y1 < y2):
            raise FaultyImageError(Drop.UNREADABLE_BOX, f"{text} is empty or inverted")
        if min(x1, y1) < -_SLACK_PX or x2 > width + _SLACK_PX or y2 > height + _SLACK_PX:
            raise FaultyImageError(Drop.UNREADABLE_BOX, f"{text} is outside the {width}x{height} picture")
        inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        try:
            return Box.from_pixels(
                self.frame.upright_box(inside) if stored else inside, self.frame.upright_wh
            )
        except ValueError as error:  # nothing is left inside the picture
            raise FaultyImageError(
                Drop.UNREADABLE_BOX, f"{text} is outside the {width}x{height} picture"
            ) from error

    def _orientation_of(self, marks_wh: tuple[int, int] | None) -> Orientation:
        try:
            return self.frame.orientation_of(marks_wh, self.declared)
        except FrameError as error:
            reason = Drop.SIZE_MISMATCH if error.is_size else Drop.ORIENTATION_UNKNOWN
            raise FaultyImageError(reason, str(error)) from error
