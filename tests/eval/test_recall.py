"""Recall by hand: hits, misses, and questions that ask for nothing."""

from __future__ import annotations

import pytest

from bird_hf.eval import paper_rules
from bird_hf.eval.recall import Recall, mean_score, name_recall, total
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span, write

LEFT, RIGHT = Box(0.0, 0.0, 0.4, 0.4), Box(0.6, 0.0, 1.0, 0.4)
WHOLE = Box(0, 0, 1, 1)


@pytest.mark.parametrize(
    ("reference", "predicted", "expected"),
    [
        ([LEFT], [LEFT], Recall(1, 1)),
        ([LEFT], [RIGHT], Recall(0, 1)),
        ([LEFT], [], Recall(0, 1)),  # no answer
        ([], [LEFT], Recall(0, 0)),  # nothing was asked for
        ([], [], Recall(0, 0)),
        ([WHOLE], [Box(0, 0, 0.5, 1)], Recall(0, 1)),  # IoU of exactly one half is a miss (BiRD 5: above)
        ([WHOLE], [Box(0, 0, 0.501, 1)], Recall(1, 1)),
        ([Box(0, 0, 0.5, 1)], [WHOLE], Recall(0, 1)),  # the same the other way round
        ([LEFT, RIGHT], [RIGHT, LEFT], Recall(2, 2)),  # order means nothing
        ([LEFT, RIGHT], [LEFT], Recall(1, 2)),  # boxes are counted, not questions
        ([LEFT], [RIGHT, LEFT], Recall(1, 1)),  # a wrong box beside the right one is not charged
        ([LEFT, Box(0, 0, 0.41, 0.4)], [LEFT], Recall(2, 2)),  # one prediction serves two references
        ([LEFT], [LEFT, LEFT], Recall(1, 1)),  # a reference is found once
    ],
)
def test_grounding_recall(reference, predicted, expected):
    """The paper's rules, which read tagged text."""
    texts = [write("", [Span("", 0, 0, tuple(boxes))]) if boxes else "" for boxes in (reference, predicted)]
    assert paper_rules.grounding_recall(*texts) == expected


@pytest.mark.parametrize(
    ("name", "answer", "found"),
    [
        ("liver", "liver", True),
        ("liver", "This is the liver.", True),
        ("liver", "It is the spleen.", False),
        ("liver", "", False),
        ("Liver", "the LIVER", True),  # case
        ("rib", "a tribal mask", False),  # whole words
        ("rib", "ribs", False),
        ("left kidney", "The kidney, on the left.", True),  # every word, in any order
        ("left kidney", "The kidney.", False),
        ("left kidney", "The right kidney.", False),
        ("x-ray", "an X-ray image", True),  # a hyphen joins
        ("ray", "an X-ray image", False),
        ("x-ray", "x ray", False),
        ("optic disc", "The optic disc/cup", True),  # other marks part
        ("crus 1", "crus 10", False),  # numbers are words
        ("Meckel's cave", "meckel's cave", True),
        ("Läsion", "eine läsion", True),
    ],
)
def test_name_recall(name, answer, found):
    assert name_recall(name, answer) == Recall(int(found), 1)


@pytest.mark.parametrize(
    ("recall", "score"), [(Recall(1, 4), 0.25), (Recall(0, 3), 0.0), (Recall(3, 3), 1.0), (Recall(), None)]
)
def test_score_of_nothing_is_none_and_not_zero(recall, score):
    assert recall.score == score


def test_total_sums_hits_and_totals():
    assert total(iter([Recall(1, 2), Recall(0, 3), Recall()])) == Recall(1, 5)
    assert total([]) == Recall(0, 0)


@pytest.mark.parametrize(
    ("recalls", "mean"),
    [
        ([Recall(1, 1), Recall(0, 99)], 0.5),  # modalities count alike, whatever their size
        ([Recall(1, 1), Recall()], 1.0),  # one that was not asked about does not count
        ([Recall(0, 1), Recall(0, 1)], 0.0),
        ([Recall()], None),
        ([], None),
    ],
)
def test_mean_is_over_what_was_asked_for(recalls, mean):
    assert mean_score(iter(recalls)) == mean
