"""A box means one thing everywhere: corners in the unit square of the original image.

x grows to the right and y grows down. The near corner (x1, y1) belongs to the box and the far corner
(x2, y2) lies just outside it (half-open), so that the whole image is `Box(0, 0, 1, 1)` and a box of
pixel columns 10..19 of a 100-pixel-wide image spans 0.10 to 0.20.

Two other frames exist, and only here are they converted: *pixels* of an image of a stated size, and
*thousandths*, the integers 0..1000 that the model reads and writes (BiRD 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

THOUSAND = 1000  # BiRD 3: coordinates are mapped to [0, 1000]


@dataclass(frozen=True, slots=True)
class Box:
    """Corners in the unit square, `0 <= x1 < x2 <= 1` and the same for y.

    Raises ValueError if the corners break that rule or are not finite numbers.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, float(getattr(self, name)))
        _check_corners(self.xyxy, (1.0, 1.0), "unit frame, 0 to 1 of the image")

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        return self.x1, self.y1, self.x2, self.y2

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    @classmethod
    def from_pixels(cls, xyxy: Sequence[float], image_wh: tuple[int, int]) -> Box:
        """From half-open pixel corners of an image of `image_wh` = (width, height).

        Raises ValueError if a corner lies outside the image.
        """
        x1, y1, x2, y2 = _four(xyxy)
        width, height = _check_image_wh(image_wh)
        _check_corners((x1, y1, x2, y2), (width, height), f"pixels of a {width}x{height} image")
        return cls(x1 / width, y1 / height, x2 / width, y2 / height)

    def to_pixels(self, image_wh: tuple[int, int]) -> tuple[float, float, float, float]:
        """Half-open pixel corners in an image of `image_wh` = (width, height), not rounded."""
        width, height = _check_image_wh(image_wh)
        return self.x1 * width, self.y1 * height, self.x2 * width, self.y2 * height

    @classmethod
    def from_thousandths(cls, xyxy: Sequence[int]) -> Box:
        """From the integers 0..1000 that the model writes.

        Raises ValueError outside that range, and for a fraction: 0.281 is a number of the unit frame.
        """
        x1, y1, x2, y2 = corners = _four(xyxy)
        _check_corners(corners, (THOUSAND, THOUSAND), "thousandths, 0 to 1000")
        if not all(value.is_integer() for value in corners):
            raise ValueError(f"box {_shown(corners)}: thousandths are whole numbers; is this another frame?")
        return cls(x1 / THOUSAND, y1 / THOUSAND, x2 / THOUSAND, y2 / THOUSAND)

    def to_thousandths(self) -> tuple[int, int, int, int]:
        """Quantise to the paper's thousandths: four ints in 0..1000, at least one wide and high.

        These are edges, not bins: 1000 is the right edge of the image. Source: BiRD 3.
        """
        x1, x2 = _quantise(self.x1, self.x2)
        y1, y2 = _quantise(self.y1, self.y2)
        return x1, y1, x2, y2

    def iou(self, other: Box) -> float:
        """Intersection over union, in [0, 1]."""
        width = min(self.x2, other.x2) - max(self.x1, other.x1)
        height = min(self.y2, other.y2) - max(self.y1, other.y1)
        if width <= 0 or height <= 0:
            return 0.0
        shared = width * height
        return shared / (self.area + other.area - shared)


def _quantise(near: float, far: float) -> tuple[int, int]:
    """An interval of the unit line in thousandths; an empty one grows toward the interval's middle."""
    # Half up, not banker's rounding: whether 0.5 goes up must not depend on parity.
    low, high = math.floor(near * THOUSAND + 0.5), math.floor(far * THOUSAND + 0.5)
    if low < high:
        return low, high
    grows_up = low < THOUSAND and (near + far) / 2 * THOUSAND >= low
    return (low, low + 1) if grows_up else (low - 1, low)


def _four(xyxy: Sequence[float]) -> tuple[float, float, float, float]:
    if len(xyxy) != 4:
        raise ValueError(f"a box has four numbers x1, y1, x2, y2; got {len(xyxy)}: {_shown(xyxy)}")
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    return x1, y1, x2, y2


def _check_image_wh(image_wh: tuple[int, int]) -> tuple[int, int]:
    if len(image_wh) != 2 or not min(image_wh) >= 1:
        raise ValueError(f"image_wh is (width, height) in pixels, at least 1 each; got {tuple(image_wh)}")
    width, height = image_wh
    return width, height


def _check_corners(corners: Sequence[float], far_wh: tuple[float, float], frame: str) -> None:
    x1, y1, x2, y2 = corners
    for name, near, far, limit in (("x", x1, x2, far_wh[0]), ("y", y1, y2, far_wh[1])):
        # Written so that NaN fails too.
        if not 0 <= near < far <= limit:
            raise ValueError(
                f"box {_shown(corners)}: {name}1={near} and {name}2={far} break "
                f"0 <= {name}1 < {name}2 <= {limit:g} ({frame})"
            )


def _shown(numbers: Sequence[float]) -> str:
    """Numbers as they are, every digit: 1.0000000000000002 must not be shown as 1."""
    return f"({', '.join(str(float(number)) for number in numbers)})"
