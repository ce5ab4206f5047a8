"""Faults of images and masks that keep an image out of Med-GRIT: detected, named and counted, never repaired.

The faults are those that public collections of masks are known to have. An image with one faulty mask is dropped
as a whole: if one object cannot be trusted, neither can the other boxes or the absent labels.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from ...hub.pixels import MAX_PIXELS, MAX_SIDE_PX, MIN_SIDE_PX, open_image
from ..frames import Frame, exif_of, frame_of

# A mask that covers at least this share of the image border, but not the whole image, has its foreground and background
# swapped.
_INVERTED_BORDER = 0.95
# Metadata of a PNG with an orientation or transparency.
_ORIENTED_OR_TRANSPARENT = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp", "transparency"}
_MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF")  # all lossless
_LOSSY_FORMATS = ("JPEG", "JPEG2000", "WEBP")  # opened only to say what is wrong with the mask
MOST_NAMED = 5  # values that a message names


class Drop(StrEnum):
    """Why an image is dropped; the values are used in a build's table and manifest."""

    BAD_NAME = "bad_name"  # the file name does not follow the layout
    UNKNOWN_MODALITY = "unknown_modality"
    DUPLICATE_ID = "duplicate_id"  # another image has the same name
    UNNAMED_CLASS = "unnamed_class"  # a class without a usable name: `class3`, a bare `left`
    UNION_CLASS = "union_class"  # a class that is the union of other classes
    NO_MASKS = "no_masks"
    MISSING_MASK = "missing_mask"  # listed in the table, but there is no such file
    MISSING_IMAGE = "missing_image"  # there are masks, but no image
    UNREADABLE_IMAGE = "unreadable_image"
    UNREADABLE_MASK = "unreadable_mask"
    NEEDS_PYLIBJPEG = "needs_pylibjpeg"  # compressed DICOM: install pylibjpeg, its -libjpeg and -openjpeg
    MULTI_FRAME = "multi_frame"  # a DICOM file with several images
    BURNED_IN = "burned_in_annotation"  # the header says that the pixels contain text, possibly a name
    OFF_GRID = "segmentation_off_grid"  # its pixel grid is not that of its images
    BLANK_IMAGE = "blank_image"
    IMAGE_IS_MASK = "image_is_mask"
    SHAPE_MISMATCH = "shape_mismatch"  # arrays of different shapes
    GRID_MISMATCH = "grid_mismatch"  # volumes of one shape at different places in space
    SIZE_MISMATCH = "size_mismatch"  # marks made on an image of another size
    ORIENTATION_UNKNOWN = "orientation_unknown"  # on the stored or on the upright pixels: both are possible
    UNKNOWN_VALUE = "unknown_value"  # a label map has a value without a name
    CHANNEL_UNKNOWN = "channel_unknown"  # a volume has a fourth axis, and none of its channels is chosen
    CROWD_REGION = "crowd_region"  # a COCO region of many objects
    UNREADABLE_BOX = "unreadable_box"
    NOT_BINARY = "not_binary"
    EMPTY_MASK = "empty_mask"
    FULL_MASK = "full_mask"  # covers the whole image
    INVERTED_MASK = "inverted_mask"
    FRAGMENT = "one_pixel_fragment"  # an isolated pixel, which would enlarge the box
    NO_OBJECTS = "no_objects"  # none is large enough to ask about
    NEAR_DUPLICATE = "near_duplicate"  # of an image that was selected
    NOT_SAMPLED = "not_sampled"  # no fault: enough other images were selected
    REFUSED_BY_TEACHER = "refused_by_teacher"
    REJECTED_IN_REVIEW = "rejected_in_review"  # every object of it was rejected

    @property
    def remedy(self) -> str:
        """What the user can do about it: one sentence, the column `what_to_do` of left_out.csv."""
        return _REMEDIES[self]


