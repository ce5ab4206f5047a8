"""Boxes land on the right pixels, words stay inside the picture, and files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from bird_hf.draw import (
    MIN_SIDE_PX,
    MODEL_COLOURS,
    REFERENCE_COLOUR,
    captioned,
    check_png_path,
    contact_sheet,
    draw_spans,
    save_png,
)
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span

WH = (1000, 800)
BLACK = (0, 0, 0)
GREEN = ImageColor.getrgb(REFERENCE_COLOUR)
COLOURS = [ImageColor.getrgb(colour) for colour in MODEL_COLOURS]


def span(*boxes: Box, phrase: str = "") -> Span:
    return Span(phrase, 0, len(phrase), boxes)


def blank(size_wh: tuple[int, int] = WH) -> Image.Image:
    return Image.new("RGB", size_wh)


# --- boxes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "first", "last"),  # the pixels of the near and of the far corner
    [
        (Box(0.1, 0.2, 0.5, 0.75), (100, 160), (499, 599)),
        (Box(0, 0, 1, 1), (0, 0), (999, 799)),  # the whole image: no line falls outside
        (Box(0.5, 0.5, 1, 1), (500, 400), (999, 799)),
        (Box(0.2, 0.25, 0.204, 0.255), (200, 200), (203, 203)),  # four pixels; smaller ones are drawn larger
    ],
)
def test_a_box_is_drawn_on_its_own_pixels(box: Box, first: tuple[int, int], last: tuple[int, int]) -> None:
    drawn = np.asarray(draw_spans(blank(), [span(box)]))
    rows, columns = np.nonzero((drawn == COLOURS[0]).all(axis=-1))
    assert ((columns.min(), rows.min()), (columns.max(), rows.max())) == (first, last)
    for x, y in (first, last, (first[0], last[1]), (last[0], first[1])):
        assert tuple(drawn[y, x]) == COLOURS[0]


def test_a_box_is_a_solid_line_around_an_untouched_inside() -> None:
    drawn = np.asarray(draw_spans(blank(), [span(Box(0.1, 0.2, 0.5, 0.75))]))
    assert (drawn[160, 100:500] == COLOURS[0]).all()
    assert (drawn[160:600, 499] == COLOURS[0]).all()
    assert not drawn[163:597, 103:497].any()
    assert not drawn[:160].any() and not drawn[600:].any()


def test_a_reference_is_dashed_green_and_under_the_models_boxes() -> None:
    box = Box(0.1, 0.2, 0.5, 0.75)
    drawn = np.asarray(draw_spans(blank(), [], [span(box)]))
    for line in (drawn[160, 100:500], drawn[599, 100:500], drawn[160:600, 100], drawn[160:600, 499]):
        green = (line == GREEN).all(axis=-1)
        assert green[0] and 0.3 < green.mean() < 0.7
    both = np.asarray(draw_spans(blank(), [span(box)], [span(box)]))
    assert (both[160, 100:500] == COLOURS[0]).all()


def test_a_phrase_has_one_colour_and_its_neighbour_another() -> None:
    spans = [span(Box(x, 0.1, x + 0.05, 0.2), Box(x, 0.5, x + 0.05, 0.6)) for x in np.arange(6) / 10]
    drawn = draw_spans(blank(), spans)
    for number in range(6):
        expected = COLOURS[number % len(COLOURS)]
        assert drawn.getpixel((100 * number, 80)) == drawn.getpixel((100 * number, 400)) == expected


@pytest.mark.parametrize(("size_wh", "drawn_wh"), [((100, 50), (512, 256)), ((8, 8), (512, 512)), (WH, WH)])
def test_small_pictures_are_enlarged_with_their_boxes(
    size_wh: tuple[int, int], drawn_wh: tuple[int, int]
) -> None:
    drawn = draw_spans(blank(size_wh), [span(Box(0.25, 0.5, 0.75, 1))])
    assert drawn.size == drawn_wh
    assert max(drawn.size) >= MIN_SIDE_PX
    left, top = drawn_wh[0] // 4, drawn_wh[1] // 2
    assert drawn.getpixel((left, top)) == drawn.getpixel((3 * left - 1, drawn_wh[1] - 1)) == COLOURS[0]
    assert drawn.getpixel((left - 1, top)) == BLACK


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_a_picture_of_any_mode_is_drawn_in_colour_and_left_as_it_was(mode: str) -> None:
    image = Image.new(mode, (600, 600))
    before = image.tobytes()
    drawn = draw_spans(image, [span(Box(0.1, 0.1, 0.9, 0.9))])
    assert (drawn.mode, drawn.getpixel((60, 60))) == ("RGB", COLOURS[0])
    assert (image.mode, image.tobytes()) == (mode, before)


# --- words ---------------------------------------------------------------------------------------------------


def place_of(drawn: Image.Image, colour: tuple[int, ...]) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the pixels of a colour, half-open."""
    rows, columns = np.nonzero((np.asarray(drawn) == colour).all(axis=-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize(
    ("box", "above"),
    [
        (Box(0.1, 0.5, 0.3, 0.8), True),
        (Box(0.1, 0.0, 0.3, 0.8), False),  # no room above: inside
        (Box(0.98, 0.5, 1.0, 0.8), True),  # no room to the right: moved to the left
    ],
)
def test_a_phrase_stands_by_its_box_and_inside_the_picture(box: Box, above: bool) -> None:
    plain = place_of(draw_spans(blank(), [span(box)]), COLOURS[0])
    named = place_of(draw_spans(blank(), [span(box, phrase="left kidney")]), COLOURS[0])
    assert (named[1] < plain[1]) == above
    assert named[2] - named[0] > 70  # wide enough for the words
    assert named[2] <= WH[0]


@pytest.mark.parametrize("size_wh", [(8, 2000), (2000, 8), (512, 9)])
def test_thin_pictures_can_be_drawn_on(size_wh: tuple[int, int]) -> None:
    whole = span(Box(0, 0, 1, 1), phrase="a name that is wider than the picture")
    assert captioned(draw_spans(blank(size_wh), [whole], [whole]), ["Q: Where?"]).width == size_wh[0]


@pytest.mark.parametrize("line", ["The left kidney is here. " * 20, "x" * 300, "HÄMATOM WIDE " * 20])
def test_a_caption_is_wrapped_to_the_width(line: str) -> None:
    image = Image.new("RGB", (512, 40), "red")
    short, long = captioned(image, ["short"]), captioned(image, [line])
    assert short.size[0] == long.size[0] == 512
    assert long.height >= short.height + 3 * 20
    assert np.array_equal(np.asarray(long)[:40], np.asarray(image))
    text = np.asarray(long)[40:]
    assert (text[:, -4:] == text[-1, -1]).all()  # nothing runs out of the picture
    assert (text != text[-1, -1]).any()


def test_an_empty_line_takes_its_place() -> None:
    assert captioned(blank(), ["a", "", "b"]).height == captioned(blank(), ["a", "b"]).height + 20


# --- sheets and files ----------------------------------------------------------------------------------------


def test_a_sheet_has_rows_as_high_as_their_highest_picture() -> None:
    pictures = [
        Image.new("RGB", (30, height), colour) for height, colour in ((10, "red"), (20, "lime"), (5, "blue"))
    ]
    sheet = contact_sheet(pictures, columns=2)
    assert sheet.size == (60, 25)
    assert sheet.getpixel((0, 0)) == (255, 0, 0)
    assert sheet.getpixel((30, 19)) == (0, 255, 0)
    assert sheet.getpixel((0, 20)) == sheet.getpixel((29, 24)) == (0, 0, 255)
    assert contact_sheet(pictures, columns=4).size == (90, 20)
    assert contact_sheet(pictures[:1], columns=4).size == (30, 10)


def test_a_png_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    save_png(blank((9, 9)), path)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (9, 9))
    assert [*tmp_path.iterdir()] == [path]


def test_a_png_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(OSError, match="mode"):
        save_png(Image.new("CMYK", (9, 9)), path)  # which PNG does not know
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.png": "old"}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nowhere/a.png", "the folder .*nowhere does not exist; create it"),
        ("a.jpg", "give a name that ends in .png"),
        ("a", "give a name that ends in .png"),
        ("folder.png", "is a folder; give the name of a file"),
    ],
)
def test_places_where_no_png_can_be_written_are_refused(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=complaint):
        check_png_path(tmp_path / name)
    check_png_path(tmp_path / "A.PNG")
