"""Marks on photographs are brought onto the upright pixels, whatever the EXIF orientation; nothing is guessed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.frames import Frame, FrameError, Orientation, frame_of
from bird_hf.hub.pixels import open_image

EXIF = range(1, 9)


def photograph(exif: int, height: int = 12, width: int = 20) -> tuple[bytes, np.ndarray]:
    """The bytes of a PNG with an EXIF orientation, and its stored pixels."""
    stored = np.random.default_rng(exif).integers(0, 256, (height, width, 3), np.uint8)
    header = Image.Exif()
    header[0x0112] = exif
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG", exif=header)
    return buffer.getvalue(), stored


@pytest.mark.parametrize("exif", EXIF)
def test_arrays_are_turned_as_the_picture_is(exif):
    content, stored = photograph(exif)
    frame = frame_of(content)
    shown = np.asarray(open_image(content))
    assert frame.exif == exif
    assert np.array_equal(frame.upright(stored), shown)
    assert frame.upright_wh == (shown.shape[1], shown.shape[0])


@pytest.mark.parametrize("exif", EXIF)
def test_a_tiff_has_the_frame_of_its_stored_pixels(exif):
    # Pillow announces the upright size of a TIFF, and the stored size of all other files.
    stored = np.random.default_rng(exif).integers(0, 256, (12, 20, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "TIFF", tiffinfo={0x0112: exif})
    frame = frame_of(buffer.getvalue())
    assert frame == Frame(exif, (20, 12))
    assert np.array_equal(frame.upright(stored), np.asarray(open_image(buffer.getvalue())))


@pytest.mark.parametrize("exif", EXIF)
def test_boxes_and_points_are_turned_as_the_pixels_are(exif):
    frame = Frame(exif, (20, 12))
    mask = np.zeros((12, 20), bool)
    mask[2:5, 7:16] = True
    x1, y1, x2, y2 = frame.upright_box((7, 2, 16, 5))
    expected = np.zeros(frame.upright_wh[::-1], bool)
    expected[int(y1) : int(y2), int(x1) : int(x2)] = True
    assert np.array_equal(frame.upright(mask), expected)


@pytest.mark.parametrize("exif", EXIF)
@pytest.mark.parametrize("wh", [(20, 12), (12, 12)], ids=["oblong", "square"])
@pytest.mark.parametrize("declared", [None, *Orientation])
@pytest.mark.parametrize("known", [True, False], ids=["sized", "unsized"])
@pytest.mark.parametrize("made_on", Orientation)
def test_the_size_tells_or_the_user_or_nobody(exif, wh, declared, known, made_on):
    frame = Frame(exif, wh)
    size = (frame.stored_wh if made_on is Orientation.STORED else frame.upright_wh) if known else None
    size_tells = known and exif >= 5 and wh[0] != wh[1]
    if exif == 1:
        assert frame.orientation_of(size, declared) is Orientation.UPRIGHT
    elif size_tells and declared in (None, made_on):
        assert frame.orientation_of(size, declared) is made_on
    elif size_tells:
        with pytest.raises(
            FrameError, match=f"orientation {declared}, marks of {size[0]}x{size[1]}"
        ) as raised:
            frame.orientation_of(size, declared)
        assert raised.value.is_size
    elif declared is not None:
        assert frame.orientation_of(size, declared) is declared
    else:
        with pytest.raises(FrameError, match=f"EXIF orientation {exif}") as raised:
            frame.orientation_of(size)
        assert not raised.value.is_size


@pytest.mark.parametrize("exif", EXIF)
def test_marks_of_another_size_are_refused(exif):
    with pytest.raises(FrameError, match="marks of 40x24, picture of") as raised:
        Frame(exif, (20, 12)).orientation_of((40, 24), Orientation.STORED)
    assert raised.value.is_size


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(value):
    assert frame_of(photograph(value)[0]).exif == 1


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match="cannot be read"):
        frame_of(b"no image")