_REMEDIES = {
    Drop.BAD_NAME: "Name the file as SA-Med2D does, such as ct_00--dataset--case1--z_0001.png.",
    Drop.UNKNOWN_MODALITY: "Give --modality, or write modality into labels.yaml.",
    Drop.DUPLICATE_ID: "Give each image a name of its own.",
    Drop.UNNAMED_CLASS: "Give the class a name in labels.yaml or in the categories of the source.",
    Drop.UNION_CLASS: "Remove the class that is made of others, or leave it out of labels.",
    Drop.NO_MASKS: "Add marks for the image; if it truly shows none of the labels, set exhaustive: true.",
    Drop.MISSING_MASK: "Add the mask file of that name, or remove its entry.",
    Drop.MISSING_IMAGE: "Put the image under that name beside the others, or remove its marks.",
    Drop.UNREADABLE_IMAGE: "Open the file in an image viewer; copy it again, or save it as PNG.",
    Drop.UNREADABLE_MASK: "Save the marks again: a mask as PNG, an outline as polygons or run lengths.",
    Drop.NEEDS_PYLIBJPEG: "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg",
    Drop.MULTI_FRAME: "Export the frames as single DICOM files or PNG.",
    Drop.BURNED_IN: "Remove the text from the pixels, then set BurnedInAnnotation to NO.",
    Drop.OFF_GRID: "Export the segmentation on the grid of its images.",
    Drop.BLANK_IMAGE: "The image has one value only; export its pixels again.",
    Drop.IMAGE_IS_MASK: "The image has two values only, as a mask; put the image itself there.",
    Drop.SHAPE_MISMATCH: "Export image and marks with the same width, height and depth.",
    Drop.GRID_MISMATCH: "Resample the label map to its image, or set trust_shape: true if only its header is wrong.",
    Drop.SIZE_MISMATCH: "Resize the image to the size its marks were made on, or make the marks again.",
    Drop.ORIENTATION_UNKNOWN: "Set orientation: stored or upright in labels.yaml; `bird data check` draws it.",
    Drop.UNKNOWN_VALUE: "Name the value under labels in labels.yaml, or list it under ignore.",
    Drop.CHANNEL_UNKNOWN: "Set channel in labels.yaml: 0 is the first.",
    Drop.CROWD_REGION: "Mark the objects of the region one by one, or remove the region.",
    Drop.UNREADABLE_BOX: "Correct the box: four numbers inside the image, with a width and a height above 0.",
    Drop.NOT_BINARY: "Save one mask a file with two values, or a label map with names under labels.",
    Drop.EMPTY_MASK: "Remove the empty mask, or draw the object.",
    Drop.FULL_MASK: "Remove the mask that covers the whole image, or draw the object.",
    Drop.INVERTED_MASK: "Invert the mask: the object must be the foreground.",
    Drop.FRAGMENT: "Remove single pixels that stand apart from the object.",
    Drop.NO_OBJECTS: "Every object is smaller than the least area of a build; leave the image out.",
    Drop.NEAR_DUPLICATE: "Nothing: one of the two pictures is in the dataset.",
    Drop.NOT_SAMPLED: "Raise --limit to take more images.",
    Drop.REFUSED_BY_TEACHER: "Build again, or use --teacher templates.",
    Drop.REJECTED_IN_REVIEW: "Change the decision in review/labels.csv if it was not meant.",
}


class FaultyImageError(ValueError):
    """Raised for an image that is dropped. `reason` says why."""

    def __init__(self, reason: Drop, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


def read_photograph(content: bytes) -> tuple[np.ndarray, Frame]:
    """An image file's bytes -> its upright pixels, and its frame. Raises FaultyImageError.

    The pixels are (H, W, 3) uint8, or (H, W) if the image is grey.
    """
    frame: Frame | None = None
    pixels = _read_plain_png(content)
    if pixels is None:
        try:
            pixels = np.asarray(open_image(content))  # checks the size before `frame_of` decodes a PNG
            frame = frame_of(content)
        except ValueError as error:
            raise FaultyImageError(Drop.UNREADABLE_IMAGE, str(error)) from error
    frame = frame or Frame(1, (pixels.shape[1], pixels.shape[0]))
    # For most colour images the first comparison, of a few rows, is enough.
    if pixels.ndim == 3 and all((part == part[..., :1]).all() for part in (pixels[::16], pixels)):
        pixels = np.ascontiguousarray(pixels[..., 0])
    check_pixels(pixels)
    return pixels, frame


def _read_plain_png(content: bytes) -> np.ndarray | None:
    """The pixels of a grey or RGB PNG, for which `open_image` is needlessly slow; None for all other files."""
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG",))
        small = max(image.size) <= MAX_SIDE_PX and image.width * image.height <= MAX_PIXELS
        if image.mode not in ("L", "RGB") or not small or min(image.size) < MIN_SIDE_PX:
            return None
        pixels = np.asarray(image)
    except Exception:  # `open_image` raises the error with a message
        return None
    return None if _ORIENTED_OR_TRANSPARENT & image.info.keys() else pixels


def check_pixels(pixels: np.ndarray) -> None:
    """Raises FaultyImageError if an image has only one value, or only two, as masks have."""
    low, high = pixels.min(), pixels.max()
    if low == high:
        raise FaultyImageError(Drop.BLANK_IMAGE)
    for part in (pixels[::16, ::16], pixels):  # for most images a few pixels are enough
        if not ((part == low) | (part == high)).all():
            return
    raise FaultyImageError(Drop.IMAGE_IS_MASK)


def read_values(source: bytes | Path) -> tuple[np.ndarray, int, str]:
    """A mask file, or its bytes -> its values, turned as its own EXIF orientation says, that orientation, its format.

    The values are (H, W) 1-bit, palette indices or grey, or (H, W, C) if there are colours. Pixels of a lossy format
    are no longer those that were saved. Raises FaultyImageError if the file cannot be read.
    """
    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(opened, formats=(*_MASK_FORMATS, *_LOSSY_FORMATS)) as image:
            if max(image.size) > MAX_SIDE_PX or image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are too many")
            exif = exif_of(image) if image.format == "TIFF" else 1
            values = np.asarray(image)
            if image.format != "TIFF" and _ORIENTED_OR_TRANSPARENT & image.info.keys():
                exif = exif_of(image)
                values = Frame(exif, image.size).upright(values)
    except Exception as error:  # damaged files raise many kinds of errors
        raise FaultyImageError(Drop.UNREADABLE_MASK, " ".join(str(error).split())) from error
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] > 2 else values[..., :1]  # without transparency
        if (colours == colours[..., :1]).all():
            values = colours[..., 0]  # a grey mask saved in colour
    return values, exif, str(image.format)


