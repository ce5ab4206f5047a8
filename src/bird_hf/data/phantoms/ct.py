"""CT: an axial slice of the abdomen in a soft-tissue window, portal venous phase."""

from __future__ import annotations

import numpy as np

from ..records import Axis
from .canvas import Canvas, Patch
from .drawing import Drawing
from .outlines import (
    Frame,
    Outline,
    blob,
    ellipse,
    organ,
    polar,
    rectangle,
    through,
    tube,
)

LABELS = (
    "body",
    "liver",
    "spleen",
    "stomach",
    "left kidney",
    "right kidney",
    "gallbladder",
    "aorta",
    "vertebra",
    "liver lesion",
)

FAT, MUSCLE, BONE, FLUID = 0.17, 0.52, 0.98, 0.42

# Landmarks in the body's frame: u from the patient's right (-1) to left (1), v from front (-1) to back (1).
LIVER_HIGH = [
    (-0.78, 0.1),
    (-0.74, -0.28),
    (-0.52, -0.6),
    (-0.15, -0.72),
    (0.2, -0.68),
    (0.36, -0.52),
    (0.12, -0.36),
    (-0.12, -0.2),
    (-0.2, 0.0),
    (-0.3, 0.32),
    (-0.48, 0.56),
    (-0.68, 0.42),
]
LIVER_LOW = [
    (-0.79, 0.1),
    (-0.76, -0.22),
    (-0.64, -0.42),
    (-0.5, -0.52),
    (-0.38, -0.48),
    (-0.32, -0.36),
    (-0.34, -0.22),
    (-0.38, -0.08),
    (-0.42, 0.04),
    (-0.5, 0.18),
    (-0.6, 0.28),
    (-0.71, 0.28),
]
SPLEEN = [
    (0.76, -0.06),
    (0.82, 0.2),
    (0.7, 0.5),
    (0.5, 0.64),
    (0.46, 0.52),
    (0.58, 0.34),
    (0.6, 0.12),
    (0.66, -0.08),
]


def draw(side: int, rng: np.random.Generator, texture_rng: np.random.Generator) -> Drawing:
    """Draw a slice; `level` is its height, from the dome of the liver (0) to the lower poles of the kidneys (1)."""
    level = float(rng.uniform(0.05, 1))
    canvas = Canvas(side, rng.uniform(1.0, 1.4), 0.0, texture_rng)
    width = canvas.width * rng.uniform(0.42, 0.475)
    depth = min(width * rng.uniform(0.66, 0.82), canvas.height * 0.46)
    center = (canvas.width / 2 + rng.normal(0, 0.01), canvas.height / 2 - rng.uniform(0, 0.02))
    frame = Frame(center, (width, depth), rng.normal(0, 0.05))
    cavity = _trunk(canvas, rng, frame)
    _spine(canvas, rng, frame, level)
    _bowel(canvas, rng, frame, level, cavity)
    _vessels(canvas, rng, frame)
    _stomach(canvas, rng, frame, level, cavity)
    _kidneys(canvas, rng, frame, level, cavity)
    _spleen(canvas, rng, frame, level, cavity)
    _liver(canvas, rng, frame, level, cavity)
    _acquire(canvas, rng)
    return Drawing(canvas, "ct_00", "abdomen", Axis.AXIAL, int(160 - 100 * level))


def _trunk(canvas: Canvas, rng: np.random.Generator, frame: Frame) -> np.ndarray:
    """Table, skin, fat, muscle wall and ribs; returns the (H, W) map of the abdominal cavity."""
    table = through(frame([(-0.95, 0.96), (-0.5, 1.1), (0, 1.14), (0.5, 1.1), (0.95, 0.96)]), closed=False)
    canvas.paint(canvas.patch(tube(table, 0.012)), rng.uniform(0.2, 0.45))
    power, fat = rng.uniform(2.15, 2.6), rng.uniform(0.06, 0.16)

    def shell(scale: float, soft: float = 0.003) -> Patch:
        radii = frame.radii[0] * scale, frame.radii[1] * scale
        return canvas.patch(ellipse(frame.center, radii, frame.angle, power), soft=soft)

    body = canvas.paint(shell(1.0), 0.42)
    canvas.add_object("body", body)
    canvas.paint(shell(0.985), FAT + 0.02 * canvas.field(0.03))
    canvas.paint(shell(1 - fat), MUSCLE + 0.03 * canvas.field(0.012, 2.0))
    cavity = canvas.paint(shell(0.9 - fat), FAT + 0.025 * canvas.field(0.02))
    wall = 0.935 - fat
    for turn in np.arange(rng.integers(9, 13)) * 0.5 + rng.uniform(0, 0.5):
        if abs(np.sin(turn) + 1) > 0.25:  # no ribs at the front midline
            spot = frame((wall * np.cos(turn), wall * np.sin(turn)))
            rib = ellipse(tuple(spot), (rng.uniform(0.018, 0.032), 0.01), turn + np.pi / 2)
            canvas.paint(canvas.patch(rib, soft=0.003), BONE * rng.uniform(0.8, 1))
    for sign in (-1, 1):
        back = blob(rng, tuple(frame((0.2 * sign, 0.66))), (0.19 * frame.radii[0], 0.19 * frame.radii[1]))
        canvas.paint(canvas.patch(back, soft=0.004), MUSCLE + 0.04 * canvas.field(0.02))
    return canvas.full(cavity)


