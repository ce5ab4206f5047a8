"""Sets of boxes in every convention, made from exact boxes by rules written apart from those under test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bird_hf.data.doctor.conventions import (
    Convention,
    FarCorner,
    Frame,
    Order,
    Origin,
    Pictures,
    Resized,
    Scale,
)
from bird_hf.data.doctor.mask_evidence import MaskEvidence
from bird_hf.data.doctor.number_evidence import NumberEvidence
from bird_hf.dialects.families.qwen2_5_vl import smart_resize

PixelBox = tuple[int, int, int, int]
GRID_SCALES = (Scale.THOUSANDTHS, Scale.TO_999, Scale.BINS_1024)


@dataclass
class BoxSet:
    """pixels: the exact boxes; numbers: as the convention has them; sizes: (width, height) of each picture."""

    pixels: list[PixelBox]
    sizes: list[tuple[int, int]]
    numbers: np.ndarray

    @property
    def wh(self) -> np.ndarray:
        return np.array(self.sizes, float)

    @property
    def masks(self) -> MaskEvidence:
        wh = self.wh
        return MaskEvidence(
            np.arange(len(wh)),
            self.numbers,
            Pictures(wh),
            np.array(self.pixels, float)[:, None],
            np.zeros(len(wh)),
            NumberEvidence.of(self.numbers, Pictures(wh)).step,
        )


def written(
    convention: Convention, box: PixelBox, size: tuple[int, int], decimals: int | None
) -> list[float] | None:
    """One box in a convention; None if its frame does not show it."""
    (x1, y1, x2, y2), (width, height) = box, size
    if convention.origin is Origin.LOWER:
        y1, y2 = height - y2, height - y1
    side = {Frame.PADDED: max(size), Frame.CROPPED: min(size)}.get(convention.frame)
    frame_wh = (side, side) if side else size
    offset = [0, 0]
    if convention.frame is Frame.PADDED:
        offset = [(side - width) // 2, (side - height) // 2]
    elif convention.frame is Frame.CROPPED:
        offset = [-((width - side) // 2), -((height - side) // 2)]
    if convention.origin is Origin.LOWER and side:
        offset[1] = side - height - offset[1]
    x1, x2, y1, y2 = x1 + offset[0], x2 + offset[0], y1 + offset[1], y2 + offset[1]
    if min(x1, y1) < 0 or x2 > frame_wh[0] or y2 > frame_wh[1]:
        return None
    full = {
        Scale.UNIT: (1, 1),
        Scale.PERCENT: (100, 100),
        Scale.THOUSANDTHS: (1000, 1000),
        Scale.TO_999: (999, 999),
        Scale.BINS_1024: (1024, 1024),
        Scale.PIXELS: size,
    }.get(convention.scale)
    if convention.scale is Scale.QWEN:
        full = smart_resize(size, 28, 56 * 56, 14 * 14 * 4 * 1280)
    if convention.resized:
        longer = convention.resized.longer
        full = convention.resized.fixed_wh or (longer * width / max(size), longer * height / max(size))
    assert full
    is_in = convention.far_corner is FarCorner.IN
    if is_in and convention.scale not in (Scale.QWEN, Scale.RESIZED):
        x2, y2 = x2 - 1, y2 - 1
    u1, u2 = (value * full[0] / frame_wh[0] for value in (x1, x2))
    v1, v2 = (value * full[1] / frame_wh[1] for value in (y1, y2))
    if convention.scale in (Scale.QWEN, Scale.RESIZED) and is_in:
        u1, u2, v1, v2 = round(u1), max(round(u2) - 1, round(u1)), round(v1), max(round(v2) - 1, round(v1))
    numbers = {
        Order.X_FIRST: [u1, v1, u2, v2],
        Order.Y_FIRST: [v1, u1, v2, u2],
        Order.SIZE: [u1, v1, u2 - u1, v2 - v1],
        Order.CENTRE: [(u1 + u2) / 2, (v1 + v2) / 2, u2 - u1, v2 - v1],
    }[convention.order]
    if convention.scale in GRID_SCALES:
        top = {Scale.THOUSANDTHS: 1000, Scale.TO_999: 999, Scale.BINS_1024: 1023}[convention.scale]
        return [float(min(max(math.floor(value + 0.5), 0), top)) for value in numbers]
    return [round(value, decimals) for value in numbers] if decimals is not None else numbers


def random_set(
    convention: Convention,
    seed: int,
    count: int,
    sizes: list[tuple[int, int]],
    decimals: int | None = None,
    smallest_px: int = 4,
) -> BoxSet:
    """Boxes of all sizes and places, of which many touch an edge."""
    random = np.random.default_rng(seed)
    found = BoxSet([], [], np.empty((0, 4)))
    rows: list[list[float]] = []
    for _ in range(50 * count):
        if len(rows) == count:
            break
        size = sizes[random.integers(len(sizes))]
        spans = []
        for length in size:
            low, high = sorted(int(each) for each in random.integers(0, length + 1, 2))
            low, high = (0 if random.random() < 0.05 else low), (length if random.random() < 0.1 else high)
            low = min(low, length - smallest_px)
            spans.append((low, min(max(high, low + smallest_px), length)))
        box = (spans[0][0], spans[1][0], spans[0][1], spans[1][1])
        row = written(convention, box, size, decimals)
        if row is not None:
            rows.append(row)
            found.pixels.append(box)
            found.sizes.append(size)
    found.numbers = np.array(rows, float).reshape(-1, 4)
    return found


def resized(
    fixed_wh: tuple[float, float] | None = None, longer: float | None = None, **parts: object
) -> Convention:
    """A convention in pixels of a resized picture."""
    return Convention(Scale.RESIZED, resized=Resized(fixed_wh, longer), **({"order": Order.X_FIRST} | parts))  # type: ignore[arg-type]
