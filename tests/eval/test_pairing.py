"""Boxes paired one to one, under names, by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from bird_hf.eval.outcomes import MAX_BOXES, Outcome
from bird_hf.eval.pairing import pair
from bird_hf.eval.recall import Recall
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span, write

LEFT, RIGHT = Box(0.0, 0.0, 0.4, 0.4), Box(0.6, 0.0, 1.0, 0.4)
WHOLE = Box(0, 0, 1, 1)
ABSENT = "There is no liver in this image."


def tagged(boxes, phrase=""):
    """A text with boxes, under a phrase if one is given; without boxes it says that there is nothing."""
    return write(phrase, [Span(phrase, 0, len(phrase), tuple(boxes))]) if boxes else ABSENT


def strict_grounding_recall(reference, predicted):
    return pair(tagged(reference), tagged(predicted)).recall


NEAR = Box(0, 0, 0.41, 0.4)  # overlaps LEFT by more than one half


@pytest.mark.parametrize(
    ("reference", "predicted", "expected"),
    [
        ([LEFT], [LEFT], Recall(1, 1)),
        ([LEFT], [], Recall(0, 1)),
        ([], [], Recall(1, 1)),  # nothing to find, and nothing boxed
        ([], [LEFT, RIGHT], Recall(0, 2)),
        ([LEFT], [RIGHT], Recall(0, 2)),  # missed, and a false box
        ([LEFT, NEAR], [LEFT], Recall(1, 2)),  # one prediction serves one reference
        ([LEFT], [LEFT, NEAR], Recall(1, 2)),
        ([LEFT, NEAR], [NEAR, LEFT], Recall(2, 2)),
        # The middle box fits both: it must go to the reference that has no other.
        ([Box(0, 0, 0.5, 1), Box(0.2, 0, 0.7, 1)], [Box(0.1, 0, 0.6, 1), Box(0.3, 0, 0.8, 1)], Recall(2, 2)),
        ([WHOLE], [Box(0, 0, 0.5, 1)], Recall(0, 2)),  # IoU of exactly one half
    ],
)
def test_strict_grounding_recall(reference, predicted, expected):
    assert strict_grounding_recall(reference, predicted) == expected
    assert strict_grounding_recall(reference[::-1], predicted[::-1]) == expected


def test_the_largest_number_of_pairs_is_found():
    """Compared with all assignments, for random boxes on a coarse grid, many of which overlap."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        corners = np.sort(rng.integers(0, 6, (8, 2, 2)), axis=2)
        boxes = [Box(x1 / 10, y1 / 10, (x2 + 1) / 10, (y2 + 1) / 10) for (x1, x2), (y1, y2) in corners]
        reference, predicted = boxes[:4], boxes[4:]
        best = max(
            sum(first.iou(second) > 0.5 for first, second in zip(reference, order, strict=True))
            for order in permutations(predicted)
        )
        assert strict_grounding_recall(reference, predicted) == Recall(best, 8 - best)


A, B = Box(0.0, 0.0, 0.2, 0.2), Box(0.5, 0.5, 0.9, 0.9)


@pytest.mark.parametrize(
    ("reference", "response", "recall", "named", "judged"),
    [
        # reference, response, strict recall, boxes with the right phrase, boxes with a phrase
        (tagged([A], "liver"), tagged([A], "liver"), (1, 1), 1, 1),
        (tagged([A], "liver"), tagged([A], "the Liver"), (1, 1), 1, 1),
        (tagged([A], "liver"), tagged([A], "spleen"), (0, 2), 0, 1),  # in the right place under a wrong name
        (tagged([A], "left kidney"), tagged([A], "right kidney"), (0, 2), 0, 1),
        (tagged([A], "liver"), tagged([A]), (1, 1), 0, 0),  # a box without a phrase has no wrong name
        (tagged([A], "liver"), tagged([A], "it"), (1, 1), 0, 0),
        (tagged([A]), tagged([A], "liver"), (1, 1), 0, 0),  # the reference does not say the name
        # Two names: a box counts for its own name only.
        (
            tagged([A], "liver") + tagged([B], "spleen"),
            tagged([A], "liver") + tagged([B], "spleen"),
            (2, 2),
            2,
            2,
        ),
        (
            tagged([A], "liver") + tagged([B], "spleen"),
            tagged([B], "liver") + tagged([A], "spleen"),
            (0, 4),
            2,
            2,
        ),
        # Unreadable answers are never right, and their boxes are charged.
        (tagged([A], "liver"), "", (0, 1), 0, 0),
        (tagged([A], "liver"), tagged([A], "liver") + "<box>(1,2)</box>", (0, 2), 0, 0),
        (tagged([A], "liver"), "[[0, 0, 200, 200]]", (0, 1), 0, 0),
        (ABSENT, ABSENT, (1, 1), 0, 0),
        (ABSENT, "", (0, 1), 0, 0),  # silence is no statement
        (ABSENT, "I cannot help with that.", (0, 1), 0, 0),
        (ABSENT, tagged([A, B], "liver"), (0, 2), 0, 0),
    ],
)
def test_names_and_outcomes(reference, response, recall, named, judged):
    found = pair(reference, response)
    assert (found.recall, found.named, found.judged) == (Recall(*recall), named, judged)


def test_a_label_of_the_row_names_a_box_without_a_phrase():
    labels = [("liver", A)]
    assert pair(tagged([A]), tagged([A], "spleen"), labels).recall == Recall(0, 2)
    assert pair(tagged([A]), tagged([A], "liver"), labels).names == ("liver",)


def test_ious_and_thresholds_by_hand():
    """Half of A is covered (IoU 0.5), and B by 0.8 of its width (IoU 0.8); the third reference has no partner."""
    half, most = Box(0.0, 0.0, 0.1, 0.2), Box(0.5, 0.5, 0.82, 0.9)
    found = pair(tagged([A, B, RIGHT]), tagged([most, half]))
    assert found.ious == pytest.approx([0.5, 0.8, 0.0])
    assert found.found.tolist() == [[True, False, False], [True, True, True], [False, False, False]]
    assert (found.hits, found.false_boxes, found.outcome) == (1, 1, Outcome.ANSWERED)


def test_a_reference_beyond_all_bounds_is_refused():
    with pytest.raises(ValueError, match="1,001 boxes; the limit is 1,000"):
        pair("<box>(1,2),(3,4)</box>" * (MAX_BOXES + 1), "")
