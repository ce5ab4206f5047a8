"""What is wrong with an image or its masks, and so keeps it out of Med-GRIT: found, named and counted, never repaired.

The faults are those that public collections of masks are known to have. An image with one faulty mask is dropped
whole: with an object that cannot be trusted, neither can the places of the others, nor what is absent.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from enum import StrEnum

import numpy as np
from PIL import Image
from scipy import ndimage

from ...hub.pixels import MAX_PIXELS, MAX_SIDE_PX, MIN_SIDE_PX, open_image

# A border that is set nearly all round, around a hole that is not: foreground and background have changed places.
_INVERTED_BORDER = 0.95
# Where a PNG says that it is to be turned, or what is transparent in it.
_TURNED_OR_CLEAR = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp", "transparency"}
_MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF")  # lossless ones


class Drop(StrEnum):
    """Why an image is left out; the names stand in a build's table and manifest."""

    BAD_NAME = "bad_name"  # its file name does not follow the layout
    UNKNOWN_MODALITY = "unknown_modality"
    DUPLICATE_ID = "duplicate_id"  # another image has the same name
    UNNAMED_CLASS = "unnamed_class"  # a class without a usable name: `class3`, a bare `left`
    UNION_CLASS = "union_class"  # a class that is other classes together
    NO_MASKS = "no_masks"
    MISSING_MASK = "missing_mask"  # listed, and not there
    MISSING_IMAGE = "missing_image"  # masks without their image
    UNREADABLE_IMAGE = "unreadable_image"
    UNREADABLE_MASK = "unreadable_mask"
    NEEDS_PYLIBJPEG = "needs_pylibjpeg"  # compressed DICOM: install pylibjpeg, its -libjpeg and -openjpeg
    MULTI_FRAME = "multi_frame"  # a DICOM file of several images
    BURNED_IN = "burned_in_annotation"  # the header says that words, maybe a name, stand in the pixels
    OFF_GRID = "segmentation_off_grid"  # drawn on other pixels than its images have
    BLANK_IMAGE = "blank_image"
    IMAGE_IS_MASK = "image_is_mask"
    SHAPE_MISMATCH = "shape_mismatch"
    NOT_BINARY = "not_binary"
    EMPTY_MASK = "empty_mask"
    FULL_MASK = "full_mask"  # covers all of the image
    INVERTED_MASK = "inverted_mask"
    FRAGMENT = "one_pixel_fragment"  # a stray pixel, which would stretch the box
    NO_OBJECTS = "no_objects"  # nothing large enough to be asked for
    NEAR_DUPLICATE = "near_duplicate"  # looks like an image that was taken
    NOT_SAMPLED = "not_sampled"  # nothing wrong: enough others were taken
    REFUSED_BY_TEACHER = "refused_by_teacher"
    REJECTED_IN_REVIEW = "rejected_in_review"  # people rejected every object that it shows


class FaultyImageError(ValueError):
    """An image that is left out, and why."""

    def __init__(self, reason: Drop, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason


def read_pixels(content: bytes) -> np.ndarray:
    """An image file's bytes -> (H, W, 3) uint8, or (H, W) where it is grey. Raises FaultyImageError."""
    pixels = _plain(content)
    if pixels is None:
        try:
            pixels = np.asarray(open_image(content))
        except ValueError as error:
            raise FaultyImageError(Drop.UNREADABLE_IMAGE, str(error)) from error
    # The first comparison, of a few rows, is enough for most pictures in colour.
    if pixels.ndim == 3 and all((some == some[..., :1]).all() for some in (pixels[::16], pixels)):
        pixels = np.ascontiguousarray(pixels[..., 0])
    check_pixels(pixels)
    return pixels


def _plain(content: bytes) -> np.ndarray | None:
    """The pixels of a grey or RGB PNG, most of what there is, which `open_image` would only copy; else None."""
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG",))
        small = max(image.size) <= MAX_SIDE_PX and image.width * image.height <= MAX_PIXELS
        if image.mode not in ("L", "RGB") or not small or min(image.size) < MIN_SIDE_PX:
            return None
        pixels = np.asarray(image)
    except Exception:  # `open_image` says what is wrong
        return None
    return None if _TURNED_OR_CLEAR & image.info.keys() else pixels


def check_pixels(pixels: np.ndarray) -> None:
    """Raises FaultyImageError where an image shows nothing, or is a mask itself."""
    low, high = pixels.min(), pixels.max()
    if low == high:
        raise FaultyImageError(Drop.BLANK_IMAGE)
    for some in (pixels[::16, ::16], pixels):  # a few pixels of most pictures show that they are no mask
        if not ((some == low) | (some == high)).all():
            return
    raise FaultyImageError(Drop.IMAGE_IS_MASK)


def read_values(content: bytes) -> np.ndarray:
    """A mask file's bytes -> (H, W) of its values as stored: 1-bit, palette indices, grey. Raises FaultyImageError."""
    try:
        image = Image.open(io.BytesIO(content), formats=_MASK_FORMATS)
        if max(image.size) > MAX_SIDE_PX or image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are too many")
        values = np.asarray(image)
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise FaultyImageError(Drop.UNREADABLE_MASK, str(error)) from error
    if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]  # grey that was saved as colour
    if values.ndim != 2:
        raise FaultyImageError(Drop.NOT_BINARY, "a mask in colours")
    return values


