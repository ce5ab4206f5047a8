"""Closed curves for phantoms: every object starts as an outline of points.

Lengths are shares of the image's longer side; x runs right from 0, y down from 0. An outline is an (N, 2) float array
of x, y; the last point is joined to the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Outline = np.ndarray
Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """A rotated and scaled coordinate frame: local (u, v), about in [-1, 1], to image (x, y)."""

    center: Point
    radii: Point
    angle: float = 0.0

    def __call__(self, points: np.ndarray | Sequence[Point | np.ndarray] | Point) -> np.ndarray:
        """Local points (..., 2) in image coordinates (..., 2)."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        (rx, ry), local = self.radii, np.asarray(points, float)
        return local @ np.array([[rx * cos, rx * sin], [-ry * sin, ry * cos]]) + self.center

    def local(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Local u and v of image coordinates x and y (broadcast together)."""
        dx, dy = x - self.center[0], y - self.center[1]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return (dx * cos + dy * sin) / self.radii[0], (dy * cos - dx * sin) / self.radii[1]


def ellipse(center: Point, radii: Point, angle: float = 0.0, power: float = 2.0, count: int = 64) -> Outline:
    """An ellipse; with a `power` above 2 a superellipse, which is closer to a rectangle."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    cos, sin = np.cos(turn), np.sin(turn)
    unit = np.stack(
        [np.sign(cos) * np.abs(cos) ** (2 / power), np.sign(sin) * np.abs(sin) ** (2 / power)], -1
    )
    return Frame(center, radii, angle)(unit)


def blob(
    rng: np.random.Generator,
    center: Point,
    radii: Point,
    angle: float = 0.0,
    rough: float = 0.08,
    waves: int = 5,
) -> Outline:
    """An ellipse whose radius varies by about `rough`, with `waves` frequencies."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    order = np.arange(2, waves + 2)[:, None]
    size = rough * rng.standard_normal((waves, 1)) / np.sqrt(order)
    radius = 1 + (size * np.cos(order * turn + rng.uniform(0, 2 * np.pi, (waves, 1)))).sum(0)
    unit = np.stack([np.cos(turn), np.sin(turn)], -1) * np.maximum(radius, 0.3)[:, None]
    return Frame(center, radii, angle)(unit)


def rectangle(center: Point, half: Point, angle: float = 0.0) -> Outline:
    return Frame(center, half, angle)([(-1, -1), (1, -1), (1, 1), (-1, 1)])


def through(points: np.ndarray | list[Point], closed: bool = True, steps: int = 7) -> np.ndarray:
    """A smooth curve through `points` (Catmull-Rom), with `steps` samples per segment."""
    p = np.asarray(points, float)
    if closed:
        near = (np.arange(len(p))[:, None] + (-1, 0, 1, 2)) % len(p)
    else:
        p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
        near = np.arange(len(p) - 3)[:, None] + (0, 1, 2, 3)
    curve = (_catmull_rom(steps) @ p[near]).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-2:-1]])


@lru_cache(maxsize=16)
def _catmull_rom(steps: int) -> np.ndarray:
    """The weights (steps, 4) of the four points around a segment."""
    t = np.arange(steps) / steps
    weights = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    return np.stack(weights, -1) / 2


def organ(
    rng: np.random.Generator, frame: Frame, landmarks: list[Point] | np.ndarray, jitter: float
) -> Outline:
    """A smooth closed outline through landmarks in `frame`, each moved randomly by about `jitter` frame units."""
    points = np.asarray(landmarks, float)
    return through(frame(points + rng.normal(0, jitter, points.shape)))


def tube(points: np.ndarray, width: float | tuple[float, float]) -> Outline:
    """A band along an open curve; `width` may change from the first point to the last."""
    first, last = width if isinstance(width, tuple) else (width, width)
    path = np.asarray(points, float)
    along = np.concatenate([path[1:2] - path[:1], path[2:] - path[:-2], path[-1:] - path[-2:-1]])
    length = np.maximum(np.sqrt((along**2).sum(1)), 1e-9)
    half = (first + (last - first) * np.arange(len(path)) / (len(path) - 1)) / 2 / length
    normal = along[:, ::-1] * (-1, 1) * half[:, None]
    return np.concatenate([path + normal, (path - normal)[::-1]])


def polar(center: Point, radius: float, angle: float) -> Point:
    return center[0] + radius * float(np.cos(angle)), center[1] + radius * float(np.sin(angle))
