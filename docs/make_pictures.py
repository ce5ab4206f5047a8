"""Draws docs/pictures: `python docs/make_pictures.py`. The numbers in the pictures are computed, not typed.

The picture of answers needs ./bird and ./med-grit, as `bird quickstart` leaves them.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bird_hf import Box, Span
from bird_hf.data.embedded.sample_set import FIRST_PHANTOM_SEED, with_record
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality
from bird_hf.draw import captioned, contact_sheet, draw_spans
from bird_hf.sample import answer_examples

PICTURES = Path(__file__).parent / "pictures"

# An image of 10 x 8 pixels with an object in columns 3..6 and rows 2..4.
IMAGE_WH = (10, 8)
OBJECT_XYXY = (3, 2, 7, 5)

PAPER, INK, GRID, PIXEL, EDGE = "#ffffff", "#20242a", "#c9ced6", "#f7d9b0", "#c2410c"
X_COLOURS = {"pixels": "#20242a", "unit": "#1d4ed8", "thousandths": "#047857"}
SIZE = (1300, 640)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def draw_grid(
    pen: ImageDraw.ImageDraw, box: Box, origin: tuple[int, int], shown_wh: tuple[int, int], title: str
) -> None:
    """Draw the image as a grid of `shown_wh`, with the object's pixels filled and the box around them."""
    left, top = origin
    columns, rows = IMAGE_WH
    x1, y1, x2, y2 = OBJECT_XYXY
    step_x, step_y = shown_wh[0] / columns, shown_wh[1] / rows
    pen.text((left, top - 118), title, font=font(20), fill=INK)
    pen.rectangle((left + x1 * step_x, top + y1 * step_y, left + x2 * step_x, top + y2 * step_y), fill=PIXEL)
    for column in range(columns + 1):
        x = left + column * step_x
        pen.line((x, top, x, top + shown_wh[1]), fill=GRID, width=1)
    for row in range(rows + 1):
        y = top + row * step_y
        pen.line((left, y, left + shown_wh[0], y), fill=GRID, width=1)
    near = (left + box.x1 * shown_wh[0], top + box.y1 * shown_wh[1])
    far = (left + box.x2 * shown_wh[0], top + box.y2 * shown_wh[1])
    pen.rectangle((*near, *far), outline=EDGE, width=4)
    pen.ellipse((near[0] - 9, near[1] - 9, near[0] + 9, near[1] + 9), fill=EDGE)
    pen.ellipse((far[0] - 9, far[1] - 9, far[0] + 9, far[1] + 9), fill=PAPER, outline=EDGE, width=4)


def draw_scales(
    pen: ImageDraw.ImageDraw,
    origin: tuple[int, int],
    shown_wh: tuple[int, int],
    frames: dict[str, tuple[float, float]],
) -> None:
    """Draw one scale per frame along the top and the left: where the box begins and ends, and where the image ends.

    frames: name -> the far corner (x, y) of the whole image in that frame.
    """
    box = Box.from_pixels(OBJECT_XYXY, IMAGE_WH)
    left, top = origin
    for number, (name, (width, height)) in enumerate(frames.items()):
        colour = X_COLOURS[name]
        y, x = top - 18 - 24 * number, left - 12 - 58 * number
        pen.text((left + shown_wh[0] + 26, y), name, font=font(16), fill=colour, anchor="lm")
        for share in (0.0, box.x1, box.x2, 1.0):
            pen.text(
                (left + share * shown_wh[0], y), f"{share * width:g}", font=font(16), fill=colour, anchor="mm"
            )
        for share in (0.0, box.y1, box.y2, 1.0):
            pen.text(
                (x, top + share * shown_wh[1]), f"{share * height:g}", font=font(16), fill=colour, anchor="rm"
            )


def coordinates() -> Image.Image:
    """One box in pixels, unit coordinates and thousandths, before and after the image is resized to a square."""
    box = Box.from_pixels(OBJECT_XYXY, IMAGE_WH)
    page = Image.new("RGB", SIZE, PAPER)
    pen = ImageDraw.Draw(page)
    shown, origin = (450, 360), (190, 150)
    draw_grid(pen, box, origin, shown, f"The image, {IMAGE_WH[0]} x {IMAGE_WH[1]} pixels")
    frames = {"pixels": IMAGE_WH, "unit": (1.0, 1.0), "thousandths": (1000, 1000)}
    draw_scales(pen, origin, shown, frames)

    square, square_origin = (360, 360), (850, 150)
    draw_grid(pen, box, square_origin, square, "What the model sees: resized to a square")
    draw_scales(pen, square_origin, square, {name: frames[name] for name in ("unit",)})

    unit = ", ".join(f"{value:g}" for value in box.xyxy)
    thousandths = "({},{}),({},{})".format(*box.to_thousandths())
    lines = (
        f"pixels {OBJECT_XYXY}: columns 3..6 and rows 2..4, so mask[2:5, 3:7]",
        f"unit ({unit}): the same in both pictures",
        f"thousandths <box>{thousandths}</box>: what the model reads and writes",
    )
    for number, (line, name) in enumerate(zip(lines, X_COLOURS, strict=True)):
        pen.text((40, 546 + 28 * number), line, font=font(18), fill=X_COLOURS[name])
    for number, (words, fill) in enumerate((("near corner: inside", EDGE), ("far corner: outside", PAPER))):
        y = 556 + 28 * number
        pen.ellipse((840, y - 8, 856, y + 8), fill=fill, outline=EDGE, width=4)
        pen.text((870, y), words, font=font(18), fill=INK, anchor="lm")
    return page


def phantoms(seeds: int = 2) -> Image.Image:
    """Phantoms with the boxes of their objects, one row per modality."""
    pictures = []
    for modality in Modality:
        for seed in range(seeds):
            image, record = with_record(draw_phantom(modality, FIRST_PHANTOM_SEED["train"] + seed))
            spans = [Span(item.label, 0, 0, (item.box,)) for item in record.present if item.box]
            plain = Image.fromarray(image.pixels)
            pictures += [captioned(draw_spans(plain, []), [modality.value]), draw_spans(plain, spans)]
    return contact_sheet(pictures, columns=4 * seeds)


def answers() -> Image.Image:
    """Answers of the embedded checkpoint to grounding questions, one test image per modality."""
    shown = [
        captioned(
            draw_spans(example.image, example.answer.spans, example.reference.spans),
            [f"Q: {example.question.text}", f"A: {example.answer.text}"],
        )
        for example in answer_examples(Path("bird"), Path("med-grit"))
        if example.task == "vg"
    ]
    return contact_sheet(shown, columns=4)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    coordinates().quantize(64, dither=Image.Dither.NONE).save(PICTURES / "coordinates.png", optimize=True)
    halved(phantoms()).save(PICTURES / "phantoms.jpg", quality=85)
    if Path("bird").is_dir() and Path("med-grit").is_dir():
        halved(answers()).save(PICTURES / "answers.jpg", quality=88)


def halved(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
