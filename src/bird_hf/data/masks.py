"""Masks -> instances: the box of a mask, and the record of an image with masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ..hub.boxes import Box
from .records import ImageRecord, Instance, MaskedImage


def box_of(mask: np.ndarray) -> Box:
    """The tight box of a mask.

    mask: (H, W) bool. The box of a single pixel is one pixel wide and high. Raises ValueError if the mask is empty.
    """
    height, width = mask.shape
    return Box.from_pixels(corners_of_mask(mask), (width, height))


def corners_of_mask(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box of a mask (H, W) bool as half-open pixels x1, y1, x2, y2. Raises ValueError if it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        raise ValueError(f"mask of shape {mask.shape} is empty; an object without pixels has no box")
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def record_of(image: MaskedImage, min_area: float = 0.0) -> ImageRecord:
    """The record of an image: one instance per mask, then one per box without a mask, then one per absent label.

    Objects that cover less than `min_area` of the image are omitted: they are too small to ask about, and they are not
    absent either. Raises ValueError if a mask has another shape than the image.
    """
    height, width = image.pixels.shape[:2]
    seen: Counter[str] = Counter()
    instances = [instance for instance, _ in _outlined(image, min_area, seen)]
    for label, box in image.boxes:
        if box.area >= min_area:
            instances.append(Instance(_instance_id(label, seen), label, box, box.area))
    instances += [Instance(_instance_id(label, seen), label, None, 0.0) for label in image.absent]
    return ImageRecord(image.info, (width, height), tuple(instances))


def outlines_of(image: MaskedImage, min_area: float = 0.0) -> dict[str, np.ndarray]:
    """Instance id -> mask (H, W) bool, of the instances of `record_of` that have a mask."""
    return {instance.instance_id: mask for instance, mask in _outlined(image, min_area, Counter())}


def _outlined(
    image: MaskedImage, min_area: float, seen: Counter[str]
) -> Iterator[tuple[Instance, np.ndarray]]:
    """Yield the instances that have a mask, with it."""
    height, width = image.pixels.shape[:2]
    for label, mask in image.masks:
        if mask.shape != (height, width):
            raise ValueError(
                f"{image.info.image_id}: the mask of {label!r} is {mask.shape}, the image {(height, width)}"
            )
        area = float(np.count_nonzero(mask)) / mask.size
        if area == 0 or area < min_area:
            continue
        yield Instance(_instance_id(label, seen), label, box_of(mask), area), mask


def _instance_id(label: str, seen: Counter[str]) -> str:
    seen[label] += 1
    return f"{label.replace(' ', '_')}_{seen[label] - 1}"
