"""Faults of images and masks are detected and named; unusual images and masks without faults are accepted."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality
from bird_hf.data.sources.faults import (
    Drop,
    FaultyImageError,
    check_mask,
    check_union,
    mask_of_values,
    read_photograph,
    read_turned_values,
)

SIDE = 64
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(stream, "PNG")
    return stream.getvalue()


def pixels_of(content: bytes) -> np.ndarray:
    return read_photograph(content)[0]


def mask_in(content: bytes) -> np.ndarray:
    return mask_of_values(read_turned_values(content)[0])


def boxed(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(SIDE, SIDE) bool; boxes are x1, y1, x2, y2, half-open."""
    mask = np.zeros((SIDE, SIDE), bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return mask


GOOD = boxed((10, 12, 30, 40))


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        pytest.param(boxed(), Drop.EMPTY_MASK, id="nothing"),
        pytest.param(~boxed(), Drop.FULL_MASK, id="everything"),
        pytest.param(~GOOD, Drop.INVERTED_MASK, id="a hole"),
        pytest.param(~boxed((0, 20, 3, 23)), Drop.INVERTED_MASK, id="a hole at the border"),
        pytest.param(boxed((5, 5, 6, 6)), Drop.FRAGMENT, id="one pixel"),
        pytest.param(GOOD | boxed((60, 2, 61, 3)), Drop.FRAGMENT, id="a stray pixel, far off"),
        pytest.param(GOOD | boxed((20, 50, 21, 51)), Drop.FRAGMENT, id="a stray pixel below"),
        pytest.param(GOOD[:-1], Drop.SHAPE_MISMATCH, id="a row less"),
        pytest.param(GOOD.T[:, :32], Drop.SHAPE_MISMATCH, id="another shape"),
    ],
)
def test_a_faulty_mask_is_named(mask: np.ndarray, reason: Drop) -> None:
    with pytest.raises(FaultyImageError) as caught:
        check_mask(mask, NOISE.shape)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(GOOD, id="a box"),
        pytest.param(boxed((3, 5, 60, 6)), id="a line of one pixel's width"),
        pytest.param(boxed((5, 5, 7, 6)), id="two pixels"),
        pytest.param(boxed((2, 2, 9, 9), (40, 40, 60, 60)), id="two pieces"),
        pytest.param(boxed((0, 0, 64, 40)), id="large, at three borders"),
        pytest.param(boxed((0, 0, 64, 8), (0, 0, 8, 64), (56, 0, 64, 64)), id="an arch"),
    ],
)
def test_an_unusual_mask_is_not_a_fault(mask: np.ndarray) -> None:
    check_mask(mask, (*NOISE.shape, 3))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(png(np.full_like(NOISE, 7)), Drop.BLANK_IMAGE, id="one grey"),
        pytest.param(png(GOOD), Drop.IMAGE_IS_MASK, id="a mask of 1 bit"),
        pytest.param(png(np.where(GOOD, 200, 30).astype(np.uint8)), Drop.IMAGE_IS_MASK, id="two greys"),
        pytest.param(b"", Drop.UNREADABLE_IMAGE, id="nothing"),
        pytest.param(png(NOISE)[:-50], Drop.UNREADABLE_IMAGE, id="cut short"),
        pytest.param(b"<html>", Drop.UNREADABLE_IMAGE, id="something else"),
    ],
)
def test_a_faulty_image_is_named(content: bytes, reason: Drop) -> None:
    with pytest.raises(FaultyImageError) as caught:
        pixels_of(content)
    assert caught.value.reason is reason


def test_grey_and_colour_are_read_as_they_are() -> None:
    colour = np.stack([NOISE, NOISE.T, NOISE], axis=-1)
    assert np.array_equal(pixels_of(png(NOISE)), NOISE)
    assert np.array_equal(pixels_of(png(NOISE, "RGB")), NOISE)
    assert np.array_equal(pixels_of(png(colour)), colour)
    assert np.array_equal(pixels_of(png(NOISE.astype(np.uint16) * 257)).shape, NOISE.shape)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("value", [1, 255])
