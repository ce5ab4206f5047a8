"""Outlines: frames, ellipses, curves and bands have the sizes that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from bird_hf.data.phantoms.outlines import Frame, blob, ellipse, organ, polar, rectangle, through, tube


def area(outline: np.ndarray) -> float:
    x, y = outline.T
    return abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def test_a_frame_and_its_inverse_agree():
    frame = Frame((0.4, 0.6), (0.2, 0.1), 0.7)
    points = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    image = frame(points)
    np.testing.assert_allclose(np.stack(frame.local(*image.T), -1), points, atol=1e-12)
    assert frame((0, 0)).tolist() == [0.4, 0.6]
    np.testing.assert_allclose(frame((1, 0)), polar((0.4, 0.6), 0.2, 0.7))


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_areas(angle):
    center, radii = (0.5, 0.5), (0.3, 0.1)
    assert area(ellipse(center, radii, angle, count=256)) == pytest.approx(np.pi * 0.03, rel=1e-3)
    assert area(rectangle(center, radii, angle)) == pytest.approx(4 * 0.03)
    nearly_square = area(ellipse(center, radii, angle, power=20, count=256))
    assert np.pi * 0.03 < nearly_square < 4 * 0.03


def test_a_blob_varies_around_its_ellipse():
    rng = np.random.default_rng(0)
    radii = [np.hypot(*(blob(rng, (0.5, 0.5), (0.1, 0.1), rough=0.08) - 0.5).T) for _ in range(50)]
    assert np.mean(radii) == pytest.approx(0.1, rel=0.02)
    assert 0.005 < np.std(radii) < 0.02
    assert len({tuple(radius) for radius in radii}) == 50


def test_a_curve_goes_through_its_points():
    points = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
    closed, opened = through(points, steps=5), through(points, closed=False, steps=5)
    np.testing.assert_allclose(closed[::5], points)
    np.testing.assert_allclose(opened[::5], points)
    assert (len(closed), len(opened)) == (20, 16)


def test_an_organ_without_jitter_is_a_curve_through_its_landmarks():
    frame = Frame((0.5, 0.5), (0.2, 0.1))
    landmarks = [(-1.0, 0.0), (0.0, -1.0), (1.0, 0.0), (0.0, 1.0)]
    np.testing.assert_allclose(organ(np.random.default_rng(0), frame, landmarks, 0.0)[::7], frame(landmarks))


def test_a_band_has_the_width_that_was_asked_for():
    path = np.stack([np.linspace(0, 1, 11), np.zeros(11)], -1)
    band = tube(path, 0.2)
    assert area(band) == pytest.approx(0.2)
    assert np.abs(band[:, 1]).tolist() == pytest.approx([0.1] * 22)
    assert area(tube(path, (0.2, 0.0))) == pytest.approx(0.1)
