"""X-ray: a frontal chest radiograph. It is a projection, so the attenuation of objects adds up."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, soften
from .drawing import Drawing
from .outlines import (
    Frame,
    Outline,
    blob,
    ellipse,
    organ,
    rectangle,
    through,
    tube,
)

LABELS = (
    "left lung",
    "right lung",
    "heart",
    "left clavicle",
    "right clavicle",
    "trachea",
    "lung nodule",
    "pleural effusion",
    "pacemaker",
)
LUNGS = ("left lung", "right lung")

# The lung on the right of the image (the patient's left), in the frame of the chest; the other is its mirror image.
LUNG = [
    (0.3, -0.96),
    (0.52, -0.82),
    (0.72, -0.42),
    (0.84, 0.1),
    (0.88, 0.55),
    (0.84, 0.8),
    (0.7, 0.64),
    (0.48, 0.5),
    (0.25, 0.5),
    (0.14, 0.36),
    (0.13, -0.1),
    (0.15, -0.55),
    (0.19, -0.86),
]
HEART = [
    (-0.17, -0.02),
    (-0.25, 0.22),
    (-0.22, 0.46),
    (-0.08, 0.6),
    (0.2, 0.68),
    (0.48, 0.66),
    (0.58, 0.5),
    (0.48, 0.26),
    (0.3, 0.04),
    (0.2, -0.12),
    (0.02, -0.16),
]


def draw(side: int, rng: np.random.Generator, texture_rng: np.random.Generator) -> Drawing:
    canvas = Canvas(side, rng.uniform(0.82, 1.2), 0.06, texture_rng)
    radii = canvas.width * rng.uniform(0.44, 0.5), canvas.height * rng.uniform(0.4, 0.47)
    center = canvas.width / 2 + rng.normal(0, 0.015), canvas.height * rng.uniform(0.49, 0.54)
    chest = Frame(center, radii, rng.normal(0, 0.04))
    _soft_tissue(canvas, rng, chest)
    _lungs(canvas, rng, chest)
    _heart(canvas, rng, chest)
    _bones(canvas, rng, chest)
    _effusion(canvas, rng, chest)
    _nodule(canvas, rng)
    _pacemaker(canvas, rng, chest)
    _acquire(canvas, rng)
    return Drawing(canvas, "x_ray", "chest")


def _soft_tissue(canvas: Canvas, rng: np.random.Generator, chest: Frame) -> None:
    """Shoulders, neck and flanks, denser below the diaphragm."""
    half = [
        (0.22, -1.35),
        (0.24, -1.12),
        (0.42, -1.0),
        (0.8, -0.92),
        (1.15, -0.72),
        (1.3, -0.4),
        (1.2, 0.0),
        (1.06, 0.3),
        (1.03, 0.8),
        (1.03, 1.4),
    ]
    outline = through(chest(half + [(-u, v) for u, v in half[::-1]]))
    canvas.paint(canvas.patch(outline, soft=0.008), 0.5 + 0.015 * canvas.field(0.05))
    _, v = chest.local(canvas.x, canvas.y)
    belly = np.clip((v - 0.35) * 2.5, 0, 1) * (canvas.pixels > 0.3)
    canvas.pixels += 0.16 * belly.astype(np.float32)
    for sign in (-1, 1):  # humeral head and shoulder blade
        blade = organ(
            rng,
            chest,
            [(sign * u, w) for u, w in [(0.72, -0.82), (1.0, -0.78), (1.02, -0.5), (0.84, -0.05)]],
            0.03,
        )
        canvas.add(canvas.patch(blade, soft=0.006), 0.08)
        canvas.add(canvas.patch(ellipse(tuple(chest((1.1 * sign, -0.72))), (0.06, 0.07)), soft=0.006), 0.16)


def _lungs(canvas: Canvas, rng: np.random.Generator, chest: Frame) -> None:
    air = rng.uniform(0.13, 0.24)
    height = rng.uniform(0.92, 1.04)
    for name, sign in (("right lung", -1), ("left lung", 1)):
        points = np.array(LUNG) * (sign, height) - (
            0,
            0.05 * (sign < 0),
        )  # the liver raises the right side of the diaphragm
        patch = canvas.patch(organ(rng, chest, points, 0.012), soft=0.005)
        within = canvas.full(patch)
        canvas.paint(patch, air + 0.02 * canvas.field(0.08) + 0.012 * canvas.field(0.015))
        vessels = []
        for _ in range(13):  # they spread from the hilum
            turn = rng.uniform(-1.35, 1.35)
            reach = rng.uniform(0.3, 0.65)
            start = np.array([0.2, 0.0])
            end = start + reach * np.array([np.cos(turn), np.sin(turn)])
            path = chest(np.array([start, (start + end) / 2 + rng.normal(0, 0.04, 2), end]) * (sign, 1))
            vessels.append(tube(through(path, closed=False), (0.018, 0.004)))
        canvas.add(canvas.patch(*vessels, soft=0.004, within=within), rng.uniform(0.05, 0.09))
        hilum = blob(rng, tuple(chest((0.22 * sign, 0.0))), (0.045, 0.08), 0.25 * sign, 0.15)
        canvas.add(canvas.patch(hilum, soft=0.015, within=within), 0.14)
        canvas.add_object(name, patch)
    if rng.random() < 0.6:  # gas in the stomach below the left dome
        canvas.add(
            canvas.patch(blob(rng, tuple(chest((0.45, 0.75))), (0.07, 0.035), rough=0.1), soft=0.006), -0.22
        )


def _heart(canvas: Canvas, rng: np.random.Generator, chest: Frame) -> None:
    middle = [(0.14, -1.2), (0.13, -0.7), (0.17, -0.3), (0.16, 0.2), (0.15, 1.3)]
    column = through(chest(middle + [(-u, v) for u, v in middle[::-1]]))
    canvas.paint(canvas.patch(column, soft=0.01), 0.62, 0.9)
    knob = ellipse(tuple(chest((0.14, -0.36))), (0.045, 0.05))
    canvas.paint(canvas.patch(knob, soft=0.006), 0.6, 0.8)
    size = np.array([rng.uniform(0.85, 1.25), rng.uniform(0.9, 1.08)])
    outline = organ(rng, chest, (np.array(HEART) - (0, 0.6)) * size + (0, 0.6), 0.015)
    heart = canvas.paint(
        canvas.patch(outline, soft=0.006), rng.uniform(0.66, 0.74) + 0.012 * canvas.field(0.1)
    )
    canvas.add_object("heart", heart)
    half = 0.075 * chest.radii[0], 0.062 * chest.radii[1]
    spine = [rectangle(tuple(chest((0, row))), half, chest.angle) for row in np.arange(-1.2, 1.3, 0.17)]
    canvas.add(canvas.patch(*spine, soft=0.006), 0.04)  # faint behind the mediastinum
    windpipe = through(chest([(0.0, -1.15), (-0.01, -0.8), (-0.02, -0.45), (-0.03, -0.3)]), closed=False)
    if rng.random() < 0.75:
        width = rng.uniform(0.05, 0.066)
        trachea = canvas.patch(tube(windpipe, (width, width * 0.85)), soft=0.007)
        canvas.paint(trachea, 0.4 + 0.02 * canvas.field(0.05), 0.8)
        canvas.add_object("trachea", trachea)
        bronchi = [
            tube(chest([(-0.03, -0.3), (0.16 * sign - 0.03, -0.14)]), (0.035, 0.025)) for sign in (-1, 1)
        ]
        canvas.paint(canvas.patch(*bronchi, soft=0.008), 0.42, 0.55)


def _bones(canvas: Canvas, rng: np.random.Generator, chest: Frame) -> None:
    density = rng.uniform(0.06, 0.11)
    backs, fronts = [], []
    for sign in (-1, 1):
        for step in range(9):
            top = -0.92 + 0.18 * step
            reach = 0.45 + 0.45 * np.sin(min(0.35 + 0.2 * step, 1.5))
            back = [
                (0.08, top),
                (0.4 * reach + 0.1, top - 0.05),
                (0.92 * reach, top + 0.12),
                (reach, top + 0.28),
            ]
            backs.append(_rib(chest, back, sign, 0.028))
            if 1 <= step < 7:  # the front ends slant down towards the breastbone
                front = [(reach, top + 0.28), (0.75 * reach, top + 0.44), (0.45 * reach, top + 0.5)]
                fronts.append(_rib(chest, front, sign, 0.026))
    burnt = np.clip(1.5 - 2 * canvas.pixels, 0.12, 1)  # bright regions have little contrast left
    canvas.add(canvas.patch(*backs, soft=0.004, within=burnt), density)
    canvas.add(canvas.patch(*fronts, soft=0.006, within=burnt), density * 0.6)
    _clavicles(canvas, rng, chest)


def _clavicles(canvas: Canvas, rng: np.random.Generator, chest: Frame) -> None:
    rise, cropped = rng.uniform(-0.1, 0.02), rng.random() < 0.2
    for name, sign in (("right clavicle", -1), ("left clavicle", 1)):
        if cropped or rng.random() < 0.12:
            continue  # outside the image
        tilt = rng.normal(0, 0.02)
        path = [
            (0.12, -0.68 + rise),
            (0.4, -0.76 + rise + tilt),
            (0.62, -0.82 + rise),
            (0.92, -0.82 + rise + tilt),
        ]
        bone = canvas.patch(_rib(chest, path, sign, 0.036), soft=0.003)
        canvas.add(bone, rng.uniform(0.16, 0.24))
        rim = _rib(chest, path, sign, 0.022)
        canvas.add(canvas.patch(rim, soft=0.003), -0.05)
        canvas.add_object(name, bone, inside=(*LUNGS, "trachea"))


def _rib(chest: Frame, points: list[tuple[float, float]], sign: int, width: float) -> Outline:
    return tube(through(chest(np.array(points) * (sign, 1)), closed=False), width)


def _effusion(canvas: Canvas, rng: np.random.Generator, chest: Frame) -> None:
    """Fluid that fills the base of one lung with a curved upper edge."""
    if rng.random() < 0.5:
        return
    sign = int(rng.choice([-1, 1]))
    name = "left lung" if sign > 0 else "right lung"
    top = rng.uniform(0.05, 0.38)
    shape = [
        (1.0, top - 0.22),
        (0.8, top + 0.02),
        (0.55, top + 0.14),
        (0.2, top + 0.16),
        (0.0, 1.2),
        (1.0, 1.2),
    ]
    # a little wider than the lung, whose dark edge would otherwise be visible
    lung = np.clip(6 * soften(canvas.mask(name).astype(np.float32), 0.014 * canvas.side), 0, 1)
    fluid = canvas.patch(organ(rng, chest, np.array(shape) * (sign, 1), 0.01), soft=0.008, within=lung)
    canvas.paint(fluid, rng.uniform(0.58, 0.64) + 0.015 * canvas.field(0.05), 0.95)
    canvas.add_object("pleural effusion", fluid)


def _nodule(canvas: Canvas, rng: np.random.Generator) -> None:
    if rng.random() < 0.42:
        return
    radius = rng.uniform(0.036, 0.055)
    area = canvas.mask("left lung") | canvas.mask("right lung")
    area = canvas.unoccupied(area, "left clavicle", "right clavicle")
    spot = canvas.find_spot(rng, area, radius * 1.1)
    if spot is None:
        return
    nodule = canvas.patch(blob(rng, spot, (radius, radius * rng.uniform(0.85, 1.1)), rough=0.05), soft=0.005)
    canvas.add(nodule, rng.uniform(0.24, 0.34))
    canvas.add_object("lung nodule", nodule, inside=LUNGS)


def _pacemaker(canvas: Canvas, rng: np.random.Generator, chest: Frame) -> None:
    if rng.random() < 0.48:
        return
    sign = int(rng.choice([-1, 1], p=[0.25, 0.75]))
    spot = tuple(chest((sign * rng.uniform(0.6, 0.74), rng.uniform(-0.62, -0.5))))
    can = ellipse(spot, (rng.uniform(0.045, 0.06), rng.uniform(0.04, 0.05)), rng.uniform(-0.5, 0.5), 3.2)
    lead = [
        (spot[0], spot[1] - 0.03),
        tuple(chest((0.4 * sign, -0.74))),
        tuple(chest((-0.1, -0.55))),
        tuple(chest((-0.14, 0.0))),
        tuple(chest((0.05, 0.48))),
        tuple(chest((0.28, 0.52))),
    ]
    canvas.paint(canvas.patch(tube(through(lead, closed=False), 0.006), soft=0.001), 0.95)
    patch = canvas.paint(canvas.patch(can, soft=0.002), 0.94)
    header = ellipse((spot[0], spot[1] - 0.032), (0.025, 0.01))
    canvas.paint(canvas.patch(header, soft=0.002), 0.8)
    canvas.add_object("pacemaker", patch)


def _acquire(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.pixels *= 1 + 0.04 * canvas.field(0.7)
    canvas.pixels += rng.uniform(0.006, 0.02) * canvas.white_noise()
    canvas.pixels = np.clip(canvas.pixels * rng.uniform(1.0, 1.15), 0, 1) ** rng.uniform(0.85, 1.15)
    if rng.random() < 0.4:  # side marker
        spot = canvas.width * rng.uniform(0.05, 0.1), canvas.height * rng.uniform(0.05, 0.12)
        canvas.paint(canvas.patch(tube(np.array([spot, (spot[0], spot[1] + 0.04)]), 0.008), soft=0.001), 0.98)
        canvas.paint(
            canvas.patch(ellipse((spot[0] + 0.012, spot[1] + 0.01), (0.012, 0.01)), soft=0.001), 0.98
        )
