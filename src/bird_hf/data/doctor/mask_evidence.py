"""What masks say against a convention: whether the boxes that it makes are those of the masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .conventions import (
    GRID_TOPS,
    PIXEL_SCALES,
    Convention,
    Order,
    Origin,
    Pictures,
    Resized,
    Scale,
    corners_of,
    last_pixel,
    to_pixels,
)
from .number_evidence import Against

MIN_MASKS = 3
_MIN_LOOSE = 10  # boxes with masks, if none of the conventions gives their boxes exactly
_EXACT_SHARE = 0.95
_LOOSE_IOU = 0.5
_WORSE = 0.8
_NOISE_PX = 0.01
_NAMED_LENGTHS = (1.0, 100.0, 1000.0, 1024.0)


@dataclass(frozen=True)
class MaskEvidence:
    """Boxes whose masks are known.

    places: (M,) number of each box. numbers: (M, 4). pictures: sizes of their pictures. candidates: (M, K, 4) boxes of
    masks of the picture, half-open pixels, NaN if there are fewer than K; one of them may be the box's. slack_px: (M,)
    how far an outline may be off. step: from one number to the next.
    """

    places: np.ndarray
    numbers: np.ndarray
    pictures: Pictures
    candidates: np.ndarray
    slack_px: np.ndarray
    step: float

    def __len__(self) -> int:
        return len(self.places)

    @property
    def min_loose(self) -> int:
        """The number of boxes with masks that is needed if boxes do not fit their masks exactly."""
        return _MIN_LOOSE

    def errors(self, convention: Convention) -> np.ndarray:
        """How far an edge is off beyond what rounding explains, (M,) pixels of the picture; inf if it is not known."""
        boxes = to_pixels(convention, self.numbers, self.pictures)
        off = np.abs(boxes[:, None] - self.candidates) - self._rounding_px(convention)[:, None]
        worst = np.where(np.isnan(off).any(axis=2), np.inf, off.max(axis=2, initial=-np.inf))
        return worst.min(axis=1, initial=np.inf) - self.slack_px - _NOISE_PX

    def ious(self, convention: Convention) -> np.ndarray:
        """The intersection over union with the candidate that fits best, (M,)."""
        boxes = to_pixels(convention, self.numbers, self.pictures)[:, None]
        low = np.maximum(boxes[..., :2], self.candidates[..., :2])
        high = np.minimum(boxes[..., 2:], self.candidates[..., 2:])
        shared = np.clip(high - low, 0, None).prod(axis=2)
        areas = [
            np.clip(each[..., 2:] - each[..., :2], 0, None).prod(axis=2) for each in (boxes, self.candidates)
        ]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = shared / (areas[0] + areas[1] - shared)
        return np.nan_to_num(found, nan=0.0).max(axis=1, initial=0.0)

    def against(self, convention: Convention, allowed_px: float = 0.0) -> Against:
        """The boxes with an edge that is not their mask's, by more than is allowed, and how far the first is off."""
        errors = self.errors(convention)
        wrong = errors > allowed_px
        if not wrong.any():
            return Against(0)
        first = int(np.argmax(wrong))
        off = errors[first] + self.slack_px[first]
        why = (
            f"an edge is {off:.3g} pixels off the mask's"
            if np.isfinite(off)
            else "no box of the mask's picture"
        )
        return Against(int(wrong.sum()), int(self.places[first]), why)

    def rounding_px(self, convention: Convention) -> float:
        """How far rounding may move an edge, at the most."""
        return float(np.max(self._rounding_px(convention), initial=0.0))

    def is_exact(self, against: Against) -> bool:
        """Whether a convention gives the boxes of nearly all masks."""
        return len(self) - against.count >= _EXACT_SHARE * len(self)

    def much_worse(self, conventions: list[Convention]) -> dict[Convention, float]:
        """The conventions whose median IoU is far below the best one; none if no convention fits the masks at all."""
        medians = {each: float(np.median(self.ious(each))) for each in conventions}
        best = max(medians.values(), default=0.0)
        if len(self) < _MIN_LOOSE or best < _LOOSE_IOU:
            return {}
        return {each: median for each, median in medians.items() if median < _WORSE * best}

    def resized(self, convention: Convention) -> list[Convention]:
        """A convention of `Scale.RESIZED` with the sizes that the masks of single objects give, if they are new ones.

        These are a fixed width and height, and, for pictures of several sizes, a fixed longer side.
        """
        single = np.isfinite(self.candidates).all(axis=2).sum(axis=1) == 1
        if single.sum() < _MIN_LOOSE:  # with few, two sizes can be fitted to anything
            return []
        pictures = Pictures(self.pictures.wh[single])
        masks = np.nan_to_num(self.candidates[single], nan=0.0).sum(axis=1)
        if convention.origin is Origin.LOWER:
            height = pictures.wh[:, 1]
            masks[:, [1, 3]] = (height[:, None] - masks)[:, [3, 1]]
        numbers = corners_of(convention.order, self.numbers[single])[:, 2:] + last_pixel(convention, pictures)
        per_pixel = numbers / masks[:, 2:]
        fixed = np.median(per_pixel * pictures.wh, axis=0)
        longer = float(np.median(per_pixel * pictures.wh.max(axis=1, keepdims=True)))
        found = []
        if np.isfinite(fixed).all() and not self._is_known(fixed, pictures):
            found.append(Resized(fixed_wh=(float(round(fixed[0])), float(round(fixed[1])))))
        several = len(np.unique(pictures.wh, axis=0)) > 1
        if several and np.isfinite(longer) and not _are_near(np.median(per_pixel), 1.0, pictures.wh.min()):
            found.append(Resized(longer=float(round(longer))))
        return [replace(convention, resized=each) for each in found if self._is_size(each)]

    def _rounding_px(self, convention: Convention) -> np.ndarray:
        """How far rounding may move each edge, (M, 4) pixels of the picture."""
        lengths, seen = self.pictures.lengths(convention), self.pictures.seen(convention.frame)
        per_number = (seen[:, 2:] - seen[:, :2]) / lengths
        is_size = convention.order is Order.SIZE
        is_centre = convention.order is Order.CENTRE
        if convention.scale is Scale.PIXELS:
            # The edges of masks are whole pixels, which are not rounded; the middle of two may be.
            steps = self.step if is_centre or self.step < 1 else 0.0
        elif convention.scale in PIXEL_SCALES:
            steps = max(self.step, 1.0)  # such numbers are rounded, or cut to the last pixel
        elif convention.scale in GRID_TOPS:
            steps = (
                1.0 if convention.scale is Scale.THOUSANDTHS else 2.0
            )  # edges or bins; n / 999 or n / 1000
        else:
            steps = self.step
        factor = 2.0 if is_size or is_centre else 1.0
        return np.concatenate([per_number, per_number], axis=1) * steps * factor

    def _is_known(self, fixed: np.ndarray, pictures: Pictures) -> bool:
        """Whether the fitted size is nearly that of another scale, of which it may be a bad fit."""
        sizes = np.unique(pictures.wh, axis=0)
        known = [np.full(2, length) for length in _NAMED_LENGTHS]
        if len(sizes) == 1:
            known += [sizes[0], pictures.lengths(Convention(Scale.QWEN, Order.X_FIRST))[0]]
        return any(_are_near(fixed, each, sizes.min()) for each in known)

    @staticmethod
    def _is_size(resized: Resized) -> bool:
        sides = resized.fixed_wh or (resized.longer or 0.0,)
        return all(2 <= side <= 1e6 for side in sides)


def _are_near(one: np.ndarray | float, other: np.ndarray | float, shortest_px: float) -> bool:
    """Within a hundredth, or three pixels of the smallest picture: as far as a wrong far corner can bend a fit."""
    return bool(np.all(np.abs(np.asarray(one) / other - 1) <= max(0.01, 3 / shortest_px)))
