"""The strict VG measures on five answers, each number by hand."""

from __future__ import annotations

import pytest

from bird_hf.eval.grounding_scores import Grounded, grounding_scores, size_of
from bird_hf.eval.pairing import pair
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span, write

LEFT, RIGHT = Box(0.6, 0.2, 0.8, 0.4), Box(0.2, 0.2, 0.4, 0.4)  # kidneys: the patient's left is on the right
PART = Box(0.6, 0.2, 0.76, 0.4)  # 0.8 of LEFT
ABSENT = "There is no liver in this image."
KIDNEYS = (("left kidney", LEFT), ("right kidney", RIGHT))


def tagged(phrase, *boxes):
    return write(phrase, [Span(phrase, 0, len(phrase), boxes)])


ASKED = tagged("left kidney", LEFT)


def answer(reference, response, case, labels=("left kidney",), others=None, modality="ct"):
    return Grounded(pair(reference, response), modality, case, labels, others)


ANSWERS = [
    answer(ASKED, tagged("left kidney", PART), "a", others=KIDNEYS),  # found, IoU 0.8
    answer(ASKED, tagged("left kidney", RIGHT), "a", others=KIDNEYS),  # on the twin
    answer(ASKED, tagged("spleen", LEFT), "b", others=KIDNEYS[:1]),  # wrong name; no twin in the image
    answer(ABSENT, ABSENT, "b", (), KIDNEYS, "mr"),  # said absent
    answer(ABSENT, tagged("liver", LEFT, RIGHT), "c", (), KIDNEYS, "mr"),  # two false boxes
    answer(ABSENT, "", "c", (), KIDNEYS, "mr"),  # unreadable
]


@pytest.mark.parametrize(
    ("measure", "score", "n", "cases"),
    [
        ("recall@0.25", 1 / 3, 3, 2),  # of three reference boxes, in cases a and b
        ("recall@0.5", 1 / 3, 3, 2),
        ("recall@0.75", 1 / 3, 3, 2),
        ("mean_iou", 0.8 / 3, 3, 2),
        ("f1@0.5", 2 * 1 / (3 + 5), 8, 3),  # three reference boxes and five boxes
        ("false_boxes_per_answer", 4 / 6, 6, 3),
        ("rejection_rate", 1 / 3, 3, 2),
        ("false_box_rate", 1 / 3, 3, 2),
        ("phrase_fidelity", 2 / 3, 3, 2),
        ("unreadable_rate", 1 / 6, 6, 3),
        ("laterality_confusion", 1 / 2, 2, 1),  # asked of two answers whose image has the twin
    ],
)
def test_measures_by_hand(measure, score, n, cases):
    row = grounding_scores(ANSWERS)["all"][measure]
    assert (row["score"], row["n"], row["cases"]) == (pytest.approx(score), n, cases)
    if cases > 1:
        low, high = row["interval"]
        assert low <= score <= high


def test_rows_by_modality_label_and_size():
    found = grounding_scores(ANSWERS)
    assert list(found["modalities"]) == ["ct", "mr"]
    assert found["modalities"]["mr"]["rejection_rate"]["score"] == pytest.approx(1 / 3)
    assert found["modalities"]["mr"]["recall@0.5"]["score"] is None  # nothing was there to find
    assert found["labels"].keys() == {"left kidney"}
    assert found["labels"]["left kidney"]["recall@0.5"]["n"] == 3
    sizes = {name: row["recall@0.5"]["n"] for name, row in found["sizes"].items()}
    assert sizes == {"<1 %": 0, "1-5 %": 3, "5-20 %": 0, ">20 %": 0}  # 0.2 by 0.2 is 4 %


def test_without_the_objects_of_the_image_confusion_is_not_computed():
    found = grounding_scores([answer(ASKED, ASKED, "a")])
    assert found["laterality_known"] is False and "laterality_confusion" not in found["all"]


@pytest.mark.parametrize(
    ("response", "confused"),
    [
        (tagged("left kidney", RIGHT), 1.0),
        (tagged("right kidney", RIGHT), 1.0),  # under its own name it is still not what was asked for
        (tagged("left kidney", LEFT), 0.0),
        (tagged("left kidney", LEFT, RIGHT), 1.0),  # one of them lies there
        (tagged("left kidney", Box(0, 0.6, 0.1, 0.9)), 0.0),  # wrong, but not on the twin
        ("", 0.0),
    ],
)
def test_confusion_of_sides(response, confused):
    found = grounding_scores([answer(ASKED, response, "a", others=KIDNEYS)])
    assert found["all"]["laterality_confusion"]["score"] == confused


def test_both_sides_asked_for_have_no_twin():
    asked = ASKED + tagged("right kidney", RIGHT)
    both = answer(asked, asked, "a", ("left kidney", "right kidney"), KIDNEYS)
    assert grounding_scores([both])["all"]["laterality_confusion"]["n"] == 0


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(0, 0, 0.05, 0.1), "<1 %"),
        (Box(0, 0, 0.125, 0.125), "1-5 %"),
        (Box(0, 0, 0.25, 0.25), "5-20 %"),
        (Box(0, 0, 0.5, 0.5), ">20 %"),
        (Box(0, 0, 1, 1), ">20 %"),
    ],
)
def test_size_classes(box, size):
    assert size_of(box) == size
