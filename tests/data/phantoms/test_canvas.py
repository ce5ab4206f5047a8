"""The canvas: coverage of outlines, painting, and which pixels of an object are visible."""

from __future__ import annotations

import numpy as np
import pytest

from bird_hf.data.phantoms.canvas import NOISE_SAMPLES, Canvas, ramp, soften
from bird_hf.data.phantoms.outlines import ellipse, rectangle


@pytest.fixture
def canvas() -> Canvas:
    return Canvas(100, 2.0, 0.25, np.random.default_rng(0))


def square(center: tuple[float, float], half: float) -> np.ndarray:
    return rectangle(center, (half, half))


def test_the_longer_side_has_the_given_number_of_pixels(canvas):
    assert canvas.pixels.shape == canvas.shape == (50, 100)
    assert Canvas(100, 0.5, (0.1, 0.2, 0.3), np.random.default_rng(0)).pixels.shape == (100, 50, 3)
    assert (canvas.width, canvas.height) == (1.0, 0.5)


class TestPatch:
    def test_it_covers_the_area_of_its_outline(self, canvas):
        patch = canvas.patch(ellipse((0.5, 0.25), (0.3, 0.15)))
        assert patch.alpha.sum() == pytest.approx(np.pi * 30 * 15, rel=0.01)
        assert canvas.full(patch)[25, 50] == pytest.approx(1)
        assert canvas.full(patch)[2, 2] == 0

    def test_it_is_held_inside_a_map(self, canvas):
        within = np.zeros(canvas.shape, np.float32)
        within[:, :50] = 0.5
        full = canvas.full(canvas.patch(square((0.5, 0.25), 0.2), within=within))
        assert full[25, 40] == pytest.approx(0.5)
        assert full[:, 50:].max() == 0

    def test_outlines_of_either_orientation_are_filled(self, canvas):
        outline = square((0.3, 0.25), 0.1)
        both = canvas.full(canvas.patch(outline, square((0.7, 0.25), 0.1)[::-1]))
        assert both[25, 30] == pytest.approx(1) and both[25, 70] == pytest.approx(1)

    def test_it_is_empty_outside_the_canvas(self, canvas):
        patch = canvas.patch(square((3.0, 3.0), 0.1))
        assert patch.empty and canvas.full(patch).max() == 0
        assert not canvas.patch(square((0.5, 0.25), 0.1)).empty


class TestPainting:
    def test_paint_add_and_scale(self, canvas):
        patch = canvas.patch(square((0.5, 0.25), 0.1))
        for change, expected in (
            (lambda: canvas.paint(patch, 0.5, opacity=0.5), 0.375),
            (lambda: canvas.add(patch, 0.125), 0.5),
            (lambda: canvas.scale(patch, 2.0), 1.0),
        ):
            change()
            assert canvas.pixels[25, 50] == pytest.approx(expected)
            assert canvas.pixels[25, 10] == pytest.approx(0.25)

    def test_values_of_the_whole_canvas_are_painted_in_place(self, canvas):
        tone = np.arange(5000, dtype=np.float32).reshape(50, 100) / 5000
        canvas.paint(canvas.patch(square((0.5, 0.25), 0.1)), tone)
        assert canvas.pixels[25, 50] == pytest.approx(tone[25, 50], abs=1e-5)

    def test_pixels_are_rounded_and_clipped(self, canvas):
        canvas.pixels[0, :3] = -1, 0.5, 2
        assert canvas.to_uint8()[0, :3].tolist() == [0, 128, 255]