def read_turned_values(content: bytes) -> tuple[np.ndarray, int]:
    """The values (H, W) of `read_values`, and the orientation, of a mask that is to be trusted.

    Raises FaultyImageError; the detail of a mask in colour, or of a lossy one, has the values found.
    """
    values, exif, kind = read_values(content)
    if kind in _LOSSY_FORMATS:
        detail = f"a {kind} mask, a format that changes values; save it as PNG: {values_found(values)}"
        raise FaultyImageError(Drop.NOT_BINARY, detail)
    if values.ndim != 2:
        raise FaultyImageError(Drop.NOT_BINARY, f"a mask in colour: {values_found(values)}")
    return values, exif


def values_found(values: np.ndarray) -> str:
    """The first few values of an array (H, W), or colours of an array (H, W, C), in words: `values 0, 1 and 3 more`."""
    if values.ndim == 3:
        whole = values.reshape(-1, values.shape[2]).astype(np.uint32)
        packed = np.unique(whole[:, :3] @ np.array([1 << 16, 1 << 8, 1], np.uint32))
        found = [f"#{colour:06x}" for colour in packed[:MOST_NAMED]]
        number, word = packed.size, "colours"
    else:
        distinct = np.unique(values)
        found = [f"{value:.10g}" for value in distinct[:MOST_NAMED].astype(float)]
        number, word = distinct.size, "values"
    more = f" and {number - MOST_NAMED:,} more" if number > MOST_NAMED else ""
    return f"{word} {', '.join(found)}{more}"


def mask_of_values(values: np.ndarray) -> np.ndarray:
    """The values of a mask (H, W) -> bool. Raises FaultyImageError if there are values other than 0 and one more."""
    if values.dtype == np.bool_:
        return values
    mask = values == (values.max() or 1)
    if np.count_nonzero(mask) != np.count_nonzero(values):
        raise FaultyImageError(Drop.NOT_BINARY, values_found(values))
    return mask


def check_mask(mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises FaultyImageError if a mask (H, W) bool has a fault, or another shape than its image."""
    if mask.shape != shape[:2]:
        raise FaultyImageError(Drop.SHAPE_MISMATCH, f"mask {mask.shape}, image {shape[:2]}")
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        raise FaultyImageError(Drop.EMPTY_MASK)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    if (rows.size, columns.size) == mask.shape:
        _check_border(mask)
    if (_has_gap(rows) or _has_gap(columns) or rows.size == columns.size == 1) and _has_isolated_pixel(mask):
        raise FaultyImageError(Drop.FRAGMENT)


def _check_border(mask: np.ndarray) -> None:
    if mask.all():
        raise FaultyImageError(Drop.FULL_MASK)
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    if border.mean() >= _INVERTED_BORDER:
        raise FaultyImageError(Drop.INVERTED_MASK)


def _has_gap(covered: np.ndarray) -> bool:
    """Whether the covered rows (or columns) are interrupted: only then can an isolated pixel enlarge the box much."""
    return bool(covered[-1] - covered[0] + 1 != covered.size)


def _has_isolated_pixel(mask: np.ndarray) -> bool:
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    return bool((np.bincount(pieces.ravel())[1:] == 1).any())


def check_union(masks: Iterable[tuple[str, np.ndarray]]) -> None:
    """Raises FaultyImageError if a class covers exactly the union of two or more other classes."""
    merged: dict[str, np.ndarray] = {}
    for label, mask in masks:
        merged[label] = merged[label] | mask if label in merged else mask
    # One pixel in 64 rules out nearly all candidates, so hardly any mask is compared in full.
    sampled = {label: mask[::8, ::8] for label, mask in merged.items()}
    for label, mask in merged.items():
        parts = _parts_of(label, sampled)
        parts = [part for part in parts if np.count_nonzero(merged[part]) < np.count_nonzero(mask)]
        if len(parts) > 1 and _parts_of(label, {name: merged[name] for name in (label, *parts)}):
            raise FaultyImageError(Drop.UNION_CLASS, label)


def _parts_of(label: str, masks: Mapping[str, np.ndarray]) -> list[str]:
    """The other labels whose masks are inside a label's mask, if there are at least two and they cover it."""
    whole = masks[label]
    outside = ~whole
    parts = [part for part, mask in masks.items() if part != label and not (mask & outside).any()]
    covered = len(parts) > 1 and np.array_equal(np.logical_or.reduce([masks[part] for part in parts]), whole)
    return parts if covered else []
