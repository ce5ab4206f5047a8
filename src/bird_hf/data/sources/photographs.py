"""An image file with the frame of its marks: pixels are upright, and marks are turned onto them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..frames import Frame, FrameError, Orientation
from .faults import Drop, FaultyImageError, read_photograph, read_turned_values


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
