"""The canvas of a phantom: soft stains on float pixels, and who is visible where.

Painting is local to the window of each outline and noise fields are drawn coarse and resampled by two
small matrix products, so that a picture of 256 x 256 takes some milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from .outlines import Outline, Point

Colour = float | tuple[float, float, float] | np.ndarray

# A piece of an object smaller than this share of its largest piece is a crumb: no part of its mask.
CRUMB = 0.12
# Samples of white noise that all pictures share; each begins at a place of its own.
REEL = 2**18


@dataclass(frozen=True)
class Stain:
    """Coverage in [0, 1] of a window of the canvas: alpha is (rows, cols) float32."""

    window: tuple[slice, slice]
    alpha: np.ndarray

    @property
    def empty(self) -> bool:
        return self.alpha.size == 0


class Canvas:
    """Pixels (H, W) or (H, W, 3) float32, nominally in [0, 1], and the objects seen so far.

    aspect is width / height; the longer side has `side` pixels. `grain` draws textures, so that layout
    (drawn by another generator) does not depend on the number of pixels.
    """

    def __init__(self, side: int, aspect: float, background: Colour, grain: np.random.Generator):
        self.side, self.grain = side, grain
        self.width, self.height = min(1.0, aspect), min(1.0, 1 / aspect)  # in shares of the side
        self.shape = (max(8, round(side * self.height)), max(8, round(side * self.width)))
        tone = np.asarray(background, np.float32)
        self.pixels = np.broadcast_to(tone, self.shape + tone.shape).copy()
        self.x = ((np.arange(self.shape[1], dtype=np.float32) + 0.5) / side)[None, :]
        self.y = ((np.arange(self.shape[0], dtype=np.float32) + 0.5) / side)[:, None]
        self._seen: list[tuple[str, np.ndarray]] = []

    # --- shapes and noise -------------------------------------------------------------------------

    def stain(self, *outlines: Outline, soft: float = 0.003, within: np.ndarray | None = None) -> Stain:
        """The coverage of outlines, edges blurred by `soft`, held inside the (H, W) map `within`."""
        sigma = max(soft * self.side, 0.5)
        margin = int(3 * sigma) + 2
        start, end = _edges(outlines)
        start, end = start * self.side, end * self.side
        low = np.floor(start.min(0)).astype(int) - margin
        high = np.ceil(start.max(0)).astype(int) + margin
        rows = slice(max(low[1], 0), min(max(high[1], 0), self.shape[0]))
        cols = slice(max(low[0], 0), min(max(high[0], 0), self.shape[1]))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return Stain((slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32))
        corner, shape = (cols.start, rows.start), (rows.stop - rows.start, cols.stop - cols.start)
        alpha = soften(_fill(start - corner, end - corner, shape), sigma)
        if within is not None:
            alpha *= within[rows, cols]
        return Stain((rows, cols), alpha)

    def full(self, stain: Stain) -> np.ndarray:
        """The stain as an (H, W) map."""
        out = np.zeros(self.shape, np.float32)
        out[stain.window] = stain.alpha
        return out

    def field(self, size: float, stretch: float = 1.0) -> np.ndarray:
        """Smooth (H, W) noise, mean 0, deviation 1, its features `size` high and `stretch` times wider."""
        rows = max(1, min(round(self.height / size), self.shape[0]))
        cols = max(1, min(round(self.width / size / stretch), self.shape[1]))
        coarse = self._white((rows + 3, cols + 3))
        return _resampling(self.shape[0], rows) @ coarse @ _resampling(self.shape[1], cols).T / 0.48

    def speck(self) -> np.ndarray:
        """White (H, W) noise of mean 0 and deviation 1."""
        return self._white(self.shape)

    def _white(self, shape: tuple[int, int]) -> np.ndarray:
        """White noise: small fields are drawn; large ones are cut from a reel, which is far faster."""
        count = shape[0] * shape[1]
        if not REEL // 64 < count <= REEL:
            return self.grain.standard_normal(shape, dtype=np.float32)
        start = int(self.grain.integers(REEL))
        return _reel()[start : start + count].reshape(shape)

    # --- painting -----------------------------------------------------------------------------------

    def paint(self, stain: Stain, tone: Colour, opacity: float = 1.0) -> Stain:
        """Cover with `tone`: a number, a colour, or values for the whole canvas."""
        view = self.pixels[stain.window]
        alpha = stain.alpha * opacity
        view += _like(alpha, view) * (self._tone(stain, tone) - view)
        return stain

    def add(self, stain: Stain, tone: Colour) -> Stain:
        """Add `tone`, as a body in a projection adds to what lies before and behind it."""
        view = self.pixels[stain.window]
        view += _like(stain.alpha, view) * self._tone(stain, tone)
        return stain

    def scale(self, stain: Stain, factor: Colour) -> Stain:
        """Multiply by `factor`: a shadow under 1, an enhancement over it."""
        view = self.pixels[stain.window]
        view *= 1 + _like(stain.alpha, view) * (self._tone(stain, factor) - 1)
        return stain

    def _tone(self, stain: Stain, tone: Colour) -> np.ndarray:
        values = np.asarray(tone, np.float32)
        if values.shape[:2] == self.shape:
            values = values[stain.window]
            return values[..., None] if values.ndim < self.pixels.ndim else values
        return values

    # --- objects ------------------------------------------------------------------------------------

    def mark(self, label: str, *stains: Stain, inside: tuple[str, ...] = ()) -> None:
        """Record an object. It hides what it covers, but for the objects named in `inside`."""
        mask = np.zeros(self.shape, bool)
        for stain in stains:
            mask[stain.window] |= stain.alpha > 0.5
        for other, hidden in self._seen:
            if other not in inside:
                hidden &= ~mask
        self._seen.append((label, mask))

    def crop(self, field_of_view: np.ndarray) -> None:
        """Objects end where the (H, W) bool field of view ends."""
        for _, mask in self._seen:
            mask &= field_of_view

    def room(self, rng: np.random.Generator, area: np.ndarray, radius: float) -> Point | None:
        """A point of the (H, W) bool `area` with about `radius` of it on all sides; None if none is found."""
        places = np.flatnonzero(area)
        if not len(places):
            return None
        ring = np.stack([(np.cos(a), np.sin(a)) for a in np.arange(8) * np.pi / 4]) * radius * self.side
        for pick in places[(rng.random(60) * len(places)).astype(int)]:
            row, col = divmod(int(pick), self.shape[1])
            x, y = np.rint(ring + (col, row)).astype(int).T
            in_picture = min(x.min(), y.min()) >= 0 and x.max() < self.shape[1] and y.max() < self.shape[0]
            if in_picture and area[y, x].all():
                return (col + 0.5) / self.side, (row + 0.5) / self.side
        return None

    def free(self, area: np.ndarray, *labels: str) -> np.ndarray:
        """The (H, W) bool `area` without what the named objects cover (all objects if none is named)."""
        left = area.copy()
        for label, mask in self._seen:
            if not labels or label in labels:
                left &= ~mask
        return left

    def mask(self, label: str) -> np.ndarray:
        """Where any object of that name is visible."""
        out = np.zeros(self.shape, bool)
        for name, mask in self._seen:
            if name == label:
                out |= mask
        return out

    def objects(self) -> list[tuple[str, np.ndarray]]:
        """The visible objects in the order they were marked, without crumbs."""
        whole = [(label, _without_crumbs(mask)) for label, mask in self._seen]
        return [(label, mask) for label, mask in whole if mask.any()]

    def to_uint8(self) -> np.ndarray:
        return (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def soften(alpha: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur by `sigma` pixels; wide ones are two box blurs, whose cost does not grow."""
    if sigma < 2:
        kernel = _gaussian(round(float(sigma), 2))
        return ndimage.correlate1d(
            ndimage.correlate1d(alpha, kernel, 0, mode="nearest"), kernel, 1, mode="nearest"
        )
    size = 2 * int(np.sqrt(1.5 * sigma**2 + 0.25)) + 1
    for axis in (0, 1, 0, 1):
        alpha = ndimage.uniform_filter1d(alpha, size, axis, mode="nearest")
    return alpha


