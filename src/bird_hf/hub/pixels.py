"""Any image file -> upright 8-bit RGB, safely.

Medical images come in many depths and colour modes. How each becomes 8-bit RGB:

- grey deeper than 8 bits, and floating point: the image's own minimum becomes 0, its own maximum 255;
- colour of 16 bits a channel: the upper 8 bits;
- alpha: laid over white; palette: looked up; grey and 1-bit: three equal channels; CMYK: Pillow's conversion;
- EXIF orientation is applied, so boxes refer to the upright image; of several frames the first is read.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

MIN_SIDE_PX = 8
MAX_SIDE_PX = 20_000
MAX_PIXELS = 64_000_000

# Decoders that only read pixels: others of Pillow's start programs (EPS) or are rarely exercised.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA")


def open_image(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """Read an image file, or the bytes of one, as upright 8-bit RGB.

    Raises ValueError, in one line, if the file is missing, empty, unreadable, truncated, of an unsupported
    format, or outside the limits (sides of 8 to 20,000 pixels, 64 million pixels).
    """
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the image")
    name = f"image {os.fspath(source)}"
    try:
        with Path(source).open("rb") as stream:
            return _decode(stream, name)
    except OSError as error:
        raise ValueError(f"{name} cannot be opened: {error.strerror or error}; check the path") from error


def rgb_image(image: Image.Image) -> Image.Image:
    """Any Pillow image -> upright 8-bit RGB, by the rules at the head of this file."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(stretch_to_uint8(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def stretch_to_uint8(values: np.ndarray) -> np.ndarray:
    """Map an array's own finite range to 0..255; what is not finite becomes 0. A flat array becomes 0."""
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = values[finite].min(), values[finite].max()
    if low == high:
        return np.zeros(values.shape, np.uint8)
    return np.rint(np.where(finite, values - low, 0.0) * (255.0 / (high - low))).astype(np.uint8)


def _decode(stream: BinaryIO, name: str) -> Image.Image:
    # Damaged and hostile files make decoders raise nearly anything, so both steps catch everything.
    try:
        image = Image.open(stream, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(_too_large(name, "its header announces an enormous size")) from error
    except Exception as error:
        known = "PNG, JPEG, BMP, GIF, TIFF, WebP, PPM, JPEG 2000 or TGA"
        raise ValueError(f"{name} is not a readable image; give a {known} file") from error
    _check_size(image.size, name)
    try:
        image.load()
        return rgb_image(image)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{name} is damaged or truncated ({reason}); copy it again") from error


def _check_size(size_wh: tuple[int, int], name: str) -> None:
    width, height = size_wh
    if min(size_wh) < MIN_SIDE_PX:
        raise ValueError(f"{name} is {width}x{height} pixels; sides must be at least {MIN_SIDE_PX}")
    if max(size_wh) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise ValueError(_too_large(name, f"it is {width}x{height} pixels"))


def _too_large(name: str, what: str) -> str:
    limits = f"sides up to {MAX_SIDE_PX} and {MAX_PIXELS // 1_000_000} million pixels"
    return f"{name} is too large: {what}; {limits} are read, so scale it down first"
