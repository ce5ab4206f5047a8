"""Draw boxes and outlines on images: the model's solid and labelled, the reference's dashed; write PNG files."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from .atomic_writes import replacing_file
from .hub.boxes import Box
from .hub.grounding import Span

MIN_SIDE_PX = 512  # smaller images are enlarged, so that lines and labels can be read
MODEL_COLOURS = ("#ff9f1c", "#2ec4f1", "#ff5d8f", "#b8e04a", "#c49bff")
REFERENCE_COLOUR = "#39d353"
_TEXT_COLOUR, _BACKGROUND = "#f2f2f2", "#1b1b1b"
_DASH_PX = 7


def draw_spans(image: Image.Image, spans: Sequence[Span], reference: Sequence[Span] = ()) -> Image.Image:
    """Returns a copy of `image` (RGB, at least 512 pixels on its longer side) with the boxes of `spans`.

    All boxes of a phrase have the same colour. `reference` is drawn below them, dashed and green.
    """
    canvas = _enlarged(image)
    pen = ImageDraw.Draw(canvas)
    for span in reference:
        for box in span.boxes:
            _dashed_rectangle(pen, box.to_pixels(canvas.size), REFERENCE_COLOUR)
    for number, span in enumerate(spans):
        colour = MODEL_COLOURS[number % len(MODEL_COLOURS)]
        for box in span.boxes:
            pen.rectangle(_inside(box, canvas.size), outline=colour, width=3)
            _label(pen, span.phrase, box, canvas.size, colour)
    return canvas


def draw_outlines(image: Image.Image, masks: Sequence[np.ndarray | None]) -> Image.Image:
    """Returns a copy of `image` (RGB) with the outlines of masks (H, W) bool, in the colours of as many spans."""
    pixels = np.array(image.convert("RGB"))
    for number, mask in enumerate(masks):
        if mask is None:
            continue
        fitted = Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST)
        inside = np.pad(np.asarray(fitted, bool), 1)
        core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        colour = ImageColor.getrgb(MODEL_COLOURS[number % len(MODEL_COLOURS)])
        pixels[inside[1:-1, 1:-1] & ~core] = colour
    return Image.fromarray(pixels)


def data_uri(image: Image.Image) -> str:
    """Returns the picture as a JPEG in a data URI, for pages without external files."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def captioned(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """Returns the picture with lines of text below it, wrapped to its width."""
    font = _font(15)
    wrapped = [part for line in lines for part in _wrapped(line, font, image.width - 16)]
    step = 20
    canvas = Image.new("RGB", (image.width, image.height + step * len(wrapped) + 14), _BACKGROUND)
    canvas.paste(image, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(wrapped):
        pen.text((8, image.height + 6 + step * number), line, font=font, fill=_TEXT_COLOUR)
    return canvas


def contact_sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Returns pictures of the same width as a grid; each row is as high as its highest picture."""
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    width = max(picture.width for picture in pictures)
    sheet = Image.new("RGB", (width * min(columns, len(pictures)), sum(heights)), _BACKGROUND)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for number, picture in enumerate(row):
            sheet.paste(picture, (number * width, top))
        top += height
    return sheet


def check_png_path(path: Path) -> None:
    """Raises ValueError if `save_png` cannot write to `path`; call it before the work whose result is saved."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: pictures are written as PNG; give a name that ends in .png")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG file atomically."""
    with replacing_file(path) as making:
        picture.save(making, format="PNG")


def _enlarged(image: Image.Image) -> Image.Image:
    scale = max(1.0, MIN_SIDE_PX / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _inside(box: Box, image_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns the corner pixels of a box's outline: the far corner of a box is outside of it, PIL draws it inside."""
    x1, y1, x2, y2 = box.to_pixels(image_wh)
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)


def _label(pen: ImageDraw.ImageDraw, phrase: str, box: Box, image_wh: tuple[int, int], colour: str) -> None:
    """Draw the phrase above its box, or inside the box if there is no space above it."""
    if not phrase:
        return
    font = _font(14)
    x1, y1, _, _ = box.to_pixels(image_wh)
    left, _, right, bottom = pen.textbbox((0, 0), phrase, font=font)
    x = max(0.0, min(x1, image_wh[0] - (right - left) - 6))
    y = y1 - bottom - 4 if y1 > bottom + 4 else y1 + 2
    pen.rectangle((x, y, x + right - left + 6, y + bottom + 4), fill=colour)
    pen.text((x + 3, y + 1), phrase, font=font, fill="black")


def _wrapped(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """Wrap a line of text to a width, but not to less than 20 characters."""
    columns = max(20, len(line))
    while True:
        parts = textwrap.wrap(line, columns) or [""]
        if columns == 20 or all(font.getlength(part) <= width_px for part in parts):
            return parts
        columns = max(20, columns * 9 // 10)


def _dashed_rectangle(pen: ImageDraw.ImageDraw, xyxy: tuple[float, ...], colour: str) -> None:
    x1, y1, x2, y2 = map(round, xyxy)
    for y in (y1, y2 - 1):
        for x in range(x1, x2, 2 * _DASH_PX):
            pen.line((x, y, min(x + _DASH_PX, x2), y), fill=colour, width=2)
    for x in (x1, x2 - 1):
        for y in range(y1, y2, 2 * _DASH_PX):
            pen.line((x, y, x, min(y + _DASH_PX, y2)), fill=colour, width=2)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
