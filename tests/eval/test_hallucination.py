"""Questions about missing objects: they are fixed, cover every image, and count answers with a box."""

from __future__ import annotations

import pytest

from bird_hf.data.phantoms import PHANTOM_LABELS
from bird_hf.data.records import Modality
from bird_hf.eval.hallucination import _FOREIGN, Missing, box_given, missing_objects
from bird_hf.eval.recall import Recall


def row(image_id, modality, absent=(), present=(), synthetic=False):
    objects = [{"label": label, "present": False} for label in absent]
    objects += [{"label": label, "present": True} for label in present]
    return {"image_id": image_id, "modality": modality, "objects": objects, "synthetic": synthetic}


ROWS = [
    row("ct_a", "ct", absent=["spleen"], present=["liver"]),
    row("fundus_b", "fundus", absent=["optic cup"], synthetic=True),
    row("ct_a", "ct", absent=["spleen", "aorta"]),
]


def asked(questions):
    return [(each.id, each.image, each.question, each.synthetic) for each in questions]


def test_what_any_row_of_an_image_lists_as_absent_is_asked_once():
    questions = missing_objects(ROWS)[Missing.ABSENT]
    assert asked(questions) == [
        (0, "ct_a.png", "Where is the aorta?", False),
        (1, "ct_a.png", "Where is the spleen?", False),
        (2, "fundus_b.png", "Where is the optic cup?", True),
    ]
    assert {each.task for each in questions} == {"absent"}
    assert questions[0].annotation == "There is no aorta in this image."


def test_every_image_is_asked_for_objects_of_other_kinds_of_pictures():
    assert asked(missing_objects(ROWS)[Missing.FOREIGN]) == [
        (0, "ct_a.png", "Where is the blue-white veil?", False),
        (1, "ct_a.png", "Where is the cotton wool spot?", False),
        (2, "fundus_b.png", "Where is the left kidney?", True),
        (3, "fundus_b.png", "Where is the blue-white veil?", True),
    ]


def test_the_questions_of_a_split_are_the_same_every_time():
    assert missing_objects(ROWS) == missing_objects(iter(ROWS))


@pytest.mark.parametrize("modality", Modality)
def test_a_foreign_object_is_one_that_some_other_modality_has_and_this_one_has_not(modality):
    elsewhere = {label for other in Modality if other != modality for label in PHANTOM_LABELS[other]}
    assert len(_FOREIGN[modality]) == 2
    assert set(_FOREIGN[modality]) <= elsewhere - {*PHANTOM_LABELS[modality]}


@pytest.mark.parametrize(
    ("response", "given"),
    [
        ("There is no spleen in this image.", 0),
        ("", 0),
        ("Here is the <ref>spleen</ref><box>(1,2),(30,40)</box>.", 1),
        ("<box>(1,2),(30,40)</box><box>(5,6),(70,80)</box>", 1),  # an answer, not its boxes, is counted
        ("Here it is: <box>(1,2)</box>", 0),  # malformed, and counted as that
        ("Here is the <ref>spleen</ref><box>(1,2),(30,40)</box>.<|im_end|>\nassistant", 1),
    ],
)
def test_an_answer_with_a_box_counts(response, given):
    assert box_given(response) == Recall(given, 1)
