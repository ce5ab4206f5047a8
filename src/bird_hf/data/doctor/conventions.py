"""The conventions in which the four numbers of a box are written, and what each makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product

import numpy as np

from ...dialects.families.qwen2_5_vl import Qwen25VLDialect
from ...dialects.views import View, centre_crop, padded_square


class Scale(StrEnum):
    """What the number at the far edge of the frame is."""

    UNIT = "unit, 0 to 1"
    PERCENT = "percent, 0 to 100"
    THOUSANDTHS = "thousandths, 0 to 1000"
    TO_999 = "0 to 999"
    BINS_1024 = "0 to 1023 of 1024"
    PIXELS = "pixels of the picture"
    QWEN = "pixels after Qwen2.5-VL's resizing"
    RESIZED = "pixels of a picture of another size"


class Order(StrEnum):
    """In which order the numbers stand."""

    X_FIRST = "x1, y1, x2, y2"
    Y_FIRST = "y1, x1, y2, x2"
    SIZE = "x, y, width, height"
    CENTRE = "centre x, centre y, width, height"


class Origin(StrEnum):
    """Where 0, 0 is."""

    UPPER = "upper left"
    LOWER = "lower left"


class FarCorner(StrEnum):
    """Whether the far corner is the last pixel of the object, or just outside it (half-open)."""

    OUT = "outside the object (half-open)"
    IN = "the last pixel of the object"


class Frame(StrEnum):
    """What the numbers are fractions of."""

    PICTURE = "the picture"
    PADDED = "the picture padded to a square"
    CROPPED = "the middle square of the picture"


GRID_TOPS = {Scale.THOUSANDTHS: 1000, Scale.TO_999: 999, Scale.BINS_1024: 1023}  # the largest whole number
_LENGTHS = {
    Scale.UNIT: 1.0,
    Scale.PERCENT: 100.0,
    Scale.THOUSANDTHS: 1000.0,
    Scale.TO_999: 1000.0,
    Scale.BINS_1024: 1024.0,
}
PIXEL_SCALES = (Scale.PIXELS, Scale.QWEN, Scale.RESIZED)


@dataclass(frozen=True)
class Resized:
    """The size of a resized picture, found from masks: a fixed width and height, or that of the longer side."""

    fixed_wh: tuple[float, float] | None = None
    longer: float | None = None

    def __str__(self) -> str:
        if self.fixed_wh:
            return f"pixels of a picture resized to {self.fixed_wh[0]:g}x{self.fixed_wh[1]:g}"
        return f"pixels of a picture resized to a longer side of {self.longer:g}"


@dataclass(frozen=True)
class Convention:
    """One way of writing boxes. resized: of `Scale.RESIZED`; None if the size is not known."""

    scale: Scale
    order: Order
    origin: Origin = Origin.UPPER
    far_corner: FarCorner = FarCorner.OUT
    frame: Frame = Frame.PICTURE
    resized: Resized | None = None

    @property
    def parts(self) -> dict[str, str]:
        """The convention in words, by dimension."""
        scale = str(self.resized) if self.resized else self.scale.value
        return {
            "scale": scale,
            "order": self.order.value,
            "origin": self.origin.value,
            "far corner": self.far_corner.value,
            "frame": self.frame.value,
        }


def all_conventions(are_square: bool) -> list[Convention]:
    """Every convention that is considered before masks are. are_square: all pictures are; then frames are one."""
    found = []
    for scale, order, origin, far in product(Scale, Order, Origin, FarCorner):
        several = scale not in PIXEL_SCALES and not are_square
        for frame in Frame if several else (Frame.PICTURE,):
            found.append(Convention(scale, order, origin, far, frame))
    return found


@dataclass
class Pictures:
    """Sizes of pictures, one row a box. wh: (N, 2) float, NaN if it is not known."""

    wh: np.ndarray
    _views: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def seen(self, frame: Frame) -> np.ndarray:
        """The frame in pixels of the picture: (N, 4) left, top, right, bottom."""
        if frame is Frame.PICTURE:
            return np.concatenate([np.zeros_like(self.wh), self.wh], axis=1)
        return self._view(frame)[0]

    def lengths(self, convention: Convention) -> np.ndarray:
        """The number at the far edge of the frame, (N, 2) for x and y; NaN if it is not known."""
        if convention.scale in _LENGTHS:
            return np.full_like(self.wh, _LENGTHS[convention.scale])
        if convention.scale is Scale.PIXELS:
            return self.wh
        if convention.scale is Scale.QWEN:
            return self._view(Scale.QWEN)[1]
        resized = convention.resized
        if resized is None:
            return np.full_like(self.wh, np.nan)
        if resized.fixed_wh:
            return np.broadcast_to(np.array(resized.fixed_wh, float), self.wh.shape)
        return self.wh * ((resized.longer or np.nan) / self.wh.max(axis=1, keepdims=True))

    def _view(self, name: Frame | Scale) -> tuple[np.ndarray, np.ndarray]:
        """Corners of what is seen (N, 4), and its size after resizing (N, 2), computed once a size."""
        if name not in self._views:
            sizes, places = np.unique(self.wh, axis=0, return_inverse=True)
            is_known = np.isfinite(sizes).all(axis=1)
            views = [
                _view_of(name, (int(width), int(height))) if known else None
                for (width, height), known in zip(sizes.tolist(), is_known, strict=True)
            ]
            seen = np.array([view.seen_px if view else [np.nan] * 4 for view in views], float).reshape(-1, 4)
            resized = np.array(
                [view.resized_wh if view and view.resized_wh else (np.nan, np.nan) for view in views], float
            ).reshape(-1, 2)
            places = places.reshape(-1)
            self._views[name] = seen[places], resized[places]
        return self._views[name]


def _view_of(name: Frame | Scale, image_wh: tuple[int, int]) -> View | None:
    if name is Frame.PADDED:
        return padded_square(image_wh)
    if name is Frame.CROPPED:
        return centre_crop(image_wh)
    try:
        return Qwen25VLDialect().view(image_wh)
    except ValueError:  # sides in a ratio that Qwen refuses
        return None


def corners_of(order: Order, numbers: np.ndarray) -> np.ndarray:
    """Numbers (N, 4) in an order -> near x, near y, far x, far y, in the same unit."""
    a, b, c, d = numbers.T
    match order:
        case Order.X_FIRST:
            found = (a, b, c, d)
        case Order.Y_FIRST:
            found = (b, a, d, c)
        case Order.SIZE:
            found = (a, b, a + c, b + d)
        case Order.CENTRE:
            found = (a - c / 2, b - d / 2, a + c / 2, b + d / 2)
    return np.stack(found, axis=1)


def last_pixel(convention: Convention, pictures: Pictures) -> np.ndarray:
    """What is added to the far corner to lie outside the object, (N, 2), in the unit of the numbers.

    It is a pixel of the picture that the numbers are pixels of; for other scales, one of the picture itself.
    """
    if convention.far_corner is FarCorner.OUT:
        return np.zeros_like(pictures.wh)
    if convention.scale in PIXEL_SCALES:
        return np.ones_like(pictures.wh)
    seen = pictures.seen(convention.frame)
    return pictures.lengths(convention) / (seen[:, 2:] - seen[:, :2])


def to_pixels(convention: Convention, numbers: np.ndarray, pictures: Pictures) -> np.ndarray:
    """Numbers (N, 4) -> half-open corners in pixels of the picture, from the upper left; NaN if it is not known."""
    corners = corners_of(convention.order, numbers)
    corners[:, 2:] += last_pixel(convention, pictures)
    lengths, seen = pictures.lengths(convention), pictures.seen(convention.frame)
    sides = seen[:, 2:] - seen[:, :2]
    unit = corners / np.concatenate([lengths, lengths], axis=1)
    if convention.origin is Origin.LOWER:
        unit[:, [1, 3]] = 1 - unit[:, [3, 1]]
    return unit * np.concatenate([sides, sides], axis=1) + np.concatenate([seen[:, :2]] * 2, axis=1)
