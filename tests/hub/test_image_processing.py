"""Every kind of image becomes upright 8-bit RGB; what cannot is refused in one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bird_hf.hub.image_processing_bird import BirdImageProcessor
from bird_hf.hub.pixels import MAX_SIDE_PX, open_image, rgb_image

RAMP = np.linspace(0, 255, 16 * 16).reshape(16, 16)


def png(image, **kwargs):
    """The bytes of a PNG file."""
    return encoded(image, "PNG", **kwargs)


def encoded(image, form, **kwargs):
    stream = io.BytesIO()
    image.save(stream, form, **kwargs)
    return stream.getvalue()


def grey(values, dtype=np.uint8):
    return Image.fromarray(np.asarray(values).astype(dtype))


def first_channel(image):
    return np.asarray(image)[..., 0]


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 65535), (1000, 5095), (0, 200)],  # full range, 12 bits with an offset, few values
)
def test_sixteen_bits_are_stretched_from_their_own_minimum_to_their_own_maximum(low, high):
    deep = grey(low + RAMP / 255 * (high - low), np.uint16)
    found = first_channel(open_image(png(deep)))
    assert (found.min(), found.max()) == (0, 255)
    np.testing.assert_allclose(found, RAMP, atol=1 + 255 / (high - low))


@pytest.mark.parametrize("values", [RAMP * 1e-3 - 7.0, np.where(RAMP > 200, np.nan, RAMP)])
def test_floating_point_is_stretched_and_what_is_not_finite_is_black(values):
    found = first_channel(open_image(encoded(grey(values, np.float32), "TIFF")))
    assert found[np.isfinite(values)].max() == 255
    assert (found[~np.isfinite(values)] == 0).all()


def test_a_flat_deep_image_is_black():
    assert not np.asarray(open_image(png(grey(np.full((16, 16), 3000), np.uint16)))).any()


def test_alpha_is_laid_over_white():
    rgba = Image.new("RGBA", (16, 16), (200, 0, 0, 0))
    rgba.paste((200, 0, 0, 255), (8, 0, 16, 16))
    found = open_image(png(rgba))
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert found.getpixel((15, 0)) == (200, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_grey_picture_stays_itself_in_every_mode(mode):
    picture = grey(np.where(RAMP > 127, 255, 0))
    found = open_image(png(picture.convert("RGB" if mode == "P" else mode).convert(mode)))
    assert found.mode == "RGB"
    np.testing.assert_array_equal(first_channel(found), np.asarray(picture))


def test_cmyk_is_converted():
    found = open_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert found.mode == "RGB"
    red, green, blue = found.getpixel((8, 8))
    assert red > 200 > 60 > max(green, blue)


def test_a_palette_with_transparency_is_laid_over_white():
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert open_image(png(palette, transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(png(palette)).getpixel((0, 0)) == (10, 20, 30)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned = open_image(encoded(Image.new("RGB", (30, 10)), "JPEG", exif=exif))
    assert turned.size == (10, 30)


def test_of_several_frames_the_first_is_read():
    frames = [grey(np.full((16, 16), value)) for value in (10, 200)]
    found = open_image(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    assert found.getpixel((0, 0)) == (10, 10, 10)


def test_a_path_reads_as_its_bytes_do(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(grey(RAMP)))
    assert (
        open_image(path).tobytes()
        == open_image(str(path)).tobytes()
        == open_image(path.read_bytes()).tobytes()
    )


def png_of_size(width, height):
    """A PNG whose header announces a size that its body does not have."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


GOOD = png(grey(np.random.default_rng(0).integers(0, 255, (64, 64))))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a readable image"),
        (b"hello", "not a readable image"),
        (GOOD[:20], "not a readable image"),
        (GOOD[: len(GOOD) // 2], "damaged or truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not a readable image"),
        (png(Image.new("L", (1, 1))), "1x1 pixels; sides must be at least 8"),
        (png(Image.new("L", (100, 7))), "100x7 pixels; sides must be at least 8"),
        (png(Image.new("L", (60_000, 8))), "too large: it is 60000x8 pixels"),
        (png_of_size(MAX_SIDE_PX, 4_000), "too large"),
        (png_of_size(100_000, 100_000), "too large"),
        (png_of_size(16, 16), "damaged or truncated"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(data, complaint):
    with pytest.raises(ValueError, match=complaint) as refusal:
        open_image(data)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("where", ["missing.png", "."])
def test_a_path_that_is_no_file_is_named(tmp_path, where):
    with pytest.raises(ValueError, match=r"cannot be opened: .*; check the path") as refusal:
        open_image(tmp_path / where)
    assert str(tmp_path) in str(refusal.value)


# --- the processor ---------------------------------------------------------------------------------------------


def test_images_of_all_shapes_become_one_square_batch():
    images = [Image.new("RGB", (30, 10)), Image.new("L", (9, 50)), Image.new("RGBA", (20, 20))]
    pixels = BirdImageProcessor(size={"height": 32, "width": 32})(images, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (3, 3, 32, 32)


def test_the_square_is_squashed_not_cropped():
    wide = Image.new("L", (40, 20), 0)
    wide.paste(255, (30, 0, 40, 20))  # the last quarter
    pixels = BirdImageProcessor(size={"height": 16, "width": 16})(wide, return_tensors="np")["pixel_values"]
    bright = pixels[0, 0].mean(0) > 0
    assert bright.tolist() == [False] * 12 + [True] * 4


def test_white_and_black_are_normalised_by_clips_mean_and_deviation():
    processor = BirdImageProcessor(size={"height": 8, "width": 8})
    white, black = (
        processor(Image.new("L", (8, 8), value), return_tensors="np")["pixel_values"][0, :, 0, 0]
        for value in (255, 0)
    )
    mean, deviation = np.array(processor.image_mean), np.array(processor.image_std)
    np.testing.assert_allclose(white, (1 - mean) / deviation, rtol=1e-5)
    np.testing.assert_allclose(black, -mean / deviation, rtol=1e-5)


@pytest.mark.parametrize("layout", ["pillow", "path", "bytes", "hw", "hwc", "chw", "uint16"])
def test_the_same_picture_in_any_form_gives_the_same_pixels(tmp_path, layout):
    values = RAMP.astype(np.uint8)
    path = tmp_path / "a.png"
    grey(values).save(path)
    given = {
        "pillow": grey(values),
        "path": str(path),
        "bytes": path.read_bytes(),
        "hw": values,
        "hwc": np.stack([values] * 3, -1),
        "chw": np.stack([values] * 3),
        "uint16": values.astype(np.uint16) * 257,
    }[layout]
    processor = BirdImageProcessor(size={"height": 16, "width": 16})
    expected = processor(rgb_image(grey(values)), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(processor(given, return_tensors="np")["pixel_values"], expected, atol=1e-6)