def _spine(canvas: Canvas, rng: np.random.Generator, frame: Frame, level: float) -> None:
    if level > 0.45:  # psoas muscles
        for sign in (-1, 1):
            size = 0.05 + 0.09 * (level - 0.3)
            muscle = blob(
                rng,
                tuple(frame((0.23 * sign, 0.42))),
                (size * frame.radii[0] * 1.3, size * frame.radii[1] * 2),
            )
            canvas.paint(canvas.patch(muscle, soft=0.004), MUSCLE)
    size = rng.uniform(0.9, 1.12)
    local = Frame(tuple(frame((0, 0.42))), (frame.radii[0] * size, frame.radii[1] * size), frame.angle)
    parts: list[Outline] = [
        tube(local([(0, 0.2), (0.0, 0.44)]), (0.05, 0.022)),
        tube(local([(0.04, 0.14), (0.17, 0.19), (0.26, 0.16)]), (0.045, 0.02)),
        tube(local([(-0.04, 0.14), (-0.17, 0.19), (-0.26, 0.16)]), (0.045, 0.02)),
        ellipse(tuple(local((0, 0.17))), (0.115 * local.radii[0], 0.12 * local.radii[1])),
        ellipse(tuple(local((0, -0.02))), (0.15 * local.radii[0], 0.16 * local.radii[1]), 0, 2.4),
    ]
    patches = [canvas.paint(canvas.patch(part), BONE) for part in parts]
    marrow = ellipse(tuple(local((0, -0.02))), (0.12 * local.radii[0], 0.125 * local.radii[1]), 0, 2.4)
    canvas.paint(canvas.patch(marrow, soft=0.004), 0.78 + 0.07 * canvas.field(0.012))
    canal = ellipse(tuple(local((0, 0.18))), (0.075 * local.radii[0], 0.07 * local.radii[1]))
    canvas.paint(canvas.patch(canal, soft=0.003), 0.46)
    canvas.add_object("vertebra", *patches, inside=("body",))


def _vessels(canvas: Canvas, rng: np.random.Generator, frame: Frame) -> None:
    flow = rng.uniform(0.72, 0.92)
    radius = rng.uniform(0.034, 0.043)
    vein = blob(rng, tuple(frame((-0.14, 0.1))), (0.032, 0.024), rng.uniform(-0.5, 0.5))
    canvas.paint(canvas.patch(vein), flow - 0.1)
    spot = frame((rng.uniform(0.04, 0.11), 0.13 - rng.uniform(0, 0.03)))
    aorta = canvas.paint(canvas.patch(blob(rng, tuple(spot), (radius, radius), rough=0.02)), flow)
    if rng.random() < 0.4:  # calcified wall
        turn = rng.uniform(0, 6)
        plaque = np.array([polar(tuple(spot), radius, turn + step) for step in np.linspace(0, 1, 6)])
        canvas.paint(canvas.patch(tube(plaque, 0.007)), BONE)
    canvas.add_object("aorta", aorta, inside=("body",))


