"""The whole numbers in which dialects write an edge of a box."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Rounding(StrEnum):
    """How a fraction of what is seen becomes a whole number of the grid."""

    HALF_UP = "half up"  # 0.5 -> 1, 1.5 -> 2
    HALF_EVEN = "half to even"  # Python's and NumPy's round: 0.5 -> 0, 1.5 -> 2
    DECIMAL = "decimal places, half to even"  # Python's round(v, digits), which sees the binary fraction
    FLOOR = "down"


class Order(StrEnum):
    """In which order the four numbers of a box stand."""

    X_FIRST = "x1, y1, x2, y2"
    Y_FIRST = "y1, x1, y2, x2"

    def arrange(self, x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int, int, int]:
        """Four numbers in this order from the near and far one of each axis."""
        first, second = (x, y) if self is Order.X_FIRST else (y, x)
        return first[0], second[0], first[1], second[1]

    def xyxy(self, numbers: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Four numbers in this order -> x1, y1, x2, y2."""
        a, b, c, d = numbers
        return numbers if self is Order.X_FIRST else (b, a, d, c)


@dataclass(frozen=True)
class Grid:
    """One axis: fractions 0 to 1 of what is seen <-> whole numbers 0 to `top`.

    scale: the number at the far edge. top: the largest number that is written. is_bins: numbers are bins, read back at
    their middle, (n + 0.5) / scale; else they are edges, read back as n / scale.
    """

    scale: int
    top: int
    rounding: Rounding = Rounding.HALF_EVEN
    is_bins: bool = False
    read_scale: int | None = None  # what a number is divided by when it is read, if it is not `scale`

    @property
    def step(self) -> float:
        """From one number to the next, in fractions of what is seen."""
        return 1 / self.scale

    @property
    def quantum(self) -> float:
        """The farthest that an edge moves by writing and reading, in fractions of what is seen.

        Half a step if the box is wider than a step. A thinner one is kept one step wide, for which an edge moves by up
        to a step, and by up to two where the grid ends before the far edge.
        """
        drift = abs(1 - self.scale / (self.read_scale or self.scale))
        return (1 if self.top >= self.scale else 2) * self.step + drift

    def write(self, near: float, far: float) -> tuple[int, int]:
        """The numbers of an interval; one that would be empty is one step wide, toward its middle."""
        low, high = self._number(near), self._number(far)
        if low < high:
            return low, high
        middle = (near + far) / 2 * self.scale - (0.5 if self.is_bins else 0)
        grows_up = low < self.top and middle >= low
        return (low, low + 1) if grows_up or low == 0 else (low - 1, low)

    def read(self, number: float) -> float:
        """The fraction of a number 0 to `top`."""
        return (number + (0.5 if self.is_bins else 0)) / (self.read_scale or self.scale)

    def _number(self, value: float) -> int:
        match self.rounding:
            case Rounding.HALF_UP:
                number = math.floor(value * self.scale + 0.5)
            case Rounding.HALF_EVEN:
                number = round(value * self.scale)
            case Rounding.DECIMAL:
                number = round(round(value, len(str(self.scale)) - 1) * self.scale)
            case Rounding.FLOOR:
                number = math.floor(value * self.scale)
        return min(max(number, 0), self.top)

    @property
    def numbers(self) -> str:
        """The numbers in words, such as `0 to 999 of 1000`."""
        scale = self.read_scale or self.scale
        return f"0 to {self.top}" if self.top == scale else f"0 to {self.top} of {scale}"
