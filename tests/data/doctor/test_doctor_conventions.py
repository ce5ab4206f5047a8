"""The doctor's verdicts on sets of boxes whose convention is known: right, or "cannot tell", and never wrong."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bird_hf.data.doctor.conventions import Convention, FarCorner, Frame, Order, Origin, Scale
from bird_hf.data.doctor.diagnosis import DIMENSIONS, Diagnosis, diagnose
from bird_hf.dialects.families.qwen2_5_vl import smart_resize

from .synthetic_boxes import BoxSet, random_set, resized

VARIED = [(512, 384), (400, 600), (640, 480), (300, 300), (777, 1013)]
ONE = [(512, 384)]
SQUARE = [(512, 512)]
THOUSAND = [(1000, 1000)]
SMALL = [(64, 48), (50, 90)]
OUT, IN = FarCorner.OUT, FarCorner.IN
LOWER = Origin.LOWER
ALL = frozenset(DIMENSIONS)


def examined(boxes: BoxSet, with_masks: bool) -> Diagnosis:
    masks = boxes.masks if with_masks else None
    return diagnose("boxes", boxes.numbers, boxes.wh, lambda number: f"row {number}", masks)


def holds_truth(diagnosis: Diagnosis, truth: Convention, boxes: BoxSet) -> bool:
    """Whether the true convention is among those that are possible."""
    parts, possible = truth.parts, diagnosis.possible
    if all(width == height for width, height in boxes.sizes):
        parts["frame"] = Frame.PICTURE.value  # all frames are one
    scales = possible["scale"]
    if truth.scale is Scale.RESIZED:
        if not any(each.startswith("pixels of a picture") for each in scales):
            return False
    elif parts["scale"] not in scales:
        return False
    return all(parts[name] in possible[name] for name in DIMENSIONS if name != "scale")


def decided(diagnosis: Diagnosis) -> set[str]:
    return {name for name, values in diagnosis.possible.items() if len(values) == 1}


# convention, decimal places (None: all), sizes, what the numbers alone decide, what they decide with masks
CASES = [
    # --- the scale is decided by the numbers, the rest by masks
    (Convention(Scale.UNIT, Order.X_FIRST), None, VARIED, {"scale"}, ALL),
    (Convention(Scale.UNIT, Order.X_FIRST, far_corner=IN), None, VARIED, {"scale"}, ALL),
    (Convention(Scale.UNIT, Order.X_FIRST), 2, ONE, {"scale"}, {"scale", "order", "origin", "frame"}),  # RadVLM
    (Convention(Scale.UNIT, Order.X_FIRST, LOWER), 3, VARIED, {"scale"}, {"scale", "order", "origin"}),  # MedVision
    (Convention(Scale.UNIT, Order.CENTRE), 6, VARIED, {"scale", "order"}, ALL),  # YOLO
    (Convention(Scale.PERCENT, Order.SIZE), 4, VARIED, {"order"}, ALL),  # Label Studio
    # --- whole numbers on a grid
    (Convention(Scale.THOUSANDTHS, Order.X_FIRST), 0, VARIED, {"scale"}, {"scale", "order", "origin", "frame"}),
    (Convention(Scale.THOUSANDTHS, Order.Y_FIRST), 0, VARIED, {"scale"}, {"scale", "order", "origin", "frame"}),
    (Convention(Scale.THOUSANDTHS, Order.X_FIRST), 0, SQUARE, {"scale", "frame"}, {"scale", "order", "origin"}),
    (Convention(Scale.BINS_1024, Order.Y_FIRST), 0, VARIED, set(), {"scale", "order", "origin"}),  # PaliGemma
    # --- padded and cropped pictures
    (Convention(Scale.THOUSANDTHS, Order.Y_FIRST, frame=Frame.PADDED), 0, VARIED, set(), {"order", "origin", "frame"}),
    (Convention(Scale.UNIT, Order.X_FIRST, frame=Frame.PADDED), 3, VARIED, {"scale"}, {"scale", "order", "frame"}),
    (Convention(Scale.UNIT, Order.X_FIRST, frame=Frame.CROPPED), None, VARIED, {"scale"}, ALL),
    # --- pixels
    (Convention(Scale.PIXELS, Order.X_FIRST), 0, VARIED, {"scale", "order", "far corner", "frame"}, ALL),
    (Convention(Scale.PIXELS, Order.X_FIRST, far_corner=IN), 0, VARIED, {"frame"}, ALL),
    (Convention(Scale.PIXELS, Order.SIZE), 0, VARIED, {"scale", "order", "frame"}, ALL),  # COCO
    (Convention(Scale.PIXELS, Order.SIZE, far_corner=IN), 0, VARIED, {"order", "frame"}, ALL),
    (Convention(Scale.PIXELS, Order.Y_FIRST), 0, VARIED, {"scale", "order", "frame"}, ALL),
    (Convention(Scale.PIXELS, Order.CENTRE), 1, VARIED, {"scale", "order", "frame"}, ALL),
    (Convention(Scale.PIXELS, Order.X_FIRST, LOWER), 0, VARIED, {"scale", "order", "frame"}, ALL),
    (Convention(Scale.PIXELS, Order.X_FIRST), 0, SMALL, {"order", "frame"}, ALL),
    # --- pixels of pictures of 1000x1000 are thousandths: no mask can tell them apart
    (Convention(Scale.PIXELS, Order.X_FIRST), 0, THOUSAND, {"frame"}, {"order", "origin", "frame"}),
    # --- pixels of a resized picture: only masks tell its size
    (Convention(Scale.QWEN, Order.X_FIRST), 0, VARIED, set(), {"scale", "order", "origin", "frame"}),
    (resized((448, 448)), 0, VARIED, set(), {"scale", "order", "origin", "frame"}),
    (resized((336, 512), origin=LOWER), 0, VARIED, set(), {"scale", "order", "origin", "frame"}),
    (resized(longer=1536), 0, VARIED, set(), {"scale", "order", "origin", "frame"}),
    (resized((448, 448)), 0, ONE, set(), {"scale", "order", "origin", "frame"}),
]  # fmt: skip


@pytest.mark.parametrize(("truth", "decimals", "sizes", "by_numbers", "by_masks"), CASES)
def test_a_verdict_is_right_or_cannot_tell(truth, decimals, sizes, by_numbers, by_masks):
    boxes = random_set(truth, seed=7, count=150, sizes=sizes, decimals=decimals)
    for with_masks, expected in ((False, by_numbers), (True, by_masks)):
        diagnosis = examined(boxes, with_masks)
        assert holds_truth(diagnosis, truth, boxes), diagnosis.possible
        assert expected <= decided(diagnosis), (with_masks, diagnosis.possible)


def test_resized_pictures_have_the_size_that_masks_give():
    boxes = random_set(resized((448, 448)), seed=1, count=60, sizes=VARIED, decimals=0)
    assert examined(boxes, True).possible["scale"] == ["pixels of a picture resized to 448x448"]
    boxes = random_set(resized(longer=1536), seed=1, count=60, sizes=VARIED, decimals=0)
    assert examined(boxes, True).possible["scale"] == ["pixels of a picture resized to a longer side of 1536"]


CONVENTIONS = [
    *(
        Convention(*parts)
        for parts in product([each for each in Scale if each is not Scale.RESIZED], Order, Origin, FarCorner)
    ),
    *(
        Convention(scale, order, origin, OUT, frame)
        for scale, order, origin, frame in product(
            (Scale.UNIT, Scale.THOUSANDTHS, Scale.BINS_1024),
            (Order.X_FIRST, Order.Y_FIRST),
            Origin,
            (Frame.PADDED, Frame.CROPPED),
        )
    ),
    *(
        resized(wh, order=order, origin=origin)
        for wh, order, origin in product([(448, 448), (1500, 800)], Order, Origin)
    ),
    *(resized(longer=side, order=order) for side, order in product([700, 1008], Order)),
]


def _decimals(truth: Convention) -> st.SearchStrategy[int | None]:
    """Decimal places in which a convention is found: those that leave its far corner what it is."""
    if truth.scale in (Scale.UNIT, Scale.PERCENT):
        return st.sampled_from([None, 2, 3, 5, 6])
    if truth.far_corner is IN or truth.scale is Scale.QWEN:
        return st.just(1 if truth.order is Order.CENTRE and truth.scale is Scale.PIXELS else 0)
    return st.sampled_from([None, 0, 1, 2] if truth.scale is Scale.PIXELS else [0, 2])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_true_convention_is_never_excluded(data):
    truth = data.draw(st.sampled_from(CONVENTIONS))
    side = st.integers(40, 2200)
    sizes = data.draw(st.lists(st.tuples(side, side), min_size=1, max_size=6))
    if truth.scale is Scale.QWEN and all(smart_resize(each, 28, 3136, 1003520) == each for each in sizes):
        return  # nothing is resized
    count = data.draw(st.sampled_from([1, 2, 3, 4, 9, 12, 50]))
    boxes = random_set(truth, data.draw(st.integers(0, 10**6)), count, sizes, data.draw(_decimals(truth)))
    if len(boxes.numbers):
        for with_masks in (False, True):
            diagnosis = examined(boxes, with_masks)
            assert holds_truth(diagnosis, truth, boxes), (with_masks, diagnosis.possible)


@pytest.mark.parametrize("loose_px", [1, 3, 6])
@pytest.mark.parametrize("scale", [Scale.PIXELS, Scale.THOUSANDTHS, Scale.UNIT])
def test_boxes_that_are_drawn_by_hand_around_masks_keep_their_convention(scale, loose_px):
    truth = Convention(scale, Order.X_FIRST)
    boxes = random_set(
        truth, seed=3, count=80, sizes=[(1010, 1000), (1024, 900), (990, 1024)], smallest_px=40
    )
    random = np.random.default_rng(0)
    masks = boxes.masks
    moved = masks.candidates + random.integers(-loose_px, loose_px + 1, masks.candidates.shape)
    loose = type(masks)(masks.places, masks.numbers, masks.pictures, moved, masks.slack_px, masks.step)
    diagnosis = diagnose("boxes", boxes.numbers, boxes.wh, str, loose)
    assert holds_truth(diagnosis, truth, boxes), diagnosis.possible
    assert {"order", "origin"} <= decided(diagnosis)


def test_a_few_faulty_boxes_do_not_change_a_verdict():
    truth = Convention(Scale.PIXELS, Order.X_FIRST)
    boxes = random_set(truth, seed=5, count=400, sizes=VARIED)
    boxes.numbers[[10, 20]] = [[5000, 0, 5001, 3], [30, 40, 20, 10]]
    for with_masks in (False, True):
        diagnosis = examined(boxes, with_masks)
        assert holds_truth(diagnosis, truth, boxes)
        line = next(each for each in diagnosis.lines if each.hypothesis == Scale.PIXELS)
        assert line.against == 2 and not line.excluded and line.first.startswith("row 10: 5000, 0, 5001, 3: ")


def test_two_conventions_in_one_file_fit_none():
    one = random_set(Convention(Scale.UNIT, Order.X_FIRST), seed=1, count=40, sizes=VARIED)
    other = random_set(Convention(Scale.PIXELS, Order.X_FIRST), seed=2, count=40, sizes=VARIED, decimals=0)
    mixed = BoxSet(
        [*one.pixels, *other.pixels], [*one.sizes, *other.sizes], np.vstack([one.numbers, other.numbers])
    )
    diagnosis = examined(mixed, True)
    assert "unit, 0 to 1" not in diagnosis.possible["scale"]
    assert Scale.PIXELS.value not in diagnosis.possible["scale"]


def test_fractions_and_corners_in_pixels_are_not_taken_for_corner_and_size():
    pixels, fractions = (200, 90, 500, 330), (0.25, 0.15, 0.625, 0.55)
    sizes = np.tile((800.0, 600.0), (120, 1))
    found = diagnose("bbox", np.array([pixels, fractions] * 60), sizes, str)
    assert found.possible["order"] == []


def test_without_sizes_of_pictures_pixels_stay_possible_and_the_sizes_are_asked_for():
    boxes = random_set(
        Convention(Scale.PIXELS, Order.X_FIRST), seed=1, count=60, sizes=[(700, 600)], decimals=0
    )
    diagnosis = diagnose("boxes", boxes.numbers, np.full((60, 2), np.nan), str)
    assert Scale.PIXELS.value in diagnosis.possible["scale"]
    assert "--images" in next(each for each in diagnosis.verdict if each.startswith("scale: cannot tell"))


def test_a_verdict_names_what_would_decide_and_json_holds_the_evidence():
    boxes = random_set(Convention(Scale.UNIT, Order.X_FIRST), seed=1, count=60, sizes=ONE)
    diagnosis = examined(boxes, False)
    assert diagnosis.verdict[0] == "scale: unit, 0 to 1"
    assert diagnosis.verdict[2] == (
        "origin: cannot tell between upper left and lower left. "
        "What would decide: masks, or one box drawn on its picture"
    )
    document = diagnosis.as_json()
    assert document["decided"]["scale"] == "unit, 0 to 1"
    assert document["would_decide"]["origin"].startswith("masks")
    assert {line["dimension"] for line in document["evidence"]} == {*DIMENSIONS}


@pytest.mark.parametrize("shape", [(0, 4), (3, 5), (4,)])
def test_arrays_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="do not fit"):
        diagnose("boxes", np.zeros(shape), np.zeros((3, 2)), str)
