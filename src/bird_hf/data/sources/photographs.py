"""An image file with the frame of its marks: pixels are upright, and marks are turned onto them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...hub.boxes import Box
from ..frames import Frame, FrameError, Orientation
from ..records import Modality
from .dicom.display import pixels_of
from .dicom.files import read_header
from .dicom.images import DicomImage
from .faults import Drop, FaultyImageError, mask_of_values, read_photograph, read_turned_values

_SLACK_PX = (
    1.0  # a box may lie this far outside the picture, as rounding puts it, and is then cut at the border
)
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
    """The upright pixels of an image file, and how the file's own pixels lie.

    pixels: (H, W, 3) or (H, W) uint8. declared: what the user says about marks whose size leaves their frame open.
    """

    pixels: np.ndarray
    frame: Frame
    declared: Orientation | None = None

    @classmethod
    def read(cls, content: bytes, declared: Orientation | None = None) -> Photograph:
        """Read an image file's bytes. Raises FaultyImageError."""
        return cls(*read_photograph(content), declared)

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

    def orientation_of(self, marks_wh: tuple[int, int] | None) -> Orientation:
        """On which pixels marks of a size were made; None: the size is not known.

        Raises FaultyImageError if the size is not the picture's, or leaves it open.
        """
        try:
            return self.frame.orientation_of(marks_wh, self.declared)
        except FrameError as error:
            reason = Drop.SIZE_MISMATCH if error.is_size else Drop.ORIENTATION_UNKNOWN
            raise FaultyImageError(reason, str(error)) from error

    def marked_shape(self, orientation: Orientation) -> tuple[int, int]:
        """Height and width of the pixels that marks of an orientation were made on."""
        stored = orientation is Orientation.STORED
        width, height = self.frame.stored_wh if stored else self.frame.upright_wh
        return height, width

    def upright_values(self, content: bytes) -> np.ndarray:
        """A mask file's bytes -> its values (H, W) on the upright pixels.

        A mask that has an EXIF orientation of its own must have that of the picture. Raises FaultyImageError.
        """
        values, exif = read_turned_values(content)
        size_wh = (values.shape[1], values.shape[0])
        if exif == 1:
            stored = self.orientation_of(size_wh) is Orientation.STORED
            return self.frame.upright(values) if stored else values
        if exif != self.frame.exif:
            detail = f"EXIF orientation {exif} of the mask, {self.frame.exif} of the picture"
            raise FaultyImageError(Drop.ORIENTATION_UNKNOWN, detail)
        if size_wh != self.frame.upright_wh:
            mask, picture = ("{}x{}".format(*size) for size in (size_wh, self.frame.upright_wh))
            raise FaultyImageError(Drop.SIZE_MISMATCH, f"marks of {mask}, picture of {picture}")
        return values

    def mask(self, content: bytes, name: str) -> np.ndarray:
        """A mask file's bytes -> (H, W) bool on the upright picture.

        name: of the file. Raises FaultyImageError if the file is no mask or was made on an image of another size.
        """
        if name.lower().endswith(_JPEG):
            raise FaultyImageError(Drop.UNREADABLE_MASK, f"{name}: JPEG changes values; save masks as PNG")
        try:
            return mask_of_values(self.upright_values(content))
        except FaultyImageError as error:
            raise FaultyImageError(
                error.reason, f"{name}: {error.detail}" if error.detail else name
            ) from error

    def box(self, xyxy_px: Sequence[float], marks_wh: tuple[int, int] | None) -> Box:
        """A box of half-open pixels -> the box on the upright picture.

        marks_wh: width and height of the image that the box was drawn on; None if unknown. Raises FaultyImageError.
        """
        stored = self.orientation_of(marks_wh) is Orientation.STORED
        height, width = self.marked_shape(Orientation.STORED if stored else Orientation.UPRIGHT)
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
