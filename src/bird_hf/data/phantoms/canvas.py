"""The canvas of a phantom: float pixels with soft-edged patches, and the visible mask of each object.

Painting touches only the window of each patch, and noise fields are drawn at low resolution and resampled by two small
matrix products, so an image of 256 x 256 takes a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from .outlines import Outline, Point

Colour = float | tuple[float, float, float] | np.ndarray

# Fragments of an object smaller than this share of its largest piece are removed from its mask.
MIN_FRAGMENT = 0.12
# The number of white noise samples that all images share; each use begins at a random offset.
NOISE_SAMPLES = 2**18


@dataclass(frozen=True)
class Patch:
    """A soft-edged shape: its coverage in [0, 1] of a window of the canvas. alpha: (rows, cols) float32."""

    window: tuple[slice, slice]
    alpha: np.ndarray

    @property
    def empty(self) -> bool:
        return self.alpha.size == 0


class Canvas:
    """Pixels (H, W) or (H, W, 3) float32, nominally in [0, 1], and the objects added so far.

    side: pixels of the longer side. aspect: width / height. texture_rng: for textures only; the layout is drawn from
    another generator, so that it does not depend on the number of pixels.
    """

    def __init__(self, side: int, aspect: float, background: Colour, texture_rng: np.random.Generator):
        self.side, self.texture_rng = side, texture_rng
        self.width, self.height = min(1.0, aspect), min(1.0, 1 / aspect)  # as shares of the longer side
        self.shape = (max(8, round(side * self.height)), max(8, round(side * self.width)))
        tone = np.asarray(background, np.float32)
        self.pixels = np.broadcast_to(tone, self.shape + tone.shape).copy()
        self.x = ((np.arange(self.shape[1], dtype=np.float32) + 0.5) / side)[None, :]
        self.y = ((np.arange(self.shape[0], dtype=np.float32) + 0.5) / side)[:, None]
        self._objects: list[tuple[str, np.ndarray]] = []

    # --- shapes and noise -------------------------------------------------------------------------

    def patch(self, *outlines: Outline, soft: float = 0.003, within: np.ndarray | None = None) -> Patch:
        """The patch of outlines, with edges blurred by `soft`, multiplied by the (H, W) map `within`."""
        sigma = max(soft * self.side, 0.5)
        margin = int(3 * sigma) + 2
        start, end = _edges(outlines)
        start, end = start * self.side, end * self.side
        low = np.floor(start.min(0)).astype(int) - margin
        high = np.ceil(start.max(0)).astype(int) + margin
        rows = slice(max(low[1], 0), min(max(high[1], 0), self.shape[0]))
        cols = slice(max(low[0], 0), min(max(high[0], 0), self.shape[1]))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return Patch((slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32))
        corner, shape = (cols.start, rows.start), (rows.stop - rows.start, cols.stop - cols.start)
        alpha = soften(_fill(start - corner, end - corner, shape), sigma)
        if within is not None:
            alpha *= within[rows, cols]
        return Patch((rows, cols), alpha)

    def full(self, patch: Patch) -> np.ndarray:
        """The patch as an (H, W) map."""
        out = np.zeros(self.shape, np.float32)
        out[patch.window] = patch.alpha
        return out

    def field(self, size: float, stretch: float = 1.0) -> np.ndarray:
        """Smooth (H, W) noise of mean 0 and deviation 1; features are `size` high and `stretch` times as wide."""
        rows = max(1, min(round(self.height / size), self.shape[0]))
        cols = max(1, min(round(self.width / size / stretch), self.shape[1]))
        coarse = self._white((rows + 3, cols + 3))
        return _resampling(self.shape[0], rows) @ coarse @ _resampling(self.shape[1], cols).T / 0.48

    def white_noise(self) -> np.ndarray:
        """White (H, W) noise of mean 0 and deviation 1."""
        return self._white(self.shape)

    def _white(self, shape: tuple[int, int]) -> np.ndarray:
        """White noise; large fields are taken from shared samples, which is much faster than drawing them."""
        count = shape[0] * shape[1]
        if not NOISE_SAMPLES // 64 < count <= NOISE_SAMPLES:
            return self.texture_rng.standard_normal(shape, dtype=np.float32)
        start = int(self.texture_rng.integers(NOISE_SAMPLES))
        return _noise_samples()[start : start + count].reshape(shape)

    # --- painting -----------------------------------------------------------------------------------

    def paint(self, patch: Patch, tone: Colour, opacity: float = 1.0) -> Patch:
        """Cover a patch with `tone`: a number, a colour, or values for the whole canvas."""
        view = self.pixels[patch.window]
        alpha = patch.alpha * opacity
        view += _like(alpha, view) * (self._tone(patch, tone) - view)
        return patch

    def add(self, patch: Patch, tone: Colour) -> Patch:
        """Add `tone` to a patch, as an object in a projection adds to what is in front of and behind it."""
        view = self.pixels[patch.window]
        view += _like(patch.alpha, view) * self._tone(patch, tone)
        return patch

    def scale(self, patch: Patch, factor: Colour) -> Patch:
        """Multiply a patch by `factor`: below 1 darker, above 1 brighter."""
        view = self.pixels[patch.window]
        view *= 1 + _like(patch.alpha, view) * (self._tone(patch, factor) - 1)
        return patch

    def _tone(self, patch: Patch, tone: Colour) -> np.ndarray:
        values = np.asarray(tone, np.float32)
        if values.shape[:2] == self.shape:
            values = values[patch.window]
            return values[..., None] if values.ndim < self.pixels.ndim else values
        return values

    # --- objects ------------------------------------------------------------------------------------

    def add_object(self, label: str, *patches: Patch, inside: tuple[str, ...] = ()) -> None:
        """Record an object. It hides the parts of earlier objects that it covers, except those named in `inside`."""
        mask = np.zeros(self.shape, bool)
        for patch in patches:
            mask[patch.window] |= patch.alpha > 0.5
        for other, hidden in self._objects:
            if other not in inside:
                hidden &= ~mask
        self._objects.append((label, mask))

    def crop(self, field_of_view: np.ndarray) -> None:
        """Cut all objects to the (H, W) bool field of view."""
        for _, mask in self._objects:
            mask &= field_of_view

    def find_spot(self, rng: np.random.Generator, area: np.ndarray, radius: float) -> Point | None:
        """A random point in the (H, W) bool `area`, about `radius` from its edge, or None if none is found."""
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

    def unoccupied(self, area: np.ndarray, *labels: str) -> np.ndarray:
        """The (H, W) bool `area` without the pixels of the named objects (of all objects if none is named)."""
        left = area.copy()
        for label, mask in self._objects:
            if not labels or label in labels:
                left &= ~mask
        return left

    def mask(self, label: str) -> np.ndarray:
        """The visible pixels of all objects with that label: (H, W) bool."""
        out = np.zeros(self.shape, bool)
        for name, mask in self._objects:
            if name == label:
                out |= mask
        return out

    def objects(self) -> list[tuple[str, np.ndarray]]:
        """The label and visible mask of each object, in the order they were added, without small fragments."""
        cleaned = [(label, _without_fragments(mask)) for label, mask in self._objects]
        return [(label, mask) for label, mask in cleaned if mask.any()]

    def to_uint8(self) -> np.ndarray:
        return (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def soften(alpha: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur by `sigma` pixels. Large sigmas use two box blurs, whose cost does not grow with the sigma."""
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
    """0 below -width, 1 above width, smooth in between."""
    t = values * (0.5 / width) + 0.5
    np.minimum(np.maximum(t, 0, out=t), 1, out=t)
    return t * t * (3 - 2 * t)


