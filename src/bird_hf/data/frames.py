"""The frame of marks on a photograph: masks and boxes are brought onto the upright pixels, in this module only.

A camera stores pixels as its sensor lies and notes in the file's EXIF orientation how to turn them. Everything here
shows the upright picture (`hub/pixels.py`), so marks that were made on the stored pixels have to be turned with it, and
marks that were made on the upright picture must not be. Which of both they are is read from their size (the width and
height in a COCO file, the shape of a mask). If the size cannot tell, as for square pictures, mirrors and half turns,
the user's `orientation` decides; without it the image is left out. Nothing is guessed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from ..hub.pixels import FORMATS

_EXIF_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)


class Orientation(StrEnum):
    """On which pixels marks were made, if the picture has an EXIF orientation."""

    STORED = "stored"
    UPRIGHT = "upright"


class FrameError(ValueError):
    """Marks that cannot be brought onto a picture. `is_size`: their size is neither the stored nor the upright one."""

    def __init__(self, message: str, is_size: bool) -> None:
        super().__init__(message)
        self.is_size = is_size


@dataclass(frozen=True)
class Frame:
    """How the pixels of a file lie. exif: its EXIF orientation, 1 to 8; 1 is upright. stored_wh: width and height."""

    exif: int
    stored_wh: tuple[int, int]

    @property
    def upright_wh(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        width, height = self.stored_wh
        return (height, width) if self.exif in _TRANSPOSED else (width, height)

    def orientation_of(
        self, marks_wh: tuple[int, int] | None, declared: Orientation | None = None
    ) -> Orientation:
        """On which pixels marks were made.

        marks_wh: width and height of the image that they were made on; None if it is not known. declared: what the user
        says. Raises FrameError if the size is neither of both, contradicts the user, or leaves it open.
        """
        sizes = {Orientation.STORED: self.stored_wh, Orientation.UPRIGHT: self.upright_wh}
        possible = [each for each, size in sizes.items() if marks_wh in (None, size)]
        if not possible:
            raise FrameError(f"marks of {_wh(marks_wh)}, picture of {_wh(self.upright_wh)}", is_size=True)
        if self.exif == 1:
            return Orientation.UPRIGHT
        if declared is not None:
            if declared not in possible:
                raise FrameError(
                    f"orientation {declared}, marks of {_wh(marks_wh)}, picture of {_wh(self.stored_wh)} stored "
                    f"and {_wh(self.upright_wh)} upright",
                    is_size=True,
                )
            return declared
        if len(possible) > 1:
            raise FrameError(f"EXIF orientation {self.exif}, {_wh(self.upright_wh)} upright", is_size=False)
        return possible[0]

    def upright(self, stored: np.ndarray) -> np.ndarray:
        """An array (H, W) or (H, W, C) on the stored pixels -> the same on the upright ones."""
        if self.exif in _TRANSPOSED:
            stored = stored.swapaxes(0, 1)
        rows, columns = _REVERSED[self.exif]
        return stored[:: -1 if rows else 1, :: -1 if columns else 1]

    def upright_points(self, points_xy: np.ndarray) -> np.ndarray:
        """Points (N, 2) in stored pixels, corners of pixels being whole numbers -> the same in upright pixels."""
        if self.exif in _TRANSPOSED:
            points_xy = points_xy[:, ::-1]
        rows, columns = _REVERSED[self.exif]
        width, height = self.upright_wh
        x, y = points_xy[:, 0], points_xy[:, 1]
        return np.stack([width - x if columns else x, height - y if rows else y], axis=1)

    def upright_box(self, box_xyxy: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box of half-open stored pixels -> the same in upright pixels."""
        corners = self.upright_points(np.array(box_xyxy, np.float64).reshape(2, 2))
        (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
        return float(x1), float(y1), float(x2), float(y2)


# EXIF orientation -> whether rows and columns are reversed, after the transposition of 5 to 8.
_REVERSED = {
    1: (False, False),
    2: (False, True),
    3: (True, True),
    4: (True, False),
    5: (False, False),
    6: (False, True),
    7: (True, True),
    8: (True, False),
}


def frame_of(source: bytes | Path | Image.Image) -> Frame:
    """The frame of an image file, or of the bytes of one, from its header. Raises ValueError if it is not an image."""
    if isinstance(source, Image.Image):
        return _frame(source)
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened, formats=FORMATS) as image:
            return _frame(image)
    except Exception as error:  # damaged files raise many kinds of errors
        raise ValueError(f"the image cannot be read ({type(error).__name__})") from error


def exif_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; for a TIFF before its pixels are loaded."""
    exif = image.getexif().get(_EXIF_ORIENTATION, 1)
    return exif if exif in _REVERSED else 1


def _frame(image: Image.Image) -> Frame:
    exif = exif_of(image)
    # Pillow announces and loads a TIFF upright already.
    turned = image.format == "TIFF" and exif in _TRANSPOSED
    return Frame(exif, image.size[::-1] if turned else image.size)


def _wh(size_wh: tuple[int, int] | None) -> str:
    return "unknown size" if size_wh is None else f"{size_wh[0]}x{size_wh[1]}"
