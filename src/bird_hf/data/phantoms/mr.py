"""MR: an axial slice of the head, T1, contrast-enhanced T1, T2 or FLAIR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..records import Axis
from .canvas import Canvas, Patch, ramp, soften
from .drawing import Drawing
from .outlines import (
    Frame,
    blob,
    ellipse,
    organ,
    through,
    tube,
)

LABELS = (
    "skull",
    "brain",
    "left lateral ventricle",
    "right lateral ventricle",
    "left eye",
    "right eye",
    "cerebellum",
    "tumor",
    "edema",
)


@dataclass(frozen=True)
class Contrast:
    """Signal of each tissue under one sequence, 0 to 1."""

    white: float
    grey: float
    fluid: float
    eye: float
    fat: float
    edema: float
    tumor: float
    rim: float
    core: float


SEQUENCES = {
    "t1": Contrast(0.68, 0.5, 0.14, 0.2, 0.92, 0.42, 0.34, 0.4, 0.24),
    "t1ce": Contrast(0.6, 0.48, 0.12, 0.2, 0.88, 0.4, 0.5, 0.96, 0.22),
    "t2": Contrast(0.34, 0.5, 0.92, 0.9, 0.6, 0.74, 0.62, 0.5, 0.9),
    "flair": Contrast(0.4, 0.52, 0.08, 0.14, 0.6, 0.8, 0.62, 0.7, 0.3),
}

# The lateral ventricle on the right of the image, in the frame of the brain; the other is its mirror image.
VENTRICLE = [
    (0.05, -0.2),
    (0.13, -0.36),
    (0.24, -0.42),
    (0.22, -0.26),
    (0.13, -0.08),
    (0.16, 0.12),
    (0.28, 0.32),
    (0.32, 0.46),
    (0.22, 0.42),
    (0.12, 0.2),
    (0.06, 0.0),
]


def draw(side: int, rng: np.random.Generator, texture_rng: np.random.Generator) -> Drawing:
    name = str(rng.choice(list(SEQUENCES)))
    tissue = SEQUENCES[name]
    canvas = Canvas(side, rng.uniform(0.78, 1.05), 0.01, texture_rng)
    low = rng.random() < 0.45  # a slice through the eyes and the cerebellum, or one through the ventricles
    radii = canvas.width * rng.uniform(0.4, 0.45), canvas.height * rng.uniform(0.42, 0.46)
    radii = (min(radii[0], radii[1] * 0.9), min(radii[1], radii[0] * 1.3))
    center = canvas.width / 2 + rng.normal(0, 0.01), canvas.height / 2 + rng.normal(0, 0.01)
    head = Frame(center, radii, rng.normal(0, 0.07))
    thick = rng.uniform(0.84, 0.88)
    brain = Frame(center, (radii[0] * thick, radii[1] * thick), head.angle)
    _skull(canvas, rng, head, thick, tissue, low)
    if low:
        _eyes(canvas, rng, head, tissue)
    _brain(canvas, rng, brain, tissue, low)
    if low:
        _cerebellum(canvas, rng, brain, tissue)
    else:
        _ventricles(canvas, rng, brain, tissue)
    _tumor(canvas, rng, brain, tissue, low)
    _acquire(canvas, rng)
    index = rng.integers(30, 60) if low else rng.integers(75, 105)
    return Drawing(canvas, f"mr_{name}", "brain", Axis.AXIAL, int(index))


def _skull(
    canvas: Canvas, rng: np.random.Generator, head: Frame, thick: float, tissue: Contrast, low: bool
) -> None:
    def shell(scale: float) -> np.ndarray:
        return ellipse(head.center, (head.radii[0] * scale, head.radii[1] * scale), head.angle, 2.15)

    whole = canvas.patch(shell(1.0))
    canvas.paint(whole, tissue.fat * rng.uniform(0.75, 1) + 0.06 * canvas.field(0.03))
    canvas.paint(canvas.patch(shell(0.965)), 0.05)
    marrow = canvas.patch(shell(0.94), soft=0.004)
    canvas.paint(marrow, 0.3 * tissue.fat * rng.uniform(0.5, 1) + 0.04 * canvas.field(0.03))
    canvas.paint(canvas.patch(shell(0.91), soft=0.004), 0.04)
    # Fluid surrounds the brain; at the skull base there are muscle, bone and marrow.
    base = 0.22 + 0.05 * canvas.field(0.05) + 0.04 * canvas.field(0.015)
    canvas.paint(canvas.patch(shell(thick + 0.03), soft=0.003), base if low else tissue.fluid)
    canvas.add_object("skull", whole)


def _brain(canvas: Canvas, rng: np.random.Generator, brain: Frame, tissue: Contrast, low: bool) -> None:
    """White matter, folded cortex, sulci and the midline fissure."""
    if low:  # the frontal lobes end behind the eyes, the temporal lobes beside the brain stem
        shape = [
            (0.0, -0.5),
            (0.25, -0.58),
            (0.46, -0.42),
            (0.74, -0.26),
            (0.86, 0.04),
            (0.8, 0.36),
            (0.46, 0.44),
            (0.0, 0.5),
            (-0.46, 0.44),
            (-0.8, 0.36),
            (-0.86, 0.04),
            (-0.74, -0.26),
            (-0.46, -0.42),
            (-0.25, -0.58),
        ]
        patch = canvas.patch(organ(rng, brain, shape, 0.02), soft=0.004)
    else:
        patch = canvas.patch(ellipse(brain.center, brain.radii, brain.angle, 2.1), soft=0.004)
    u, v = brain.local(canvas.x, canvas.y)
    # 0 in the middle, 1 at the surface. Low slices have no simple shape, so the blurred outline is used.
    depth = np.hypot(u, v) if not low else 1.45 - _inward(canvas, patch)
    # Sulci are the zero lines of a noise field near the surface; the cortex is on both sides of each.
    bank = np.abs(canvas.field(0.042)) + 1.6 * ramp(0.68 - depth + 0.05 * canvas.field(0.1), 0.1)
    white = ramp(bank - 0.55, 0.16) * ramp(0.95 - depth, 0.03)
    tone = tissue.grey + (tissue.white - tissue.grey) * white + 0.012 * canvas.field(0.02)
    tone += ramp(0.13 - bank, 0.12) * (tissue.fluid - tone) * 0.85
    canvas.paint(patch, tone)
    if not low:
        _midline(canvas, rng, brain, tissue, canvas.full(patch))
    canvas.add_object("brain", patch, inside=("skull",))


def _midline(
    canvas: Canvas, rng: np.random.Generator, brain: Frame, tissue: Contrast, within: np.ndarray
) -> None:
    """The fissure between the hemispheres, and the grey nuclei beside it."""
    paths = ([(0, -1), (0.01, -0.7), (0, -0.45)], [(0, 0.5), (-0.01, 0.75), (0, 1)])
    fissure = [tube(through(brain(path), closed=False), 0.009) for path in paths]
    canvas.paint(canvas.patch(*fissure, soft=0.003, within=within), tissue.fluid, 0.9)
    nuclei = []
    for sign in (-1, 1):  # caudate and thalamus
        for spot, size in (((0.2 * sign, -0.14), 0.075), ((0.15 * sign, 0.12), 0.1)):
            radii = size * brain.radii[0], size * 1.7 * brain.radii[1]
            nuclei.append(blob(rng, tuple(brain(spot)), radii, rough=0.05))
    canvas.paint(canvas.patch(*nuclei, soft=0.006), tissue.grey, 0.8)


def _inward(canvas: Canvas, patch: Patch) -> np.ndarray:
    """The depth of pixels in the patch: (H, W), 0.5 at its edge."""
    return soften(canvas.full(patch), 0.045 * canvas.side)


def _eyes(canvas: Canvas, rng: np.random.Generator, head: Frame, tissue: Contrast) -> None:
    size = rng.uniform(0.06, 0.075)
    height = rng.uniform(-0.8, -0.72)
    for name, sign in (("right eye", -1), ("left eye", 1)):
        if rng.random() < 0.12:
            continue  # this eye is outside a tilted slice
        spot = head((0.4 * sign, height))
        socket = ellipse(tuple(head((0.38 * sign, height + 0.06))), (size * 1.35, size * 1.5), 0.4 * sign)
        canvas.paint(canvas.patch(socket, soft=0.006), tissue.fat * 0.85)
        nerve = through(
            head([(0.4 * sign, height + 0.1), (0.3 * sign, height + 0.3), (0.15 * sign, -0.42)]), closed=False
        )
        canvas.paint(canvas.patch(tube(nerve, 0.014)), tissue.grey)
        globe = canvas.paint(
            canvas.patch(ellipse(tuple(spot), (size, size * rng.uniform(0.95, 1.08)))), tissue.grey * 0.8
        )
        canvas.paint(canvas.patch(ellipse(tuple(spot), (size * 0.88, size * 0.9))), tissue.eye)
        lens = ellipse((spot[0], spot[1] - size * 0.62), (size * 0.4, size * 0.16))
        canvas.paint(canvas.patch(lens), tissue.grey * 0.9)
        canvas.add_object(name, globe)
    nose = blob(rng, tuple(head((0, -0.8))), (0.16 * head.radii[0], 0.14 * head.radii[1]), rough=0.05)
    canvas.paint(canvas.patch(nose, soft=0.006), 0.12 + 0.12 * canvas.field(0.02))


def _cerebellum(canvas: Canvas, rng: np.random.Generator, brain: Frame, tissue: Contrast) -> None:
    shape = [
        (0, 0.36),
        (0.3, 0.34),
        (0.58, 0.44),
        (0.64, 0.64),
        (0.42, 0.84),
        (0.12, 0.9),
        (0, 0.84),
        (-0.12, 0.9),
        (-0.42, 0.84),
        (-0.64, 0.64),
        (-0.58, 0.44),
        (-0.3, 0.34),
    ]
    if rng.random() < 0.85:
        gap = organ(rng, brain, np.array(shape) * (1.05, 1.02), 0.005)
        canvas.paint(canvas.patch(gap, soft=0.004), tissue.fluid)
        patch = canvas.patch(organ(rng, brain, shape, 0.015), soft=0.004)
        _, v = brain.local(canvas.x, canvas.y)
        leaves = np.sin(46 * v + 1.6 * canvas.field(0.06))  # folia run from side to side
        canvas.paint(
            patch, (tissue.grey + tissue.white) / 2 + 0.1 * leaves * (tissue.white - tissue.grey + 0.25)
        )
        canvas.add_object("cerebellum", patch, inside=("skull",))
    stem = blob(rng, tuple(brain((0, 0.2))), (0.2 * brain.radii[0], 0.19 * brain.radii[1]), rough=0.03)
    cistern = ellipse(tuple(brain((0, 0.2))), (0.26 * brain.radii[0], 0.23 * brain.radii[1]))
    canvas.paint(canvas.patch(cistern, soft=0.005), tissue.fluid, 0.9)
    canvas.paint(canvas.patch(stem, soft=0.004), tissue.white)
    fourth = ellipse(tuple(brain((0, 0.4))), (0.07 * brain.radii[0], 0.045 * brain.radii[1]))
    canvas.paint(canvas.patch(fourth, soft=0.003), tissue.fluid)


def _ventricles(canvas: Canvas, rng: np.random.Generator, brain: Frame, tissue: Contrast) -> None:
    swell = rng.uniform(0.95, 1.45)
    length = rng.uniform(0.9, 1.1)
    for name, sign in (("right lateral ventricle", -1), ("left lateral ventricle", 1)):
        if rng.random() < 0.06:
            continue  # compressed
        points = np.array(VENTRICLE) * (sign * swell * rng.uniform(0.92, 1.08), length)
        horn = canvas.paint(canvas.patch(organ(rng, brain, points, 0.01)), tissue.fluid)
        canvas.add_object(name, horn, inside=("skull", "brain"))
        plexus = blob(rng, tuple(brain(points[6] * 0.9)), (0.012, 0.02), rough=0.2)
        canvas.paint(canvas.patch(plexus, soft=0.003, within=canvas.full(horn)), tissue.rim * 0.8)


def _tumor(canvas: Canvas, rng: np.random.Generator, brain: Frame, tissue: Contrast, low: bool) -> None:
    if rng.random() < 0.4:
        return
    radius = rng.uniform(0.045, 0.095)
    area = canvas.unoccupied(canvas.mask("brain"), *LABELS[2:])
    spot = canvas.find_spot(rng, area, radius) or canvas.find_spot(rng, area, 0.05)
    if spot is None:
        return
    within = canvas.mask("brain").astype(np.float32)
    if rng.random() < 0.85:
        spread = radius * rng.uniform(1.5, 1.9)
        edema = canvas.patch(
            blob(rng, spot, (spread, spread * rng.uniform(0.8, 1)), rng.uniform(0, 3), 0.13),
            soft=0.006,
            within=within,
        )
        canvas.paint(edema, tissue.edema + 0.02 * canvas.field(0.03))
        canvas.add_object("edema", edema, inside=("skull", "brain"))
    outline = blob(rng, spot, (radius, radius * rng.uniform(0.75, 1)), rng.uniform(0, 3), 0.09)
    tumor = canvas.patch(outline, soft=0.004, within=within)
    if rng.random() < 0.65:  # rim around a necrotic core
        canvas.paint(tumor, tissue.rim + 0.03 * canvas.field(0.02))
        canvas.paint(
            canvas.patch((outline - spot) * rng.uniform(0.6, 0.78) + spot, soft=0.006, within=within),
            tissue.core,
        )
    else:
        canvas.paint(tumor, tissue.tumor + 0.05 * canvas.field(0.02))
    canvas.add_object("tumor", tumor, inside=("skull", "brain"))


def _acquire(canvas: Canvas, rng: np.random.Generator) -> None:
    """Coil shading, Rician noise and display window."""
    canvas.pixels *= 1 + rng.uniform(0.03, 0.12) * canvas.field(0.6)
    sigma = rng.uniform(0.01, 0.04)
    canvas.pixels = np.sqrt(
        (canvas.pixels + sigma * canvas.white_noise()) ** 2 + (sigma * canvas.white_noise()) ** 2
    )
    canvas.pixels = np.clip(canvas.pixels, 0, None) ** rng.uniform(0.85, 1.2) * rng.uniform(0.85, 1.1)
