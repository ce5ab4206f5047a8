"""Draws docs/pictures/frames.png: `python docs/make_frames_picture.py`. The numbers in the picture are computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bird_hf.data.frames import Frame
from bird_hf.data.masks import box_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality

PICTURE = Path(__file__).parent / "pictures" / "frames.png"
PAPER, INK, RIGHT, WRONG = "#ffffff", "#20242a", "#047857", "#c2410c"
SIDE, MARGIN, TOP = 260, 30, 70
EXIF = 6  # how phones note a picture that was taken upright: turn the stored pixels to the right


def panel(
    page: Image.Image,
    left: int,
    pixels: np.ndarray,
    box: tuple[float, ...],
    colour: str,
    words: tuple[str, str],
) -> None:
    """Draw pixels (H, W, 3) with a box in pixels, and two lines above them."""
    height, width = pixels.shape[:2]
    page.paste(Image.fromarray(pixels), (left, TOP))
    pen = ImageDraw.Draw(page)
    x1, y1, x2, y2 = box
    pen.rectangle((left + x1, TOP + y1, left + x2 - 1, TOP + y2 - 1), outline=PAPER, width=5)
    pen.rectangle((left + x1 + 1, TOP + y1 + 1, left + x2 - 2, TOP + y2 - 2), outline=colour, width=3)
    title, numbers = words
    pen.text((left, 12), f"{title}, {width} x {height}", font=ImageFont.load_default(16), fill=INK)
    pen.text((left, 38), numbers, font=ImageFont.load_default(16), fill=colour)


def main() -> None:
    drawn = draw_phantom(Modality.DERMOSCOPY, 2, SIDE)
    upright, mask = drawn.pixels, drawn.masks[2][1]
    stored, stored_mask = np.rot90(upright), np.rot90(mask)
    size_wh = (stored.shape[1], stored.shape[0])
    frame = Frame(EXIF, size_wh)
    made = box_of(stored_mask).to_pixels(size_wh)
    turned = frame.upright_box(made)
    width = size_wh[0] + 2 * frame.upright_wh[0] + 4 * MARGIN + 60
    page = Image.new("RGB", (width, TOP + max(size_wh[1], frame.upright_wh[1]) + MARGIN), PAPER)
    shown = {
        name: "({:g}, {:g}, {:g}, {:g})".format(*box) for name, box in (("made", made), ("turned", turned))
    }
    left = MARGIN
    panel(page, left, stored, made, RIGHT, ("As stored", shown["made"]))
    left += size_wh[0] + MARGIN + 30
    panel(page, left, upright, turned, RIGHT, ("Upright", shown["turned"]))
    left += frame.upright_wh[0] + MARGIN + 30
    panel(page, left, upright, made, WRONG, ("Not turned", shown["made"]))
    PICTURE.parent.mkdir(exist_ok=True)
    page.quantize(128, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
