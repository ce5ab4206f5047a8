"""Words for size and position: near a border they are not trained on, and answers are checked against the box."""

from __future__ import annotations

import numpy as np
import pytest

from bird_hf.data.records import Axis
from bird_hf.data.teachers.positions import describes, is_borderline, place_of, shows_sides
from bird_hf.hub.boxes import Box


def at(x: float, y: float) -> Box:
    return Box(x - 0.05, y - 0.05, x + 0.05, y + 0.05)


class TestPlace:
    @pytest.mark.parametrize(
        ("axis", "x", "y", "words"),
        [
            (Axis.AXIAL, 0.2, 0.5, "on the patient's right"),  # the picture's left
            (Axis.AXIAL, 0.8, 0.5, "on the patient's left"),
            (Axis.AXIAL, 0.5, 0.2, "anterior"),
            (Axis.AXIAL, 0.5, 0.8, "posterior"),
            (Axis.AXIAL, 0.2, 0.8, "posterior and on the patient's right"),
            (Axis.AXIAL, 0.5, 0.5, "in the middle"),
            (Axis.CORONAL, 0.2, 0.5, "on the patient's right"),
            (Axis.CORONAL, 0.8, 0.2, "superior and on the patient's left"),
            (Axis.CORONAL, 0.5, 0.8, "inferior"),
            (Axis.SAGITTAL, 0.2, 0.5, "anterior"),  # never a side: a sagittal slice shows none
            (Axis.SAGITTAL, 0.8, 0.5, "posterior"),
            (Axis.SAGITTAL, 0.8, 0.2, "superior and posterior"),
            (Axis.SAGITTAL, 0.2, 0.8, "inferior and anterior"),
        ],
    )
    def test_a_slice_has_the_patients_directions(self, axis, x, y, words):
        assert place_of(at(x, y), axis) == words

    @pytest.mark.parametrize("hour", range(1, 13))
    def test_another_picture_is_a_clock(self, hour):
        angle = np.radians(30 * hour)
        for off in (-0.2, 0.0, 0.2):  # within a quarter of an hour of 30 degrees
            x, y = 0.5 + 0.3 * np.sin(angle + off), 0.5 - 0.3 * np.cos(angle + off)
            assert place_of(at(x, y), Axis.PLANAR) == f"toward {hour} o'clock"

    def test_the_middle_of_the_clock(self):
        assert place_of(at(0.55, 0.45), Axis.PLANAR) == "in the centre"


@pytest.mark.parametrize(
    ("answer", "axis", "right"),
    [
        ("A small liver, anterior and on the patient's right.", Axis.AXIAL, {"size", "side", "direction"}),
        ("A tiny liver, anterior and on the patient's right.", Axis.AXIAL, {"side", "direction"}),
        ("A small liver, anterior and on the patient's left.", Axis.AXIAL, {"size", "direction"}),
        ("A small liver, posterior and on the patient's right.", Axis.AXIAL, {"size", "side"}),
        ("A small liver, anterior.", Axis.AXIAL, {"size", "direction"}),  # the side is missing
        ("There is no liver in this image.", Axis.AXIAL, set()),
        ("A small liver, superior and on the patient's right.", Axis.CORONAL, {"size", "side", "direction"}),
        ("A small liver, superior and anterior.", Axis.SAGITTAL, {"size", "direction"}),
        ("A SMALL liver, toward 11 o'clock.", Axis.PLANAR, {"size", "clock"}),
        ("A small liver, toward 1 o'clock.", Axis.PLANAR, {"size"}),
        ("A small liver, in the centre.", Axis.PLANAR, {"size"}),
        ("A medium-sized liver.", Axis.PLANAR, set()),
    ],
)
def test_words_of_an_answer(answer, axis, right):
    found = describes(answer, at(0.3, 0.2), 0.02, axis)
    assert {kind for kind, is_right in found.items() if is_right} == right


@pytest.mark.parametrize(
    ("axis", "kinds"),
    [
        (Axis.AXIAL, {"size", "side", "direction"}),
        (Axis.SAGITTAL, {"size", "direction"}),
        (Axis.PLANAR, {"size", "clock"}),
    ],
)
def test_kinds_that_do_not_apply_are_left_out(axis, kinds):
    assert set(describes("", at(0.3, 0.2), 0.02, axis)) == kinds
    assert ("side" in kinds) == shows_sides(axis)


@pytest.mark.parametrize("area", [0.005, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("axis", Axis)
def test_a_written_description_is_right(area, axis):
    for box in (at(0.2, 0.3), at(0.5, 0.5), at(0.7, 0.4), at(0.52, 0.9)):
        size = {0.005: "tiny", 0.02: "small", 0.1: "medium-sized", 0.5: "large"}[area]
        answer = f"A {size} liver, {place_of(box, axis)}."
        assert all(describes(answer, box, area, axis).values())


@pytest.mark.parametrize(
    ("x", "y", "area", "axis", "borderline"),
    [
        (0.2, 0.2, 0.02, Axis.AXIAL, False),
        (0.2, 0.2, 0.0105, Axis.AXIAL, True),  # tiny or small
        (0.2, 0.2, 0.0095, Axis.AXIAL, True),
        (0.2, 0.2, 0.16, Axis.AXIAL, True),  # medium-sized or large
        (0.58, 0.2, 0.02, Axis.AXIAL, True),  # in the middle or on the left
        (0.2, 0.43, 0.02, Axis.CORONAL, True),
        (0.5, 0.2, 0.02, Axis.PLANAR, False),  # 12 o'clock
        (0.578, 0.2, 0.02, Axis.PLANAR, True),  # half past twelve
        (0.5, 0.35, 0.02, Axis.PLANAR, True),  # centre or 12 o'clock
        (0.5, 0.5, 0.02, Axis.PLANAR, False),
    ],
)
def test_borderline_objects(x, y, area, axis, borderline):
    assert is_borderline(at(x, y), area, axis) is borderline