def _bowel(canvas: Canvas, rng: np.random.Generator, frame: Frame, level: float, cavity: np.ndarray) -> None:
    """Loops of gut in the lower slices, without a label."""
    for _ in range(int(rng.integers(4, 8) * max(level - 0.25, 0) * 2)):
        spot = tuple(frame((rng.uniform(-0.35, 0.6), rng.uniform(-0.6, 0.0))))
        size = rng.uniform(0.028, 0.05)
        loop = blob(rng, spot, (size * rng.uniform(1, 1.6), size), rng.uniform(0, 3), 0.1)
        canvas.paint(canvas.patch(loop, soft=0.004, within=cavity), MUSCLE + 0.1)
        inner = Frame(spot, (0.72, 0.72))(loop - spot)
        patch = canvas.patch(inner, soft=0.004, within=cavity)
        canvas.paint(patch, rng.choice([0.02, 0.42, 0.48]) + 0.05 * canvas.field(0.012))


def _stomach(
    canvas: Canvas, rng: np.random.Generator, frame: Frame, level: float, cavity: np.ndarray
) -> None:
    if level > 0.72 or rng.random() < 0.12:
        return
    center = frame((rng.uniform(0.34, 0.46), rng.uniform(-0.38, -0.24)))
    radii = frame.radii[0] * rng.uniform(0.2, 0.3), frame.radii[1] * rng.uniform(0.24, 0.36)
    outline = blob(rng, tuple(center), radii, rng.uniform(-0.5, 0.5), 0.07, 3)
    wall = canvas.paint(canvas.patch(outline, soft=0.003, within=cavity), MUSCLE + 0.08)
    inner = (outline - center) * 0.9 + center
    content = canvas.patch(inner, soft=0.003, within=cavity)
    canvas.paint(content, rng.choice([0.38, 0.44, 0.95], p=[0.4, 0.4, 0.2]) + 0.04 * canvas.field(0.02))
    # The patient lies on the back, so air is in front, with a horizontal line between air and fluid.
    line = center[1] + radii[1] * rng.uniform(-0.7, 0.25)
    air = canvas.patch(
        rectangle((center[0], line - 0.25), (0.4, 0.25)), soft=0.001, within=canvas.full(content)
    )
    canvas.paint(air, 0.0)
    canvas.add_object("stomach", wall, inside=("body",))


def _kidneys(
    canvas: Canvas, rng: np.random.Generator, frame: Frame, level: float, cavity: np.ndarray
) -> None:
    tone = rng.uniform(0.72, 0.92)
    for name, sign, top in (("left kidney", 1, 0.28), ("right kidney", -1, 0.4)):
        if level < top or rng.random() < 0.1:
            continue
        center = frame((sign * rng.uniform(0.41, 0.47), rng.uniform(0.3, 0.4)))
        radii = frame.radii[0] * rng.uniform(0.125, 0.165), frame.radii[1] * rng.uniform(0.2, 0.25)
        local = Frame(tuple(center), (radii[0] * sign, radii[1]), frame.angle - sign * rng.uniform(0.1, 0.6))
        shape = [
            (0.95, 0),
            (0.7, 0.7),
            (0, 1),
            (-0.7, 0.75),
            (-0.85, 0.3),
            (-0.55, 0),
            (-0.85, -0.3),
            (-0.7, -0.75),
            (0, -1),
            (0.7, -0.7),
        ]
        kidney = canvas.paint(
            canvas.patch(organ(rng, local, shape, 0.04), soft=0.003, within=cavity),
            tone + 0.03 * canvas.field(0.03),
        )
        sinus = canvas.patch(
            organ(rng, local, [(0.15, 0), (-0.15, 0.4), (-0.7, 0.12), (-0.7, -0.12), (-0.15, -0.4)], 0.05),
            soft=0.004,
        )
        canvas.paint(sinus, FAT + 0.12)
        canvas.add_object(name, kidney, inside=("body",))


def _spleen(canvas: Canvas, rng: np.random.Generator, frame: Frame, level: float, cavity: np.ndarray) -> None:
    if level > 0.68 or rng.random() < 0.08:
        return
    size = rng.uniform(0.85, 1.12)
    points = (np.array(SPLEEN) - (0.68, 0.25)) * size + (0.72, 0.2)
    spleen = canvas.patch(organ(rng, frame, points, 0.02), soft=0.003, within=cavity)
    canvas.paint(spleen, rng.uniform(0.64, 0.74) + 0.02 * canvas.field(0.03))
    canvas.add_object("spleen", spleen, inside=("body",))


