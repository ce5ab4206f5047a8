"""Ultrasound: a transverse view of the neck with the thyroid, whole or one lobe at a time."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, ramp, soften
from .drawing import Drawing
from .outlines import (
    Frame,
    blob,
    ellipse,
    organ,
    rectangle,
    through,
    tube,
)

LABELS = (
    "trachea",
    "left thyroid lobe",
    "right thyroid lobe",
    "left carotid artery",
    "right carotid artery",
    "thyroid nodule",
    "thyroid cyst",
)
LOBES = ("left thyroid lobe", "right thyroid lobe")


def draw(side: int, rng: np.random.Generator, texture_rng: np.random.Generator) -> Drawing:
    """Draw a view; `middle` is the x of the trachea, near a border if only one lobe is shown."""
    canvas = Canvas(side, rng.uniform(1.0, 1.4), 0.2, texture_rng)
    view = rng.choice(["both", "left", "right"], p=[0.5, 0.25, 0.25])
    scale = rng.uniform(0.19, 0.22) * (1.0 if view == "both" else 1.35)
    middle = {"both": 0.5, "left": 0.2, "right": 0.8}[view] * canvas.width + rng.normal(0, 0.02)
    neck = Frame((middle, canvas.height * rng.uniform(0.38, 0.46)), (scale, scale), rng.normal(0, 0.04))
    sides = {"both": (-1, 1), "left": (1,), "right": (-1,)}[view]
    _layers(canvas, rng, neck)
    for sign in sides:
        _lobe(canvas, rng, neck, sign)
    _trachea(canvas, rng, neck)
    for sign in sides:
        _carotid(canvas, rng, neck, sign)
    _nodules(canvas, rng)
    _speckle(canvas, rng)
    _probe(canvas, rng)
    return Drawing(canvas, "ultrasound_00", "neck")


def _layers(canvas: Canvas, rng: np.random.Generator, neck: Frame) -> None:
    """Skin, fat, strap muscles, and the deep muscles in front of the spine."""
    depth = (canvas.y - neck.center[1]) / neck.radii[1] + 0.12 * canvas.field(0.3) + 0 * canvas.x
    tone = 0.2 + 0.05 * canvas.field(0.02, 5.0)
    tone += 0.16 * ramp(-depth - 1.15, 0.08)  # fat
    tone -= 0.09 * ramp(-depth - 0.85, 0.06) * ramp(depth + 1.15, 0.06)  # strap muscles
    fibres = ramp(np.sin(depth * 26 + canvas.field(0.15)) - 0.7, 0.3)
    tone += 0.1 * fibres * (np.abs(depth + 1.0) < 0.2)
    tone += 0.1 * ramp(np.sin(depth * 18 + canvas.field(0.2)) - 0.6, 0.4) * ramp(depth - 0.95, 0.1)
    canvas.pixels[:] = tone
    for level, bright in ((-1.15, 0.32), (-0.84, 0.3), (0.98, 0.2)):  # fascia
        line = np.exp(-(((depth - level) / 0.035) ** 2))
        canvas.pixels += bright * line * (0.7 + 0.3 * canvas.field(0.05, 3.0))


def _lobe(canvas: Canvas, rng: np.random.Generator, neck: Frame, sign: int) -> None:
    name = "left thyroid lobe" if sign > 0 else "right thyroid lobe"
    if rng.random() < 0.08:  # removed by surgery
        return
    shape = [
        (0.12, -0.62),
        (0.45, -0.7),
        (0.9, -0.66),
        (1.2, -0.35),
        (1.22, 0.15),
        (1.02, 0.55),
        (0.75, 0.66),
        (0.56, 0.4),
        (0.5, 0.0),
        (0.42, -0.36),
        (0.14, -0.5),
    ]
    size = rng.uniform(0.85, 1.08), rng.uniform(0.82, 1.1)
    points = np.array(shape) * (sign * size[0], size[1])
    lobe = canvas.patch(organ(rng, neck, points, 0.025), soft=0.005)
    canvas.paint(canvas.patch(organ(rng, neck, points * 1.03, 0.01), soft=0.005), 0.6, 0.6)
    canvas.paint(lobe, rng.uniform(0.4, 0.5) + 0.025 * canvas.field(0.03))
    canvas.add_object(name, lobe)


def _trachea(canvas: Canvas, rng: np.random.Generator, neck: Frame) -> None:
    """A bright front wall, rings of reverberation, then shadow."""
    if rng.random() < 0.12:
        below = ellipse(tuple(neck((0, 0.1))), (0.42 * neck.radii[0], 0.45 * neck.radii[1]))
        canvas.paint(canvas.patch(below, soft=0.02), 0.22)
        return  # above the airway there is only soft tissue in the midline
    size = rng.uniform(0.42, 0.5)
    spot = tuple(neck((0, 0.05)))
    radii = size * neck.radii[0], size * 1.05 * neck.radii[1]
    bottom = canvas.height + 0.05
    shadow = [
        (spot[0] - radii[0] * 0.9, spot[1]),
        (spot[0] + radii[0] * 0.9, spot[1]),
        (spot[0] + radii[0] * 1.05, bottom),
        (spot[0] - radii[0] * 1.05, bottom),
    ]
    canvas.scale(canvas.patch(np.array(shadow), soft=0.015), 0.25)
    trachea = canvas.patch(ellipse(spot, radii), soft=0.004)
    canvas.paint(trachea, 0.08)
    within = canvas.full(trachea)
    for step in range(5):
        lift = 0.94 - 0.24 * step
        turn = np.linspace(np.pi * 1.12, np.pi * 1.88, 12)
        arc = np.stack(
            [spot[0] + radii[0] * 0.95 * np.cos(turn), spot[1] + radii[1] * (np.sin(turn) + 0.94 - lift)], -1
        )
        line = canvas.patch(tube(arc, 0.018 if step == 0 else 0.012), soft=0.005, within=within)
        canvas.add(line, 0.85 * 0.45**step)
    canvas.add_object("trachea", trachea)


def _carotid(canvas: Canvas, rng: np.random.Generator, neck: Frame, sign: int) -> None:
    name = "left carotid artery" if sign > 0 else "right carotid artery"
    if rng.random() < 0.15:
        return
    spot = tuple(neck((sign * rng.uniform(1.42, 1.55), rng.uniform(0.0, 0.3))))
    radius = neck.radii[0] * rng.uniform(0.2, 0.25)
    if not radius < spot[0] < canvas.width - radius:
        return
    wall = ellipse(spot, (radius * 1.12, radius * 1.12))
    canvas.paint(canvas.patch(wall, soft=0.004), 0.55, 0.8)
    artery = canvas.paint(canvas.patch(blob(rng, spot, (radius, radius), rough=0.02), soft=0.003), 0.03)
    _enhance(canvas, spot, radius, 1.35)
    canvas.add_object(name, artery)


def _enhance(canvas: Canvas, spot: tuple[float, float], radius: float, gain: float) -> None:
    """Brighten the tissue behind fluid, which attenuates sound little."""
    band = rectangle((spot[0], spot[1] + radius * 2.1), (radius * 0.75, radius))
    canvas.scale(canvas.patch(band, soft=0.012), gain)


def _nodules(canvas: Canvas, rng: np.random.Generator) -> None:
    for name, missing in (("thyroid nodule", 0.4), ("thyroid cyst", 0.4)):
        if rng.random() < missing:
            continue
        area = canvas.unoccupied(canvas.mask(LOBES[0]) | canvas.mask(LOBES[1]), *LABELS[5:])
        radius = rng.uniform(0.038, 0.07)
        spot = canvas.find_spot(rng, area, radius)
        if spot is None:
            radius = 0.037
            spot = canvas.find_spot(rng, area, radius)
        if spot is None:
            continue
        outline = blob(rng, spot, (radius, radius * rng.uniform(0.75, 1)), rng.uniform(-0.4, 0.4), 0.06)
        if name == "thyroid cyst":
            canvas.paint(canvas.patch((outline - spot) * 1.06 + spot, soft=0.003), 0.66, 0.7)
            patch = canvas.paint(canvas.patch(outline, soft=0.003), 0.02)
            _enhance(canvas, spot, radius, 1.6)
        else:
            patch = _solid(canvas, rng, outline, spot, radius)
        canvas.add_object(name, patch, inside=LOBES)


def _solid(
    canvas: Canvas, rng: np.random.Generator, outline: np.ndarray, spot: tuple[float, float], radius: float
):
    """A solid nodule: darker or brighter than the gland, a dark halo, sometimes calcium with a shadow."""
    patch = canvas.paint(canvas.patch(outline, soft=0.004), 0.14)
    tone = rng.choice([0.2, 0.8], p=[0.55, 0.45])
    canvas.paint(canvas.patch((outline - spot) * 0.86 + spot, soft=0.005), tone + 0.06 * canvas.field(0.015))
    if rng.random() < 0.4:
        for _ in range(rng.integers(2, 5)):
            grit = spot[0] + rng.normal(0, radius * 0.35), spot[1] + rng.normal(0, radius * 0.3)
            canvas.scale(canvas.patch(rectangle((grit[0], grit[1] + 0.06), (0.006, 0.06)), soft=0.004), 0.6)
            canvas.paint(canvas.patch(ellipse(grit, (0.009, 0.006)), soft=0.003), 0.95)
    return patch


def _speckle(canvas: Canvas, rng: np.random.Generator) -> None:
    """Speckle: the envelope of a complex noise field, wider than high."""
    fine, wide = rng.uniform(1.6, 2.2) / canvas.side, rng.uniform(1.4, 2.2)
    envelope = np.sqrt(canvas.field(fine, wide) ** 2 + canvas.field(fine, wide) ** 2) / 1.25  # mean 1
    canvas.pixels = soften(canvas.pixels, 0.7)
    strength = rng.uniform(0.5, 0.75)
    canvas.pixels *= 1 + strength * (envelope - 1)
    gain = 1.12 - rng.uniform(0.1, 0.5) * (canvas.y / canvas.height) ** 1.5
    canvas.pixels *= gain * rng.uniform(0.9, 1.25)
    canvas.pixels += 0.012 * np.abs(canvas.white_noise())
    canvas.pixels = np.clip(canvas.pixels, 0, 1) ** rng.uniform(0.75, 1.0)


def _probe(canvas: Canvas, rng: np.random.Generator) -> None:
    """The field of view: a rectangle, or the sector of a curved probe; sometimes with depth marks."""
    top = canvas.height * rng.uniform(0.02, 0.06)
    if rng.random() < 0.55:
        edge = canvas.width * rng.uniform(0.0, 0.03)
        corners = [
            (edge, top),
            (canvas.width - edge, top),
            (canvas.width - edge, canvas.height * 0.98),
            (edge, canvas.height * 0.98),
        ]
        outline = np.array(corners)
    else:
        spread, apex = rng.uniform(0.1, 0.16) * canvas.width, canvas.height * 0.98
        arc = through(
            [(spread, top), (canvas.width / 2, top + 0.05), (canvas.width - spread, top)], closed=False
        )
        low = through([(canvas.width, apex - 0.1), (canvas.width / 2, apex), (0, apex - 0.1)], closed=False)
        outline = np.concatenate([arc, low])
    view = canvas.full(canvas.patch(outline, soft=0.001))
    canvas.pixels *= view
    canvas.crop(view > 0.5)
    if rng.random() < 0.5:  # depth marks
        for row in np.arange(0.1, canvas.height - 0.03, 0.1):
            canvas.paint(
                canvas.patch(rectangle((canvas.width - 0.008, row), (0.006, 0.0025)), soft=0.001), 0.8
            )
