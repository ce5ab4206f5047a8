"""PET: a coronal projection of the trunk, glucose uptake shown dark on white."""

from __future__ import annotations

import numpy as np

from ..records import Axis
from .canvas import Canvas, soften
from .drawing import Drawing
from .outlines import (
    Frame,
    blob,
    ellipse,
    organ,
    through,
    tube,
)

LABELS = ("body", "brain", "heart", "liver", "left kidney", "right kidney", "bladder", "tumor")

BODY = [
    (0.0, -0.99),
    (0.2, -0.95),
    (0.25, -0.84),
    (0.22, -0.72),
    (0.16, -0.66),
    (0.2, -0.6),
    (0.5, -0.55),
    (0.66, -0.46),
    (0.66, -0.2),
    (0.6, 0.05),
    (0.56, 0.3),
    (0.6, 0.5),
    (0.62, 0.72),
    (0.56, 1.1),
]


def draw(side: int, rng: np.random.Generator, texture_rng: np.random.Generator) -> Drawing:
    canvas = Canvas(side, rng.uniform(0.48, 0.66), 0.0, texture_rng)
    headless = rng.random() < 0.25  # skull base to thigh
    height = canvas.height * (rng.uniform(0.6, 0.68) if headless else rng.uniform(0.485, 0.52))
    center = canvas.width / 2 + rng.normal(0, 0.01), canvas.height * (0.4 if headless else 0.5)
    frame = Frame(center, (canvas.width * rng.uniform(0.6, 0.76), height), rng.normal(0, 0.02))
    _trunk(canvas, rng, frame)
    _head(canvas, rng, frame)
    _liver(canvas, rng, frame)
    _heart(canvas, rng, frame)
    _urinary(canvas, rng, frame)
    _tumors(canvas, rng, frame)
    _acquire(canvas, rng)
    return Drawing(canvas, "pet_00", "whole body", Axis.CORONAL, int(rng.integers(60, 140)))


def _trunk(canvas: Canvas, rng: np.random.Generator, frame: Frame) -> None:
    outline = organ(rng, frame, BODY + [(-u, v) for u, v in BODY[:0:-1]], 0.008)
    body = canvas.paint(canvas.patch(outline, soft=0.006), 0.13 + 0.015 * canvas.field(0.03))
    if rng.random() < 0.6:  # arms down
        for sign in (-1, 1):
            arm = [(0.64 * sign, -0.46), (0.76 * sign, -0.1), (0.74 * sign, 0.4)]
            canvas.add(
                canvas.patch(tube(through(frame(arm), closed=False), (0.055, 0.035)), soft=0.008), 0.07
            )
    for sign in (-1, 1):
        lung = ellipse(
            tuple(frame((0.28 * sign, -0.28))), (0.2 * frame.radii[0], 0.2 * frame.radii[1]), 0.1 * sign
        )
        canvas.add(canvas.patch(lung, soft=0.012), -0.05)
        leg_gap = tube(frame([(0, 0.86), (0, 1.1)]), 0.02)
        canvas.add(canvas.patch(leg_gap, soft=0.006), -0.05)
    for row in np.arange(-0.6, 0.6, 0.07):  # marrow
        spot = tuple(frame((0, row)))
        canvas.add(canvas.patch(ellipse(spot, (0.016, 0.018)), soft=0.006), rng.uniform(0.04, 0.08))
    for _ in range(rng.integers(3, 7)):  # gut
        start = np.array([rng.uniform(-0.3, 0.3), rng.uniform(0.15, 0.5)])
        loop = np.cumsum(np.vstack([start, rng.normal(0, 0.09, (3, 2))]), 0)
        canvas.add(
            canvas.patch(tube(through(frame(loop), closed=False), 0.025), soft=0.009), rng.uniform(0.03, 0.1)
        )
    canvas.add_object("body", body)


def _head(canvas: Canvas, rng: np.random.Generator, frame: Frame) -> None:
    spot = frame((0, -0.85))
    if spot[1] < -0.01:
        return
    radii = 0.2 * frame.radii[0] * rng.uniform(0.85, 1), 0.085 * frame.radii[1] * rng.uniform(0.95, 1.1)
    brain = canvas.patch(ellipse(tuple(spot), radii, frame.angle, 2.2), soft=0.008)
    tone = rng.uniform(0.75, 0.95)
    canvas.paint(brain, tone + 0.07 * canvas.field(0.02))
    ventricles = ellipse((spot[0], spot[1] + 0.005), (radii[0] * 0.3, radii[1] * 0.45))
    canvas.add(canvas.patch(ventricles, soft=0.01), -0.2)
    canvas.add_object("brain", brain, inside=("body",))


