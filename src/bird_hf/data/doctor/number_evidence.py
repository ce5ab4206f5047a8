"""What the numbers of boxes and the sizes of pictures say against a convention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .conventions import (
    GRID_TOPS,
    PIXEL_SCALES,
    Convention,
    FarCorner,
    Frame,
    Order,
    Pictures,
    Scale,
    corners_of,
    last_pixel,
)

_CORNER_ORDERS = (Order.X_FIRST, Order.Y_FIRST)
_NOISE = 1e-6  # of floats, in the unit of the numbers
_MOST_DECIMALS = 6
_FEW = 3  # boxes that prove nothing alone
_SHARE = 0.01  # of the boxes; as many may be faulty
_LEAST_PX = 100.0  # the side of a picture of unknown size, at the least
_CORNER = 0.01  # of the frame: if every box lies in it, the scale is another one


@dataclass(frozen=True)
class Against:
    """The boxes that contradict a convention. first: the number of the first one, None if there is none; why: of it."""

    count: int
    first: int | None = None
    why: str = ""


@dataclass(frozen=True)
class NumberEvidence:
    """The numbers of boxes.

    numbers: (N, 4) float, finite. pictures: sizes of their pictures. step: from one number to the next: 1 for whole
    numbers, 0.01 for two decimal places, 0 if there are more than six.
    """

    numbers: np.ndarray
    pictures: Pictures
    step: float

    @classmethod
    def of(cls, numbers: np.ndarray, pictures: Pictures) -> NumberEvidence:
        """The step is that of the number with the most decimal places."""
        for decimals in range(_MOST_DECIMALS + 1):
            if np.all(np.abs(np.round(numbers, decimals) - numbers) < 1e-9):
                return cls(numbers, pictures, 10.0**-decimals)
        return cls(numbers, pictures, 0.0)

    def against(self, convention: Convention) -> Against:
        """The boxes that cannot be written so, and why the first cannot."""
        found = self._reasons(convention)
        wrong = np.zeros(len(self.numbers), bool)
        for _, mask in found:
            wrong |= mask
        if not wrong.all() and self._are_in_corner(convention):
            return Against(len(wrong), 0, "no number is above a hundredth of the frame")
        if not wrong.any():
            return Against(0)
        first = int(np.argmax(wrong))
        return Against(int(wrong.sum()), first, next(why for why, mask in found if mask[first]))

    def _are_in_corner(self, convention: Convention) -> bool:
        """Whether no number of at least three boxes is above a hundredth of the frame."""
        is_corners = convention.order in _CORNER_ORDERS
        far = (
            corners_of(convention.order, self.numbers)
            if is_corners
            else self.numbers.reshape(-1, 2, 2).max(axis=1)
        )
        far = far[:, -2:]
        lengths = self.pictures.lengths(convention)
        return len(far) >= _FEW and bool(
            np.all(far <= _CORNER * np.where(np.isnan(lengths), _LEAST_PX, lengths))
        )

    def _reasons(self, convention: Convention) -> list[tuple[str, np.ndarray]]:
        corners = corners_of(convention.order, self.numbers)
        near, far = corners[:, :2], corners[:, 2:]
        beyond = far + last_pixel(convention, self.pictures)
        reasons = []
        if convention.scale in GRID_TOPS:
            reasons.append(("not whole numbers", np.any(self.numbers % 1 != 0, axis=1)))
        elif convention.scale is not Scale.UNIT:
            # Else fractions are corners and sizes of specks in the first pixel, in every order of which some fit.
            small = np.all(np.abs(self.numbers) <= 1, axis=1) & np.any(self.numbers % 1 != 0, axis=1)
            reasons.append(("fractions from 0 to 1", small))
        reasons += [
            ("the far corner is not beyond the near one", self._inverted(convention, near, far)),
            *self._outside(convention, near, far),
        ]
        if convention.scale in PIXEL_SCALES:
            if convention.far_corner is FarCorner.IN:
                whole = 2 * self.numbers if convention.order is Order.CENTRE else self.numbers
                reasons.append(("the last pixel is a whole number", np.any(np.abs(whole % 1) > 0, axis=1)))
            else:
                thin = np.any((beyond - near < 0.5) & (beyond > near), axis=1)
                reasons.append(("thinner than half a pixel", thin))
        return reasons

    def _inverted(self, convention: Convention, near: np.ndarray, far: np.ndarray) -> np.ndarray:
        inverted = far < near - _NOISE
        if convention.far_corner is FarCorner.OUT:
            # A thin object may become empty by rounding, unless a step is at most a pixel.
            seen = self.pictures.seen(convention.frame)
            lengths = self.pictures.lengths(convention)
            per_number = 1.0 if convention.scale in PIXEL_SCALES else (seen[:, 2:] - seen[:, :2]) / lengths
            inverted |= (far - near < _NOISE) & (self.step * per_number <= 1)
        return np.any(inverted, axis=1)

    def _outside(
        self, convention: Convention, near: np.ndarray, far: np.ndarray
    ) -> list[tuple[str, np.ndarray]]:
        """What lies outside the frame, or in the padding around the picture."""
        lengths, added = self.pictures.lengths(convention), last_pixel(convention, self.pictures)
        slack = self.step if convention.order not in _CORNER_ORDERS else 0.0  # two numbers were rounded
        limit = self._rounded_up(lengths - added)
        limit = np.where(np.isnan(limit), lengths, limit)
        if convention.scale in GRID_TOPS:
            top = float(GRID_TOPS[convention.scale])
            limit = np.minimum(limit, top)
            reasons = [(f"above {top:g}", np.any(far > top + slack, axis=1))]
        else:
            reasons = []
        sides = "xy" if convention.order is not Order.Y_FIRST else "yx"
        reasons += [
            ("below 0", np.any(near < -slack - _NOISE, axis=1)),
            *(
                (f"{side} beyond the frame", (far > limit + slack + _NOISE)[:, "xy".index(side)])
                for side in sides
            ),
        ]
        if convention.frame is Frame.PADDED:
            reasons.append(("in the padding", self._in_padding(convention, near, far)))
        return reasons

    def _in_padding(self, convention: Convention, near: np.ndarray, far: np.ndarray) -> np.ndarray:
        seen, lengths = self.pictures.seen(Frame.PADDED), self.pictures.lengths(convention)
        per_pixel = lengths / (seen[:, 2:] - seen[:, :2])
        # Rounding moves an edge by a step, and an odd pixel of padding is on either side.
        grid = 1.0 if convention.scale in GRID_TOPS else self.step
        slack = 2 * np.maximum(grid, self.step) + per_pixel
        low, high = -seen[:, :2] * per_pixel, (self.pictures.wh - seen[:, :2]) * per_pixel
        return np.any((near < low - slack) | (far > high + slack), axis=1)

    def _rounded_up(self, values: np.ndarray) -> np.ndarray:
        """Values up to the next number that is written."""
        return np.ceil(values / self.step - _NOISE) * self.step if self.step else values

    def ends_at(self, convention: Convention) -> tuple[int, int, bool]:
        """The boxes that end exactly at the far edge of the frame, the number of different lengths that they end at,
        and whether the longest of all is among these.
        """
        far = corners_of(convention.order, self.numbers)[:, 2:]
        lengths = self.pictures.lengths(convention)
        if convention.scale in GRID_TOPS:
            lengths = np.full_like(lengths, GRID_TOPS[convention.scale])
        elif convention.far_corner is FarCorner.IN:
            lengths = lengths - last_pixel(convention, self.pictures)
        ends = np.abs(far - lengths) < 1e-9
        found = np.unique(lengths[ends])
        is_longest = bool(found.size and found[-1] == np.nanmax(lengths))
        return int(np.any(ends, axis=1).sum()), len(found), is_longest

    def near_end(self, convention: Convention) -> int:
        """The boxes that end within three numbers of the far edge of the frame, or of a frame that is not known."""
        far = corners_of(convention.order, self.numbers)[:, 2:] + last_pixel(convention, self.pictures)
        lengths = self.pictures.lengths(convention)
        steps = max(self.step, 1.0) if convention.scale is not Scale.UNIT else self.step
        return int(np.any(~(far < lengths - 3 * steps), axis=1).sum())


def excludes(count: int, total: int) -> bool:
    """Whether `count` contradictions among `total` boxes are more than a good set has: three, and one in a hundred."""
    return total > 0 and count >= min(total, max(_FEW, int(np.ceil(_SHARE * total))))


def is_pile(count: int, total: int) -> bool:
    """Whether so many boxes end at one place that it is an edge."""
    return count >= max(_FEW, int(np.ceil(_SHARE * total)))