class TestObjects:
    def test_an_object_hides_what_it_covers_unless_it_is_inside(self, canvas):
        large, small = (canvas.patch(square((0.5, 0.25), half)) for half in (0.2, 0.1))
        canvas.add_object("skin", large)
        canvas.add_object("body", large, inside=("skin",))
        canvas.add_object("organ", small, inside=("body",))
        visible = dict(canvas.objects())
        assert list(visible) == ["skin", "body", "organ"]
        assert not visible["skin"][25, 50] and visible["body"][25, 50] and visible["organ"][25, 50]
        assert visible["skin"][25, 35]

    def test_hidden_objects_are_not_listed(self, canvas):
        patch = canvas.patch(square((0.5, 0.25), 0.1))
        canvas.add_object("below", patch)
        canvas.add_object("above", patch)
        assert [label for label, _ in canvas.objects()] == ["above"]

    def test_small_fragments_are_removed(self, canvas):
        pieces = [canvas.patch(square((x, 0.25), half)) for x, half in ((0.2, 0.1), (0.5, 0.02), (0.8, 0.06))]
        canvas.add_object("tumor", *pieces)
        ((_, mask),) = canvas.objects()
        assert mask[25, 20] and mask[25, 80] and not mask[25, 50]

    def test_objects_end_at_the_field_of_view(self, canvas):
        canvas.add_object("body", canvas.patch(square((0.5, 0.25), 0.2)))
        view = np.zeros(canvas.shape, bool)
        view[:, :50] = True
        canvas.crop(view)
        assert not canvas.mask("body")[:, 50:].any() and canvas.mask("body")[25, 40]

    def test_unoccupied_pixels_and_a_spot_in_them(self, canvas):
        canvas.add_object("a", canvas.patch(square((0.25, 0.25), 0.2)))
        canvas.add_object("b", canvas.patch(square((0.75, 0.25), 0.2)))
        everywhere = np.ones(canvas.shape, bool)
        free = canvas.unoccupied(everywhere, "a")
        assert not free[25, 25] and free[25, 75]
        assert not canvas.unoccupied(everywhere)[25, 75]
        spots = [canvas.find_spot(np.random.default_rng(seed), free, 0.1) for seed in range(20)]
        for x, y in filter(None, spots):
            assert x > 0.5 and 0.1 <= y <= 0.4
        assert any(spots)
        assert canvas.find_spot(np.random.default_rng(0), free, 0.4) is None
        assert canvas.find_spot(np.random.default_rng(0), ~everywhere, 0.0) is None


@pytest.mark.parametrize("side", [50, 400])  # drawn, and taken from the shared samples
def test_noise_has_mean_0_and_deviation_1(side):
    canvas = Canvas(side, 1.0, 0.0, np.random.default_rng(0))
    assert (side**2 > NOISE_SAMPLES // 64) == (side == 400)
    for noise in (canvas.white_noise(), canvas.field(0.02)):
        assert noise.shape == canvas.shape
        assert abs(noise.mean()) < 0.1 and 0.8 < noise.std() < 1.2
    assert not np.array_equal(canvas.white_noise(), canvas.white_noise())


def test_a_field_is_smooth_and_stretched():
    canvas = Canvas(200, 1.0, 0.0, np.random.default_rng(0))
    field = canvas.field(0.1, stretch=4.0)
    down, across = (np.abs(np.diff(field, axis=axis)).mean() for axis in (0, 1))
    assert across < down / 2 < 0.1


@pytest.mark.parametrize("sigma", [1.0, 5.0])  # a Gaussian, and box blurs
def test_blur_keeps_the_sum_and_has_its_width(sigma):
    dot = np.zeros((61, 61), np.float32)
    dot[30, 30] = 1
    blurred = soften(dot, sigma)
    assert blurred.sum() == pytest.approx(1, abs=1e-3)
    variance = (blurred.sum(0) * (np.arange(61) - 30) ** 2).sum()
    assert np.sqrt(variance) == pytest.approx(sigma, rel=0.15)


def test_a_ramp_rises_from_0_to_1():
    values = ramp(np.array([-3.0, -1.0, 0.0, 1.0, 3.0]), 1.0)
    assert values.tolist() == [0, 0, 0.5, 1, 1]