def _liver(canvas: Canvas, rng: np.random.Generator, frame: Frame, level: float, cavity: np.ndarray) -> None:
    if level > 0.93:
        return
    mix = np.clip(level * 1.15, 0, 1)
    points = (1 - mix) * np.array(LIVER_HIGH) + mix * np.array(LIVER_LOW)
    points[points[:, 0] < -0.55] *= (1.1, 1.0)  # up to the body wall, which cuts it
    tone = rng.uniform(0.52, 0.68)
    liver = canvas.patch(organ(rng, frame, points, 0.02), soft=0.003, within=cavity)
    canvas.paint(liver, tone + 0.02 * canvas.field(0.02))
    inside = canvas.full(liver)
    for _ in range(rng.integers(3, 7)):  # enhanced veins
        start = np.array([rng.uniform(-0.6, -0.25), rng.uniform(-0.3, 0.1)])
        bend = start + rng.normal(0, 0.1, 2)
        vein = through(frame([start, bend, bend + rng.normal(0, 0.14, 2)]), closed=False)
        canvas.paint(
            canvas.patch(tube(vein, (0.012, 0.004)), soft=0.003, within=inside), min(tone + 0.13, 0.8)
        )
    canvas.add_object("liver", liver, inside=("body",))
    _gallbladder(canvas, rng, frame, level, cavity)
    _lesion(canvas, rng, tone)


def _gallbladder(
    canvas: Canvas, rng: np.random.Generator, frame: Frame, level: float, cavity: np.ndarray
) -> None:
    if not 0.3 < level < 0.85 or rng.random() < 0.2:
        return
    spot = tuple(frame((rng.uniform(-0.36, -0.26), rng.uniform(-0.32, -0.2))))
    radii = rng.uniform(0.03, 0.04), rng.uniform(0.045, 0.065)
    sac = canvas.patch(blob(rng, spot, radii, rng.uniform(-0.4, 0.7), 0.04), soft=0.003, within=cavity)
    canvas.paint(sac, MUSCLE + 0.05)
    inner = canvas.patch(
        ellipse(spot, (radii[0] * 0.86, radii[1] * 0.9)), soft=0.003, within=canvas.full(sac)
    )
    canvas.paint(sac, FLUID - 0.06)
    canvas.paint(inner, FLUID - 0.08)
    canvas.add_object("gallbladder", sac, inside=("body",))


def _lesion(canvas: Canvas, rng: np.random.Generator, tone: float) -> None:
    if rng.random() < 0.38:
        return
    radius = rng.uniform(0.037, 0.07)
    spot = canvas.find_spot(rng, canvas.mask("liver"), radius * 1.1) or canvas.find_spot(
        rng, canvas.mask("liver"), 0.04
    )
    if spot is None:
        return
    radius = radius if canvas.mask("liver").sum() > 0.05 * canvas.mask("liver").size else 0.038
    outline = blob(rng, spot, (radius, radius * rng.uniform(0.8, 1.1)), rng.uniform(0, 3), 0.07)
    within = canvas.mask("liver").astype(np.float32)
    lesion = canvas.patch(outline, soft=rng.uniform(0.003, 0.006), within=within)
    if rng.random() < 0.75:
        if rng.random() < 0.4:  # enhancing rim
            canvas.paint(lesion, min(tone + 0.15, 0.9))
            canvas.paint(canvas.patch((outline - spot) * 0.75 + spot, soft=0.006, within=within), tone - 0.2)
        else:
            canvas.paint(lesion, tone - rng.uniform(0.16, 0.24) + 0.03 * canvas.field(0.02))
    else:
        canvas.paint(lesion, min(tone + rng.uniform(0.18, 0.26), 0.97))
    canvas.add_object("liver lesion", lesion, inside=("body", "liver"))


def _acquire(canvas: Canvas, rng: np.random.Generator) -> None:
    """Window and level, correlated noise, and faint streaks through the spine."""
    noise = 0.7 * canvas.field(2.2 / canvas.side) + 0.5 * canvas.white_noise()
    noise *= 0.35 + 0.65 * (canvas.pixels > 0.08)  # less noise in air
    canvas.pixels += rng.uniform(0.01, 0.04) * noise
    canvas.pixels += rng.uniform(0, 0.012) * canvas.field(0.01, 14.0)
    contrast, shift = rng.uniform(0.95, 1.25), rng.uniform(-0.05, 0.04)
    canvas.pixels = (canvas.pixels - 0.5) * contrast + 0.5 + shift
