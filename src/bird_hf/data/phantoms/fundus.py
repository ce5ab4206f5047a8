"""Fundus photography: the retina of a right or left eye, disc or macula in the middle."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, ramp
from .drawing import Drawing
from .outlines import (
    Frame,
    Outline,
    Point,
    blob,
    ellipse,
    polar,
    through,
    tube,
)

LABELS = ("optic disc", "optic cup", "macula", "hard exudate", "hemorrhage", "cotton wool spot")


def draw(side: int, rng: np.random.Generator, texture_rng: np.random.Generator) -> Drawing:
    """Draw an eye; `nasal` is 1 if the nose is to the right of the image (a right eye), else -1."""
    nasal = int(rng.choice([-1, 1]))
    canvas = Canvas(side, rng.uniform(1.0, 1.45), (0.0, 0.0, 0.0), texture_rng)
    middle = canvas.width / 2, canvas.height / 2
    radius = min(canvas.height * rng.uniform(0.49, 0.62), canvas.width * 0.49)
    view = canvas.full(canvas.patch(ellipse(middle, (radius, radius), count=128), soft=0.004))
    size = radius * rng.uniform(0.14, 0.2)  # of the disc
    # What is in the middle: the disc, between disc and macula, the macula, or beyond it (no disc); in disc radii.
    shift = rng.choice([0.0, 2.4, 4.4, 9.0], p=[0.22, 0.33, 0.3, 0.15]) * size * nasal
    disc = middle[0] + shift + rng.normal(0, 0.01), middle[1] + rng.normal(0, 0.02)
    fovea = disc[0] - nasal * size * rng.uniform(4.4, 5.0), disc[1] + size * rng.uniform(0.1, 0.5)
    inside = view > 0.5
    _retina(canvas, rng, middle, radius)
    _macula(canvas, rng, fovea, size, inside)
    _vessels(canvas, rng, disc, fovea, size, nasal)
    _disc(canvas, rng, disc, size, inside)
    _lesions(canvas, rng, inside, size)
    _acquire(canvas, rng, middle, radius)
    canvas.pixels *= view[..., None]
    canvas.crop(inside)
    return Drawing(canvas, "fundus_photography", "retina")


def _retina(canvas: Canvas, rng: np.random.Generator, middle: Point, radius: float) -> None:
    tint = np.array([rng.uniform(0.68, 0.9), rng.uniform(0.3, 0.46), rng.uniform(0.1, 0.24)], np.float32)
    tone = 1 + 0.06 * canvas.field(0.25) + 0.025 * canvas.field(0.05) + 0.02 * canvas.field(0.012)
    canvas.pixels[:] = tint * tone[..., None]
    if rng.random() < 0.35:  # tessellated: choroidal vessels are visible
        pattern = ramp(0.3 - np.abs(canvas.field(0.045)), 0.3)
        canvas.pixels *= 1 + pattern[..., None] * np.array([0.03, 0.1, 0.04], np.float32)


def _macula(canvas: Canvas, rng: np.random.Generator, fovea: Point, size: float, inside: np.ndarray) -> None:
    if rng.random() < 0.1:  # washed out
        return
    outer = canvas.patch(
        ellipse(fovea, (size * 1.35, size * 1.25)), soft=size * 0.28, within=inside.astype(np.float32)
    )
    canvas.scale(outer, (0.72, 0.58, 0.6))
    canvas.scale(canvas.patch(ellipse(fovea, (size * 0.4, size * 0.4)), soft=size * 0.2), (0.8, 0.7, 0.7))
    canvas.add_object("macula", outer)


def _vessels(
    canvas: Canvas, rng: np.random.Generator, disc: Point, fovea: Point, size: float, nasal: int
) -> None:
    """Four arcades from the disc, in pairs of arteries and veins; the two temporal ones bend around the macula."""
    frame = Frame(disc, (size * -nasal, size))  # u points temporally, in disc radii
    arcades = [
        [(0, -0.3), (0.9, -2.2), (3.0, -3.5), (5.6, -3.4), (7.6, -2.0)],
        [(0, 0.3), (0.9, 2.3), (3.0, 3.7), (5.6, 3.6), (7.6, 2.2)],
        [(0, -0.3), (-1.0, -1.8), (-2.6, -3.2), (-4.6, -4.4)],
        [(0, 0.3), (-1.0, 1.8), (-2.6, 3.2), (-4.6, 4.4)],
    ]
    for wide, shade in ((0.26, (0.6, 0.42, 0.45)), (0.17, (0.82, 0.5, 0.5))):
        tubes = []
        for arcade in arcades:
            points = np.array(arcade) * rng.uniform(0.9, 1.12) + rng.normal(0, 0.16, (len(arcade), 2))
            points[0] = arcade[0] + rng.normal(0, 0.1, 2)
            path = through(frame(points), closed=False)
            tubes.append(tube(path, (size * wide, size * wide * 0.35)))
            tubes += _twigs(rng, path, size * wide * 0.5, 6)
        canvas.scale(canvas.patch(*tubes, soft=0.002), shade)


def _twigs(rng: np.random.Generator, path: np.ndarray, width: float, count: int) -> list[Outline]:
    """Side branches of a vessel, on alternating sides."""
    twigs = []
    length = np.hypot(*(path[-1] - path[0]))
    for side in range(count):
        start = int(rng.uniform(0.2, 0.9) * len(path))
        ahead = path[min(start + 3, len(path) - 1)] - path[start - 1]
        turn = np.arctan2(ahead[1], ahead[0]) + (1 if side % 2 else -1) * rng.uniform(0.4, 0.9)
        bend = turn + np.cumsum(rng.normal(0, 0.22, 4))
        steps = length * rng.uniform(0.05, 0.11) * np.stack([np.cos(bend), np.sin(bend)], -1)
        twig = path[start] + np.cumsum(np.vstack([[0, 0], steps]), 0)
        twigs.append(tube(through(twig, closed=False, steps=4), (width, width * 0.3)))
    return twigs


def _disc(canvas: Canvas, rng: np.random.Generator, disc: Point, size: float, inside: np.ndarray) -> None:
    if not size * 0.5 < disc[0] < canvas.width - size * 0.5:
        return
    within = inside.astype(np.float32)
    outline = blob(rng, disc, (size * 0.92, size * rng.uniform(0.95, 1.1)), 0, 0.02)
    halo = canvas.patch((outline - disc) * 1.12 + disc, soft=0.006)
    canvas.scale(halo, (1.08, 1.12, 1.05))
    vessels = canvas.pixels.copy()
    patch = canvas.patch(outline, soft=0.005, within=within)
    tint = np.array([0.98, rng.uniform(0.7, 0.82), rng.uniform(0.42, 0.56)], np.float32)
    canvas.paint(patch, 0.72 * tint + 0.28 * vessels)
    canvas.add_object("optic disc", patch)
    if rng.random() < 0.3:
        return
    ratio = rng.uniform(0.55, 0.78)
    cup = canvas.patch(
        blob(rng, disc, (size * 0.9 * ratio, size * ratio), 0, 0.03), soft=0.004, within=within
    )
    canvas.paint(cup, np.array([1.0, 0.95, 0.8], np.float32) * 0.85 + 0.15 * vessels)
    canvas.add_object("optic cup", cup, inside=("optic disc",))


def _lesions(canvas: Canvas, rng: np.random.Generator, inside: np.ndarray, size: float) -> None:
    kinds = (
        ("hard exudate", (1.0, 0.9, 0.45), 0.9, 0.22, 0.003),
        ("hemorrhage", (0.36, 0.05, 0.04), 0.85, 0.14, 0.004),
        ("cotton wool spot", (0.95, 0.9, 0.8), 0.75, 0.1, 0.012),
    )
    for name, tint, opacity, rough, soft in kinds:
        if rng.random() < 0.48:
            continue
        for _ in range(rng.integers(1, 4)):
            radius = rng.uniform(0.034, 0.052) if name != "cotton wool spot" else rng.uniform(0.042, 0.06)
            spot = canvas.find_spot(rng, canvas.unoccupied(inside), radius * 1.25)
            if spot is None:
                continue
            outline = blob(
                rng, spot, (radius * rng.uniform(1, 1.3), radius * 0.9), rng.uniform(0, 3), rough, 7
            )
            patch = canvas.patch(outline, soft=soft)
            tone = np.array(tint, np.float32) * (1 + 0.08 * canvas.field(0.012))[..., None]
            canvas.paint(patch, tone, opacity)
            if name == "hard exudate":
                _specks(canvas, rng, spot, radius, tint)
            canvas.add_object(name, patch)


def _specks(
    canvas: Canvas, rng: np.random.Generator, spot: Point, radius: float, tint: tuple[float, float, float]
) -> None:
    """Waxy specks around the edge of an exudate."""
    specks = []
    for turn in rng.uniform(0, 6.28, 7):
        size = rng.uniform(0.004, 0.008)
        specks.append(ellipse(polar(spot, radius * rng.uniform(0.85, 1.05), turn), (size, size), count=12))
    canvas.paint(canvas.patch(*specks, soft=0.002), tint, 0.9)


def _acquire(canvas: Canvas, rng: np.random.Generator, middle: Point, radius: float) -> None:
    light = polar(middle, rng.uniform(0, 0.4) * radius, rng.uniform(0, 6.28))
    away = np.hypot(canvas.x - light[0], canvas.y - light[1]) / radius
    canvas.pixels *= (1.1 - rng.uniform(0.15, 0.4) * away**2)[..., None]
    canvas.pixels += rng.uniform(0.004, 0.015) * canvas.white_noise()[..., None]
    canvas.pixels = np.clip(canvas.pixels * rng.uniform(0.9, 1.12), 0, 1) ** rng.uniform(0.9, 1.2)