def read_mask(content: bytes) -> np.ndarray:
    """A binary mask file's bytes -> (H, W) bool: everything is 0 or one other value. Raises FaultyImageError."""
    values = read_values(content)
    if values.dtype == np.bool_:
        return values
    mask = values == (values.max() or 1)
    if np.count_nonzero(mask) != np.count_nonzero(values):
        raise FaultyImageError(Drop.NOT_BINARY)
    return mask


def check_mask(mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises FaultyImageError where a mask (H, W) bool of an image of that shape cannot be trusted."""
    if mask.shape != shape[:2]:
        raise FaultyImageError(Drop.SHAPE_MISMATCH, f"mask {mask.shape}, image {shape[:2]}")
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        raise FaultyImageError(Drop.EMPTY_MASK)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    if (rows.size, columns.size) == mask.shape:
        _check_border(mask)
    if (_has_gap(rows) or _has_gap(columns) or rows.size == columns.size == 1) and _has_lone_pixel(mask):
        raise FaultyImageError(Drop.FRAGMENT)


def _check_border(mask: np.ndarray) -> None:
    if mask.all():
        raise FaultyImageError(Drop.FULL_MASK)
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    if border.mean() >= _INVERTED_BORDER:
        raise FaultyImageError(Drop.INVERTED_MASK)


def _has_gap(covered: np.ndarray) -> bool:
    """Whether the rows (columns) that a mask covers are interrupted: only then can a stray pixel move the box far."""
    return bool(covered[-1] - covered[0] + 1 != covered.size)


def _has_lone_pixel(mask: np.ndarray) -> bool:
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    return bool((np.bincount(pieces.ravel())[1:] == 1).any())


def check_union(masks: Iterable[tuple[str, np.ndarray]]) -> None:
    """Raises FaultyImageError where a class covers exactly what two or more other classes cover together."""
    merged: dict[str, np.ndarray] = {}
    for label, mask in masks:
        merged[label] = merged[label] | mask if label in merged else mask
    # What is no union in one of 64 pixels is none: hardly a mask is compared in all of them.
    few = {label: mask[::8, ::8] for label, mask in merged.items()}
    for label, mask in merged.items():
        parts = _parts_of(label, few)
        parts = [part for part in parts if np.count_nonzero(merged[part]) < np.count_nonzero(mask)]
        if len(parts) > 1 and _parts_of(label, {name: merged[name] for name in (label, *parts)}):
            raise FaultyImageError(Drop.UNION_CLASS, label)


def _parts_of(label: str, masks: Mapping[str, np.ndarray]) -> list[str]:
    """The other labels that lie inside a label's mask, if they are two or more and cover it; else none."""
    whole = masks[label]
    outside = ~whole
    parts = [part for part, mask in masks.items() if part != label and not (mask & outside).any()]
    covered = len(parts) > 1 and np.array_equal(np.logical_or.reduce([masks[part] for part in parts]), whole)
    return parts if covered else []