def test_masks_are_read_in_every_mode(mode: str, value: int) -> None:
    stored = np.where(GOOD, value if mode == "L" else 255, 0).astype(np.uint8)
    assert np.array_equal(mask_in(png(stored, mode)), GOOD)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(png(NOISE), Drop.NOT_BINARY, id="many values"),
        pytest.param(
            png(np.where(GOOD, 255, 0).astype(np.uint8) | boxed((50, 50, 55, 55))), Drop.NOT_BINARY, id="two"
        ),
        pytest.param(png(np.stack([NOISE, NOISE.T, NOISE], axis=-1)), Drop.NOT_BINARY, id="colours"),
        pytest.param(b"\x89PNG", Drop.UNREADABLE_MASK, id="cut short"),
    ],
)
def test_other_files_are_not_read_as_masks(content: bytes, reason: Drop) -> None:
    with pytest.raises(FaultyImageError) as caught:
        mask_in(content)
    assert caught.value.reason is reason


def test_a_class_that_covers_exactly_others_is_a_union() -> None:
    left, right = boxed((5, 5, 20, 20)), boxed((20, 5, 40, 20))
    with pytest.raises(FaultyImageError, match="union_class: heart"):
        check_union([("cavity", left), ("heart", left | right), ("wall", right)])
    check_union(
        [("cavity", left), ("heart", left | right | boxed((1, 1, 3, 3))), ("wall", right)]
    )  # more than both
    check_union([("kidney", left), ("kidney", right), ("both kidneys", left | right)])  # of one class only
    check_union([("organ", left | right), ("lesion", left)])
    check_union([("organ", left), ("the same organ", left), ("lesion", boxed((6, 6, 9, 9)))])


def is_union(masks: dict[str, np.ndarray]) -> bool:
    """Whether a mask is the union of two or more smaller ones, by comparing all pixels."""
    for whole in masks.values():
        inside = [part for part in masks.values() if (part <= whole).all() and part.sum() < whole.sum()]
        if len(inside) > 1 and np.array_equal(np.logical_or.reduce(inside), whole):
            return True
    return False


def test_unions_are_found_as_by_comparing_all_pixels() -> None:
    rng = np.random.default_rng(0)
    found = Counter[bool]()
    for number in range(300):
        masks = {name: np.zeros((40, 40), bool) for name in "abc"}
        for mask in masks.values():
            y, x = rng.integers(0, 30, 2)
            mask[y : y + rng.integers(1, 20), x : x + 9] = True
        masks["whole"] = masks["a"] | masks["b"]
        if number % 2:
            masks["whole"][tuple(rng.choice(np.argwhere(masks["whole"])))] = False
        found[is_union(masks)] += 1
        with pytest.raises(FaultyImageError) if is_union(masks) else nullcontext():
            check_union(masks.items())
    assert min(found.values()) > 50


def test_phantoms_have_no_fault() -> None:
    for modality in Modality:
        for seed in range(6):
            image = draw_phantom(modality, seed, 96)
            pixels_of(png(image.pixels))
            for _, mask in image.masks:
                check_mask(mask, image.pixels.shape)
            check_union(image.masks)


@pytest.mark.parametrize(
    ("array", "kind", "says"),
    [
        pytest.param(NOISE, "PNG", "values 0, 1, 2, 3, 4 and 251 more", id="grey"),
        pytest.param(np.where(GOOD, 7, 3).astype(np.uint8), "PNG", "values 3, 7", id="no background"),
        pytest.param(
            np.where(GOOD, 1, 0).astype(np.uint8) + boxed((50, 50, 55, 55)) * np.uint8(2),
            "PNG",
            "values 0, 1, 2",
            id="labels",
        ),
        pytest.param(
            np.stack([GOOD * np.uint8(255), ~GOOD * np.uint8(16), GOOD * np.uint8(1)], axis=-1),
            "PNG",
            "a mask in colour: colours #001000, #ff0001",
            id="colours",
        ),
        pytest.param(
            np.where(GOOD, 255, 0).astype(np.uint8),
            "JPEG",
            "a JPEG mask, a format that changes values; save it as PNG: values 0, ",
            id="lossy",
        ),
    ],
)
def test_a_mask_that_is_not_binary_is_named_with_its_values(array: np.ndarray, kind: str, says: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    with pytest.raises(FaultyImageError) as caught:
        mask_in(stream.getvalue())
    assert caught.value.reason is Drop.NOT_BINARY and caught.value.detail.startswith(says)