def _like(alpha: np.ndarray, view: np.ndarray) -> np.ndarray:
    return alpha if view.ndim == 2 else alpha[..., None]


def _edges(outlines: tuple[Outline, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Start and end points (N, 2) of all edges; all outlines get the same orientation."""
    starts, ends = [], []
    for outline in outlines:
        ahead = np.concatenate([outline[1:], outline[:1]])
        inverse = (outline[:, 0] * ahead[:, 1] - ahead[:, 0] * outline[:, 1]).sum() < 0
        starts.append(ahead if inverse else outline)
        ends.append(outline if inverse else ahead)
    return np.concatenate(starts), np.concatenate(ends)


def _fill(start: np.ndarray, end: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """1 if the edges (in pixels) wind around the centre of a pixel, else 0: float32 of this shape."""
    height, width = shape
    # The rows whose centre line an edge crosses: from first to last, half-open.
    first = np.clip(np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5), 0, height).astype(int)
    last = np.clip(np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5), 0, height).astype(int)
    counts = last - first
    edge = np.repeat(np.arange(len(start)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    rise = end - start
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * rise[edge, 0] / rise[edge, 1]
    # Each crossing adds 1 or -1 to all pixels to its right; the running sum is the winding number.
    col = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    turns = np.bincount(row * (width + 1) + col, np.sign(rise[edge, 1]), height * (width + 1))
    winding = turns.astype(np.int16).reshape(height, width + 1).cumsum(1, dtype=np.int16)[:, :width]
    return (winding != 0).astype(np.float32)


@lru_cache(maxsize=1)
def _noise_samples() -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(NOISE_SAMPLES, dtype=np.float32)
    samples = np.concatenate([samples, samples])  # so that NOISE_SAMPLES samples follow every offset
    samples.flags.writeable = False
    return samples


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


def _without_fragments(mask: np.ndarray) -> np.ndarray:
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask
    window = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    pieces, count = ndimage.label(mask[window])
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        mask = mask.copy()
        mask[window] &= (sizes >= MIN_FRAGMENT * sizes.max())[pieces]
    return mask
