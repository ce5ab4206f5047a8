"""Endoscopy: a frame from a colonoscopy."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, ramp
from .drawing import Drawing
from .outlines import (
    Frame,
    Point,
    blob,
    ellipse,
    polar,
    rectangle,
    through,
    tube,
)

LABELS = ("lumen", "polyp", "ulcer", "instrument", "bubble", "residue")


def draw(side: int, rng: np.random.Generator, texture_rng: np.random.Generator) -> Drawing:
    canvas = Canvas(side, rng.uniform(1.0, 1.32), (0.8, 0.42, 0.36), texture_rng)
    middle = canvas.width / 2, canvas.height / 2
    ahead = rng.random() < 0.65  # towards the lumen; otherwise towards the wall, with the lumen out of view
    lumen = polar(
        middle, rng.uniform(0.02, 0.22) if ahead else rng.uniform(0.75, 1.1), rng.uniform(0, 2 * np.pi)
    )
    wet = _mucosa(canvas, rng, lumen)
    if ahead:
        _lumen(canvas, rng, lumen)
    view = ellipse(
        middle, (canvas.width * 0.49, canvas.height * 0.49), power=rng.choice([2.3, 3.0, 5.0, 8.0])
    )
    field = canvas.patch(view, soft=0.003)
    inside = canvas.full(field) > 0.5
    _residue(canvas, rng, inside)
    _ulcer(canvas, rng, inside)
    _polyp(canvas, rng, inside)
    _bubbles(canvas, rng, inside)
    _shine(canvas, rng, wet)
    _instrument(canvas, rng, middle)
    _acquire(canvas, rng, middle)
    canvas.pixels *= canvas.full(field)[..., None]
    canvas.crop(inside)
    _overlay(canvas, rng)
    return Drawing(canvas, "endoscopy_00", "colon")


def _mucosa(canvas: Canvas, rng: np.random.Generator, lumen: Point) -> np.ndarray:
    """Pink wall with rings of haustral folds around the lumen; returns the (H, W) relief for reflections."""
    tint = np.array([rng.uniform(0.74, 0.92), rng.uniform(0.36, 0.5), rng.uniform(0.28, 0.4)], np.float32)
    dx, dy = canvas.x - lumen[0], canvas.y - lumen[1]
    away = np.hypot(dx, dy) * (1 + 0.1 * canvas.field(0.35)) + 0.015 * canvas.field(0.12)
    # folds are closer together towards the far end, because of perspective
    phase = rng.uniform(5, 9) * np.log(away + 0.08) * 2 + 0.5 * canvas.field(0.3)
    relief = np.sin(phase) * ramp(away - 0.06, 0.06) + 0.3 * canvas.field(0.07)
    light = 0.82 + 0.13 * relief + 0.5 * (ramp(away - 0.12, 0.2) - 0.75)
    canvas.pixels[:] = tint * light[..., None]
    canvas.pixels *= 1 + 0.035 * canvas.field(0.02)[..., None]
    vessels = []
    for _ in range(rng.integers(5, 12)):
        start = np.array([rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)])
        bend = rng.uniform(0, 6.28) + np.cumsum(rng.normal(0, 0.4, 5))
        path = start + np.cumsum(rng.uniform(0.02, 0.05) * np.stack([np.cos(bend), np.sin(bend)], -1), 0)
        vessels.append(tube(through(path, closed=False, steps=4), (0.008, 0.002)))
    canvas.scale(canvas.patch(*vessels, soft=0.004), (0.86, 0.66, 0.68))
    return relief


def _lumen(canvas: Canvas, rng: np.random.Generator, lumen: Point) -> None:
    radii = rng.uniform(0.06, 0.13), rng.uniform(0.06, 0.13)
    outline = blob(rng, lumen, radii, rng.uniform(0, 3), 0.1, 3)
    spot = np.array(lumen)
    canvas.scale(canvas.patch((outline - spot) * 1.35 + spot, soft=0.025), (0.62, 0.5, 0.48))
    hole = canvas.patch(outline, soft=0.01)
    canvas.scale(hole, (0.24, 0.16, 0.16))
    canvas.add_object("lumen", hole)


def _polyp(canvas: Canvas, rng: np.random.Generator, inside: np.ndarray) -> None:
    if rng.random() < 0.36:
        return
    radius = rng.uniform(0.055, 0.14)
    spot = canvas.find_spot(rng, canvas.unoccupied(inside), radius * 1.1) or canvas.find_spot(
        rng, canvas.unoccupied(inside, "lumen"), 0.06
    )
    if spot is None:
        return
    angle = rng.uniform(0, 3)
    radii = radius, radius * rng.uniform(0.7, 1.0)
    outline = blob(rng, spot, radii, angle, 0.07, 4)
    shadow = outline + (rng.uniform(-0.02, 0.02), 0.02)
    canvas.scale(canvas.patch(shadow, soft=0.014), (0.6, 0.5, 0.5))
    u, v = Frame(spot, radii, angle).local(canvas.x, canvas.y)
    dome = np.sqrt(np.clip(1.1 - u * u - v * v, 0, 1))
    tint = np.array([rng.uniform(0.84, 0.98), rng.uniform(0.38, 0.56), rng.uniform(0.34, 0.5)], np.float32)
    pits = 1 + 0.07 * np.abs(canvas.field(0.014)) + 0.04 * canvas.field(0.03)
    polyp = canvas.patch(outline, soft=0.004, within=inside.astype(np.float32))
    canvas.paint(polyp, tint * ((0.5 + 0.55 * dome) * pits)[..., None])
    glint = polar(spot, radius * 0.35, rng.uniform(3.4, 5.8))
    canvas.paint(
        canvas.patch(blob(rng, glint, (0.014, 0.009), rng.uniform(0, 3), 0.2), soft=0.003), (1, 0.97, 0.95)
    )
    canvas.add_object("polyp", polyp)


def _ulcer(canvas: Canvas, rng: np.random.Generator, inside: np.ndarray) -> None:
    """A flat crater of yellowish slough with a red rim."""
    if rng.random() < 0.55:
        return
    radius = rng.uniform(0.045, 0.085)
    spot = canvas.find_spot(rng, canvas.unoccupied(inside), radius * 1.2)
    if spot is None:
        return
    outline = blob(rng, spot, (radius, radius * rng.uniform(0.6, 1)), rng.uniform(0, 3), 0.16, 6)
    canvas.scale(canvas.patch((outline - spot) * 1.22 + spot, soft=0.008), (0.95, 0.5, 0.5))
    ulcer = canvas.patch(outline, soft=0.004)
    slough = np.array([0.88, 0.82, 0.62], np.float32) * (0.92 + 0.09 * canvas.field(0.02))[..., None]
    canvas.paint(ulcer, slough, 0.92)
    canvas.add_object("ulcer", ulcer)


def _residue(canvas: Canvas, rng: np.random.Generator, inside: np.ndarray) -> None:
    """Stool that is left after the preparation: brown to green, granular."""
    if rng.random() < 0.5:
        return
    radius = rng.uniform(0.06, 0.12)
    spot = canvas.find_spot(rng, canvas.unoccupied(inside), radius * 0.9)
    if spot is None:
        return
    outline = blob(rng, spot, (radius * rng.uniform(1, 1.5), radius * 0.7), rng.uniform(0, 3), 0.17, 7)
    stool = canvas.patch(outline, soft=0.005)
    tint = np.array([rng.uniform(0.42, 0.58), rng.uniform(0.32, 0.42), rng.uniform(0.06, 0.14)], np.float32)
    canvas.paint(stool, tint * (1 + 0.16 * canvas.field(0.02) + 0.1 * canvas.field(0.01))[..., None], 0.95)
    canvas.add_object("residue", stool)


def _bubbles(canvas: Canvas, rng: np.random.Generator, inside: np.ndarray) -> None:
    if rng.random() < 0.5:
        return
    for _ in range(rng.integers(1, 4)):
        radius = rng.uniform(0.04, 0.065)
        spot = canvas.find_spot(rng, canvas.unoccupied(inside), radius * 1.1)
        if spot is None:
            continue
        disc = canvas.patch(ellipse(spot, (radius, radius)), soft=0.002)
        canvas.paint(disc, (0.95, 0.9, 0.86), 0.6)
        core = canvas.patch(ellipse(spot, (radius * 0.86, radius * 0.86)), soft=0.006)
        canvas.scale(core, (0.78, 0.68, 0.66))
        for turn, size in ((rng.uniform(3.6, 4.6), 0.24), (rng.uniform(0.6, 1.4), 0.14)):
            glint = ellipse(
                polar(spot, radius * 0.58, turn), (radius * size, radius * size * 0.6), turn + 1.57
            )
            canvas.paint(canvas.patch(glint, soft=0.002), (1, 1, 1))
        canvas.add_object("bubble", disc)


def _shine(canvas: Canvas, rng: np.random.Generator, relief: np.ndarray) -> None:
    """Reflections of the lamp on the wet ridges."""
    spots = ramp(canvas.field(0.035) + 0.5 * relief - rng.uniform(2.4, 3.1), 0.3)
    spots *= canvas.unoccupied(np.ones(canvas.shape, bool))
    canvas.pixels += (1 - canvas.pixels) * (0.9 * spots)[..., None]


def _instrument(canvas: Canvas, rng: np.random.Generator, middle: Point) -> None:
    """Forceps or a snare catheter that enters from the edge of the view."""
    if rng.random() < 0.48:
        return
    turn = rng.uniform(0, 2 * np.pi)
    start = polar(middle, 0.75, turn)
    tip = polar(middle, rng.uniform(0.08, 0.26), turn + rng.uniform(-0.4, 0.4))
    width = rng.uniform(0.045, 0.075)
    shaft = canvas.patch(tube(np.linspace(start, tip, 12), width), soft=0.002)
    along = np.subtract(tip, start) / np.hypot(*np.subtract(tip, start))
    offset = (canvas.x - tip[0]) * -along[1] + (canvas.y - tip[1]) * along[0]
    round_light = 0.35 + 0.6 * np.sqrt(np.clip(1 - (2 * offset / width - 0.25) ** 2, 0, 1))
    tint = np.array([(0.8, 0.82, 0.86), (0.25, 0.5, 0.85), (0.9, 0.9, 0.84)][rng.integers(3)], np.float32)
    canvas.scale(canvas.patch(tube(np.linspace(start, tip, 12) + 0.015, width), soft=0.01), 0.6)
    canvas.paint(shaft, tint * round_light[..., None])
    jaws = []
    for side in (-1, 1):
        normal = np.array([-along[1], along[0]]) * side
        jaw = through(
            [tip, tip + along * 0.03 + normal * 0.028, tip + along * 0.07 + normal * 0.02], closed=False
        )
        jaws.append(canvas.paint(canvas.patch(tube(jaw, (width * 0.5, 0.012)), soft=0.002), tint * 0.75))
    canvas.add_object("instrument", shaft, *jaws)


def _acquire(canvas: Canvas, rng: np.random.Generator, middle: Point) -> None:
    away = np.hypot(canvas.x - middle[0], canvas.y - middle[1])
    canvas.pixels *= (1.05 - rng.uniform(0.4, 1.0) * away**2)[..., None]
    canvas.pixels += rng.uniform(0.005, 0.02) * canvas.white_noise()[..., None]
    canvas.pixels = np.clip(canvas.pixels * rng.uniform(0.9, 1.1), 0, 1) ** rng.uniform(0.85, 1.2)


def _overlay(canvas: Canvas, rng: np.random.Generator) -> None:
    """The green position window that some recorders draw at the lower left."""
    if rng.random() > 0.3:
        return
    half = canvas.width * 0.12, canvas.height * 0.1
    box = canvas.patch(rectangle((half[0], canvas.height - half[1]), half), soft=0.001)
    canvas.paint(box, (0.03, 0.12, 0.1))
    path = [
        (half[0] * a, canvas.height - half[1] * b)
        for a, b in ((0.5, 0.4), (0.5, 1.5), (1.4, 1.6), (1.5, 0.5))
    ]
    canvas.paint(canvas.patch(tube(through(path, closed=False), 0.008), soft=0.001), (0.2, 0.75, 0.35))
    canvas.crop(canvas.full(box) < 0.5)
