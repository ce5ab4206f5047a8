"""Dermoscopy: a pigmented skin lesion under polarised light."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Patch, ramp
from .drawing import Drawing
from .outlines import (
    Frame,
    blob,
    ellipse,
    polar,
    rectangle,
    through,
    tube,
)

LABELS = ("skin lesion", "blue-white veil", "ruler", "ink marking", "gel bubble", "color patch")


def draw(side: int, rng: np.random.Generator, texture_rng: np.random.Generator) -> Drawing:
    canvas = Canvas(side, rng.uniform(0.95, 1.4), (0.85, 0.66, 0.56), texture_rng)
    _skin(canvas, rng)
    _lesion(canvas, rng)
    borders = rng.permutation(4)  # so that the sticker and the ruler are at different ones
    _color_patch(canvas, rng, borders[0])
    _ink(canvas, rng)
    _ruler(canvas, rng, borders[1])
    _hairs(canvas, rng)
    _bubbles(canvas, rng)
    _acquire(canvas, rng)
    return Drawing(canvas, "dermoscopy_00", "skin")


def _skin(canvas: Canvas, rng: np.random.Generator) -> None:
    tint = np.array([rng.uniform(0.78, 0.93), rng.uniform(0.58, 0.72), rng.uniform(0.48, 0.64)], np.float32)
    relief = 0.02 * canvas.field(0.2) + 0.02 * canvas.field(0.02) + 0.012 * canvas.field(0.008)
    canvas.pixels[:] = tint * (1 + relief)[..., None]
    blush = canvas.field(0.12)[..., None] * np.array([0.005, -0.02, -0.018], np.float32)
    canvas.pixels += blush
    lines = ramp(0.06 - np.abs(canvas.field(0.035)), 0.06)  # skin furrows
    canvas.pixels *= 1 - 0.05 * lines[..., None]


def _lesion(canvas: Canvas, rng: np.random.Generator) -> None:
    if rng.random() < 0.06:
        return
    radius = rng.uniform(0.12, 0.3) * min(canvas.width, canvas.height) * 1.1
    spot = canvas.width / 2 + rng.normal(0, 0.06), canvas.height / 2 + rng.normal(0, 0.05)
    outline = blob(
        rng, spot, (radius * rng.uniform(0.95, 1.3), radius), rng.uniform(0, 3), rng.uniform(0.06, 0.16), 7
    )
    patch = canvas.patch(outline, soft=rng.uniform(0.004, 0.012))
    brown = [(0.56, 0.36, 0.24), (0.4, 0.25, 0.18), (0.7, 0.42, 0.36), (0.3, 0.19, 0.16)][rng.integers(4)]
    tint = np.array(brown, np.float32)
    tone = 1 + 0.16 * canvas.field(0.09) + 0.09 * canvas.field(0.025)
    canvas.paint(patch, tint * tone[..., None], 0.93)
    within = canvas.full(patch)
    if rng.random() < 0.6:  # pigment network: ridges of a fine field
        network = ramp(0.25 - np.abs(canvas.field(0.011)), 0.4) * ramp(canvas.field(0.15) + 0.3, 0.8) * within
        canvas.pixels *= 1 - 0.32 * network[..., None]
    globules = []
    for turn in rng.uniform(0, 6.28, rng.integers(1, 30)):
        size = rng.uniform(0.004, 0.009)
        globules.append(ellipse(polar(spot, radius * rng.uniform(0, 1) ** 0.5, turn), (size, size), count=14))
    canvas.scale(canvas.patch(*globules, soft=0.003, within=within), (0.5, 0.45, 0.5))
    for _ in range(rng.integers(0, 4)):  # darker or redder zones
        turn, away = rng.uniform(0, 6.28), radius * rng.uniform(0.2, 0.8)
        zone = blob(rng, polar(spot, away, turn), (radius * rng.uniform(0.2, 0.45),) * 2, rough=0.15)
        shade = [(0.6, 0.55, 0.55), (0.9, 0.7, 0.7), (1.25, 1.3, 1.3)][rng.integers(3)]
        canvas.scale(canvas.patch(zone, soft=0.012, within=within), shade)
    canvas.add_object("skin lesion", patch)
    _veil(canvas, rng, spot, radius, patch)


def _veil(
    canvas: Canvas, rng: np.random.Generator, spot: tuple[float, float], radius: float, lesion: Patch
) -> None:
    """A hazy steel-blue area within the lesion."""
    if rng.random() < 0.55:
        return
    center = polar(spot, radius * rng.uniform(0.1, 0.45), rng.uniform(0, 6.28))
    size = max(radius * rng.uniform(0.3, 0.5), 0.045)
    outline = blob(rng, center, (size * 1.2, size), rng.uniform(0, 3), 0.14, 6)
    veil = canvas.patch(outline, soft=0.012, within=canvas.full(lesion))
    tone = 1 + 0.09 * canvas.field(0.05) + 0.05 * canvas.field(0.015)
    canvas.paint(veil, np.array([0.43, 0.51, 0.66], np.float32) * tone[..., None], 0.78)
    canvas.add_object("blue-white veil", veil, inside=("skin lesion",))


def _edge(canvas: Canvas, border: int, along: float, inset: float) -> tuple[tuple[float, float], float]:
    """A point at the distance `inset` from one of the four borders, and the direction along that border."""
    if border < 2:
        return (canvas.width * along, inset if border else canvas.height - inset), 0.0
    return (inset if border == 2 else canvas.width - inset, canvas.height * along), np.pi / 2


def _color_patch(canvas: Canvas, rng: np.random.Generator, border: int) -> None:
    """The round coloured sticker that some clinics use, cut by the border of the image."""
    if rng.random() < 0.55:
        return
    radius = rng.uniform(0.1, 0.17)
    spot, _ = _edge(canvas, border, rng.uniform(0.2, 0.8), rng.uniform(-0.02, 0.05))
    colour = [(0.9, 0.35, 0.1), (0.16, 0.62, 0.3), (0.15, 0.4, 0.85), (0.95, 0.85, 0.15)][rng.integers(4)]
    patch = canvas.patch(ellipse(spot, (radius, radius), power=rng.choice([2.0, 2.0, 4.0])), soft=0.003)
    canvas.paint(patch, np.array(colour, np.float32) * (1 + 0.03 * canvas.field(0.05))[..., None])
    canvas.add_object("color patch", patch)


def _ruler(canvas: Canvas, rng: np.random.Generator, border: int) -> None:
    """A millimetre scale along one border."""
    if rng.random() < 0.5:
        return
    middle, turn = _edge(canvas, border, rng.uniform(0.42, 0.58), rng.uniform(0.035, 0.07))
    long = canvas.width if turn == 0 else canvas.height
    half = long * rng.uniform(0.22, 0.34), 0.03
    frame = Frame(middle, half, turn + rng.normal(0, 0.03))
    strip = canvas.patch(rectangle(middle, half, frame.angle), soft=0.002)
    canvas.paint(strip, (0.93, 0.93, 0.9), rng.uniform(0.75, 0.95))
    ticks = []
    for step, place in enumerate(np.linspace(-0.95, 0.95, 31)):
        reach = 0.5 if step % 5 == 0 else -0.1
        ticks.append(tube(frame([(place, -1), (place, reach)]), 0.006 if step % 5 == 0 else 0.004))
    canvas.paint(canvas.patch(*ticks, soft=0.001), (0.1, 0.1, 0.12))
    canvas.add_object("ruler", strip)


def _ink(canvas: Canvas, rng: np.random.Generator) -> None:
    """A stroke of violet skin marker beside the lesion."""
    if rng.random() < 0.5:
        return
    turn, around = rng.uniform(0, 6.28), rng.uniform(0.5, 1.1)
    middle = canvas.width / 2, canvas.height / 2
    away = rng.uniform(0.36, 0.44)
    shape = (canvas.width * away, canvas.height * away)
    frame = Frame(middle, shape)
    sweep = turn + np.linspace(-around, around, 7) * 0.8
    path = frame(np.stack([np.cos(sweep), np.sin(sweep)], -1)) + rng.normal(0, 0.006, (7, 2))
    stroke = canvas.patch(tube(through(path, closed=False), rng.uniform(0.026, 0.045)), soft=0.003)
    fade = 0.75 + 0.14 * canvas.field(0.02)
    tint = np.array([rng.uniform(0.28, 0.42), 0.22, rng.uniform(0.55, 0.7)], np.float32)
    canvas.paint(stroke, canvas.pixels + (tint - canvas.pixels) * np.clip(fade, 0.3, 1)[..., None])
    canvas.add_object("ink marking", stroke)


def _hairs(canvas: Canvas, rng: np.random.Generator) -> None:
    """Hairs, without a label; they are too thin to hide objects."""
    hairs = []
    for _ in range(int(rng.choice([1, 1, 4, 9, 16]))):
        start = np.array([rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)])
        turn = rng.uniform(0, 6.28)
        step = rng.uniform(0.05, 0.12) * np.array([np.cos(turn), np.sin(turn)])
        path = start + np.cumsum(np.vstack([[0, 0], np.tile(step, (3, 1)) + rng.normal(0, 0.018, (3, 2))]), 0)
        hairs.append(tube(through(path, closed=False, steps=5), (0.006, 0.003)))
    canvas.scale(canvas.patch(*hairs, soft=0.001), (0.32, 0.28, 0.28))


def _bubbles(canvas: Canvas, rng: np.random.Generator) -> None:
    """Air bubbles in the contact gel: clear discs with a bright and a dark rim."""
    if rng.random() < 0.55:
        return
    for _ in range(rng.integers(1, 4)):
        radius = rng.uniform(0.036, 0.06)
        everywhere = np.ones(canvas.shape, bool)
        spot = canvas.find_spot(rng, canvas.unoccupied(everywhere, *LABELS[1:]), radius * 1.05)
        if spot is None:
            continue
        disc = canvas.patch(ellipse(spot, (radius, radius)), soft=0.002)
        canvas.scale(disc, 0.72)
        canvas.paint(
            canvas.patch(ellipse(spot, (radius * 0.9, radius * 0.9)), soft=0.003), canvas.pixels * 0.55 + 0.5
        )
        canvas.scale(canvas.patch(ellipse(spot, (radius * 0.78, radius * 0.78)), soft=0.004), 0.88)
        glint = ellipse(polar(spot, radius * 0.5, 4.0), (radius * 0.25, radius * 0.13), 2.4)
        canvas.paint(canvas.patch(glint, soft=0.002), (1, 1, 1))
        canvas.add_object("gel bubble", disc, inside=("skin lesion", "blue-white veil"))


def _acquire(canvas: Canvas, rng: np.random.Generator) -> None:
    middle = canvas.width / 2, canvas.height / 2
    away = np.hypot(canvas.x - middle[0], canvas.y - middle[1])
    canvas.pixels *= (1.04 - rng.uniform(0.1, 0.7) * away**2)[..., None]
    canvas.pixels += rng.uniform(0.005, 0.018) * canvas.white_noise()[..., None]
    canvas.pixels = np.clip(canvas.pixels * rng.uniform(0.9, 1.08), 0, 1) ** rng.uniform(0.85, 1.2)
    if rng.random() < 0.25:  # the round rim of the instrument
        rim = canvas.patch(ellipse(middle, (0.52 * canvas.width, 0.56 * canvas.height)), soft=0.006)
        view = canvas.full(rim)
        canvas.pixels *= view[..., None]
        canvas.crop(view > 0.5)