def _liver(canvas: Canvas, rng: np.random.Generator, frame: Frame) -> None:
    if rng.random() < 0.08:
        return  # no more uptake than its surroundings
    shape = [
        (-0.52, 0.0),
        (-0.48, -0.1),
        (-0.25, -0.12),
        (0.05, -0.06),
        (0.16, -0.01),
        (-0.05, 0.06),
        (-0.25, 0.1),
        (-0.4, 0.22),
        (-0.52, 0.18),
    ]
    liver = canvas.patch(organ(rng, frame, np.array(shape) * rng.uniform(0.9, 1.1), 0.01), soft=0.008)
    canvas.paint(liver, rng.uniform(0.3, 0.42) + 0.025 * canvas.field(0.025))
    canvas.add_object("liver", liver, inside=("body",))


def _heart(canvas: Canvas, rng: np.random.Generator, frame: Frame) -> None:
    """The wall of the left ventricle, a horseshoe; after fasting it often has no uptake."""
    if rng.random() < 0.38:
        return
    spot = tuple(frame((rng.uniform(0.16, 0.24), rng.uniform(-0.22, -0.18))))
    radii = rng.uniform(0.04, 0.052), rng.uniform(0.034, 0.042)
    tilt = rng.uniform(0.4, 0.9)
    wall = canvas.paint(canvas.patch(ellipse(spot, radii, tilt), soft=0.008), rng.uniform(0.55, 0.9))
    cavity = Frame(spot, radii, tilt)((-0.25, 0))
    canvas.add(
        canvas.patch(ellipse(tuple(cavity), (radii[0] * 0.55, radii[1] * 0.4), tilt), soft=0.008), -0.45
    )
    canvas.add_object("heart", wall, inside=("body", "liver"))


def _urinary(canvas: Canvas, rng: np.random.Generator, frame: Frame) -> None:
    for name, sign in (("left kidney", 1), ("right kidney", -1)):
        if rng.random() < 0.14:
            continue
        spot = tuple(frame((sign * rng.uniform(0.26, 0.32), 0.16 + 0.02 * (sign < 0) + rng.normal(0, 0.01))))
        radii = rng.uniform(0.027, 0.034), rng.uniform(0.042, 0.054)
        kidney = canvas.patch(blob(rng, spot, radii, 0.25 * sign, 0.05), soft=0.007)
        canvas.paint(kidney, rng.uniform(0.5, 0.8))
        pelvis = ellipse((spot[0] - sign * radii[0] * 0.35, spot[1]), (radii[0] * 0.4, radii[1] * 0.5))
        canvas.add(canvas.patch(pelvis, soft=0.007), 0.3)
        canvas.add_object(name, kidney, inside=("body",))
    if rng.random() < 0.78:
        spot = tuple(frame((rng.normal(0, 0.02), rng.uniform(0.72, 0.76))))
        size = rng.uniform(0.032, 0.052)
        bladder = canvas.patch(blob(rng, spot, (size, size * rng.uniform(0.75, 1)), rough=0.05), soft=0.006)
        canvas.paint(bladder, rng.uniform(0.92, 1.15))
        canvas.add_object("bladder", bladder, inside=("body",))


def _tumors(canvas: Canvas, rng: np.random.Generator, frame: Frame) -> None:
    if rng.random() < 0.36:
        return
    _, v = frame.local(canvas.x, canvas.y)
    area = canvas.mask("body") & (v < 0.5) & (v > -0.62)
    # A focus at the position of the heart or a kidney would look like that organ.
    sites = [
        ellipse(tuple(frame(site)), (0.065, 0.075)) for site in ((0.2, -0.2), (-0.29, 0.17), (0.29, 0.16))
    ]
    taken = canvas.full(canvas.patch(*sites, soft=0.003)) > 0.5
    for _ in range(rng.choice([1, 2], p=[0.65, 0.35])):
        radius = rng.uniform(0.028, 0.04)
        others = canvas.unoccupied(np.ones(canvas.shape, bool), *LABELS[1:3], *LABELS[4:])
        spot = canvas.find_spot(rng, area & ~taken & _worn(others, 0.02 * canvas.side), radius)
        if spot is None:
            continue
        lesion = canvas.patch(
            blob(rng, spot, (radius, radius * rng.uniform(0.8, 1.1)), rng.uniform(0, 3), 0.1), soft=0.007
        )
        canvas.paint(lesion, rng.uniform(0.75, 1.0))
        canvas.add_object("tumor", lesion, inside=("body", "liver"))


def _worn(area: np.ndarray, pixels: float) -> np.ndarray:
    """The area without a margin of about `pixels`."""
    return soften(area.astype(np.float32), max(pixels, 0.6)) > 0.97


def _acquire(canvas: Canvas, rng: np.random.Generator) -> None:
    """Scanner blur, count noise that grows with the signal, and an inverted grey scale."""
    canvas.pixels = soften(canvas.pixels, rng.uniform(0.004, 0.007) * canvas.side)
    noise = canvas.field(2.6 / canvas.side)
    canvas.pixels += rng.uniform(0.02, 0.06) * np.sqrt(np.clip(canvas.pixels, 0.004, 1)) * noise
    canvas.pixels = 1 - np.clip(canvas.pixels * rng.uniform(0.9, 1.2), 0, 1) ** rng.uniform(0.8, 1.05)