def ramp(values: np.ndarray, width: float) -> np.ndarray:
    """0 below -width, 1 above width, smooth between."""
    t = values * (0.5 / width) + 0.5
    np.minimum(np.maximum(t, 0, out=t), 1, out=t)
    return t * t * (3 - 2 * t)


def _like(alpha: np.ndarray, view: np.ndarray) -> np.ndarray:
    return alpha if view.ndim == 2 else alpha[..., None]


def _edges(outlines: tuple[Outline, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Start and end points (N, 2) of all edges, every outline turned the same way round."""
    starts, ends = [], []
    for outline in outlines:
        ahead = np.concatenate([outline[1:], outline[:1]])
        inverse = (outline[:, 0] * ahead[:, 1] - ahead[:, 0] * outline[:, 1]).sum() < 0
        starts.append(ahead if inverse else outline)
        ends.append(outline if inverse else ahead)
    return np.concatenate(starts), np.concatenate(ends)


def _fill(start: np.ndarray, end: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """1 where the edges (pixel units) wind around a pixel's centre: `shape` float32."""
    height, width = shape
    # The rows whose centre line an edge crosses: first to last, half open.
    first = np.clip(np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5), 0, height).astype(int)
    last = np.clip(np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5), 0, height).astype(int)
    counts = last - first
    edge = np.repeat(np.arange(len(start)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    rise = end - start
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * rise[edge, 0] / rise[edge, 1]
    # A crossing turns every pixel centre to its right; the running sum of turns is the winding number.
    col = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    turns = np.bincount(row * (width + 1) + col, np.sign(rise[edge, 1]), height * (width + 1))
    winding = turns.astype(np.int16).reshape(height, width + 1).cumsum(1, dtype=np.int16)[:, :width]
    return (winding != 0).astype(np.float32)


@lru_cache(maxsize=1)
def _reel() -> np.ndarray:
    reel = np.random.default_rng(0).standard_normal(REEL, dtype=np.float32)
    reel = np.concatenate([reel, reel])  # so that every start has REEL samples ahead
    reel.flags.writeable = False
    return reel


@lru_cache(maxsize=256)
def _gaussian(sigma: float) -> np.ndarray:
    reach = int(2.5 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()


@lru_cache(maxsize=512)
def _resampling(size: int, cells: int) -> np.ndarray:
    """Cubic B-spline weights (size, cells + 3) from cells to pixels."""
    place = (np.arange(size) + 0.5) / size * cells
    start = np.minimum(place.astype(int), cells - 1)
    t = place - start
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3], -1) / 6
    out = np.zeros((size, cells + 3), np.float32)
    np.put_along_axis(out, start[:, None] + np.arange(4), weights.astype(np.float32), 1)
    return out


def _without_crumbs(mask: np.ndarray) -> np.ndarray:
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask
    window = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    pieces, count = ndimage.label(mask[window])
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        mask = mask.copy()
        mask[window] &= (sizes >= CRUMB * sizes.max())[pieces]
    return mask
