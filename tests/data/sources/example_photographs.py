"""Photographs with an EXIF orientation, and rectangles on their stored or upright pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

RECTANGLE = (3, 2, 11, 7)  # half-open, without any symmetry in the pictures of the tests


def encoded(array: np.ndarray, exif: int = 1, kind: str = "PNG") -> bytes:
    """An image file with an EXIF orientation; 1 writes none."""
    header = Image.Exif()
    header[0x0112] = exif
    options = {} if exif == 1 else {"tiffinfo": {0x0112: exif}} if kind == "TIFF" else {"exif": header}
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def pixels(wh: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (wh[1], wh[0]), dtype=np.uint8)


def rectangle(wh: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) bool of RECTANGLE."""
    x1, y1, x2, y2 = RECTANGLE
    mask = np.zeros((wh[1], wh[0]), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def turned(array: np.ndarray, exif: int) -> np.ndarray:
    """Stored -> upright, by Pillow's own function."""
    image = Image.open(io.BytesIO(encoded(array.astype(np.uint8), exif)))
    return np.asarray(ImageOps.exif_transpose(image)).astype(array.dtype)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return (
        int(columns.min()),
        int(rows.min()),
        int(columns.max()) + 1,
        int(rows.max()) + 1,
    )


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
