"""What a model sees of a picture: the whole of it, a square that it was padded to, or a part that was cut out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..hub.boxes import Box

Corners = tuple[float, float, float, float]

_FLOAT_NOISE = 1e-9  # of what is seen: what the arithmetic of floats may add to an edge


class NotVisibleError(ValueError):
    """A box that the model cannot see, wholly or in part."""


@dataclass(frozen=True)
class View:
    """What a model sees of a picture, and the way of a box into it and back.

    image_wh: width and height of the (upright) picture. region: what is seen, as half-open corners in pixels of the
    picture; corners outside the picture are padding. None: the whole picture. resized_wh: width and height of what is
    seen after resizing; None if it is of no matter to the numbers. Nothing is rounded here. Raises ValueError if a
    size or the region is empty.
    """

    image_wh: tuple[int, int]
    region: Corners | None = None
    resized_wh: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, size in (("image_wh", self.image_wh), ("resized_wh", self.resized_wh)):
            if size is not None and (len(size) != 2 or not min(size) >= 1):
                raise ValueError(f"{name} is (width, height) in pixels, at least 1 each; got {tuple(size)}")
        x1, y1, x2, y2 = self.seen_px
        if not (x1 < x2 and y1 < y2):
            raise ValueError(f"region {self.region} of a picture is empty; give x1, y1, x2, y2 in pixels")

    @property
    def seen_px(self) -> Corners:
        """The region that is seen, in pixels of the picture."""
        width, height = self.image_wh
        return self.region or (0, 0, width, height)

    @property
    def is_whole(self) -> bool:
        """Whether exactly the picture is seen, with no padding and nothing cut away."""
        return self.seen_px == (0, 0, *self.image_wh)

    @property
    def padding_px(self) -> Corners:
        """Pixels added at the left, top, right and bottom."""
        width, height = self.image_wh
        x1, y1, x2, y2 = self.seen_px
        return max(0, -x1), max(0, -y1), max(0, x2 - width), max(0, y2 - height)

    @property
    def cropped_px(self) -> Corners:
        """Pixels cut away at the left, top, right and bottom."""
        width, height = self.image_wh
        x1, y1, x2, y2 = self.seen_px
        return max(0, x1), max(0, y1), max(0, width - x2), max(0, height - y2)

    def to_seen(self, box: Box) -> Corners:
        """A box of the picture in fractions of what is seen. Raises NotVisibleError if a part of it was cut away."""
        if self.is_whole:
            return box.xyxy
        left, top, right, bottom = self.seen_px
        px1, py1, px2, py2 = box.to_pixels(self.image_wh)
        seen = (
            (px1 - left) / (right - left),
            (py1 - top) / (bottom - top),
            (px2 - left) / (right - left),
            (py2 - top) / (bottom - top),
        )
        if min(seen) < -_FLOAT_NOISE or max(seen) > 1 + _FLOAT_NOISE:
            raise NotVisibleError(
                f"box {_shown((px1, py1, px2, py2))} (pixels) is not wholly inside {_shown(self.seen_px)}, which is "
                f"what the model sees of a {self.image_wh[0]}x{self.image_wh[1]} picture; leave the object out"
            )
        x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in seen)
        return x1, y1, x2, y2

    def from_seen(self, seen: Corners, quantum_xy: tuple[float, float] = (0.0, 0.0)) -> Box | None:
        """A box of the picture from fractions of what is seen; None if it is not a box of the picture.

        quantum_xy: how far outside the picture an edge may lie, in fractions of what is seen: rounding to a grid can
        put an edge into the padding, and it is then that of the picture. An edge farther out gives None.
        """
        left, top, right, bottom = self.seen_px
        width, height = self.image_wh
        x = _interval(seen[0], seen[2], left, right, width, quantum_xy[0])
        y = _interval(seen[1], seen[3], top, bottom, height, quantum_xy[1])
        return Box(x[0], y[0], x[1], y[1]) if x and y else None


def padded_square(image_wh: tuple[int, int], resized_wh: tuple[int, int] | None = None) -> View:
    """The picture in the middle of a square of its longer side; an odd pixel is added at the right or below."""
    width, height = image_wh
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    return View(image_wh, (-left, -top, side - left, side - top), resized_wh)


def centre_crop(image_wh: tuple[int, int], resized_wh: tuple[int, int] | None = None) -> View:
    """The square of the shorter side in the middle of the picture; an odd pixel is cut away at the right or below."""
    width, height = image_wh
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return View(image_wh, (left, top, left + side, top + side), resized_wh)


def _interval(
    near: float, far: float, start: float, end: float, length: int, quantum: float
) -> tuple[float, float] | None:
    """An interval of what is seen as one of the picture, both in fractions; None if it lies outside or is empty."""
    if (start, end) == (0, length):
        low, high, slack = near, far, _FLOAT_NOISE
    else:
        low, high = ((start + value * (end - start)) / length for value in (near, far))
        slack = (quantum + _FLOAT_NOISE) * (end - start) / length
    if low < -slack or high > 1 + slack:
        return None
    low, high = max(low, 0.0), min(high, 1.0)
    return (low, high) if low < high else None


def _shown(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers)})"
