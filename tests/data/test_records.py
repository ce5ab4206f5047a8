"""The published row: its columns, its task, and the objects its turns speak of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bird_hf.data.records import (
    SINGLE_TASKS,
    Axis,
    Dialogue,
    ImageInfo,
    ImageRecord,
    Instance,
    Modality,
    Task,
    Turn,
    dialogue_row,
    row_features,
)
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span

COLUMNS = [
    "image_id", "image", "image_wh", "modality", "modality_detail", "region", "axis", "slice", "dataset", "case_id",
    "caption", "task", "messages", "independent", "objects", "synthetic", "teacher",
]  # fmt: skip
LIVER = Instance("liver_0", "liver", Box(0.1, 0.2, 0.3, 0.4), 0.04)
SPLEEN = Instance("spleen_0", "spleen", None, 0.0)
KIDNEY = Instance("kidney_0", "kidney", Box(0.5, 0.5, 1.0, 1.0), 0.2)
INFO = ImageInfo("mr_t1--d--c--z_0000", Modality.MR, "t1", "abdomen", Axis.CORONAL, 0, "d", "c", True)
RECORD = ImageRecord(INFO, (640, 480), (LIVER, SPLEEN, KIDNEY), "An MR image.")
WHERE = Turn(
    Task.VISUAL_GROUNDING,
    "Where is the liver?",
    "Here is the liver.",
    answer_spans=(Span("liver", 12, 17, (LIVER.box,)),),
    instance_ids=("liver_0",),
)
WHERE_NOT = Turn(Task.VISUAL_GROUNDING, "Find the spleen.", "There is no spleen.", instance_ids=("spleen_0",))
WHAT = Turn(
    Task.REFERRING_CLASSIFICATION,
    "What is this?",
    "The liver.",
    question_spans=(Span("this", 8, 12, (LIVER.box,)),),
    instance_ids=("liver_0",),
)


def dialogue(*turns: Turn) -> Dialogue:
    return Dialogue(RECORD, turns, "templates")


def test_a_row_has_exactly_the_columns_of_the_schema():
    assert list(dialogue_row(dialogue(WHERE))) == COLUMNS
    assert list(row_features()) == COLUMNS


def test_the_whole_row():
    assert dialogue_row(dialogue(WHERE), image="pixels") == {
        "image_id": "mr_t1--d--c--z_0000",
        "image": "pixels",
        "image_wh": [640, 480],
        "modality": "mr",
        "modality_detail": "t1",
        "region": "abdomen",
        "axis": "coronal",
        "slice": 0,
        "dataset": "d",
        "case_id": "c",
        "caption": "An MR image.",
        "task": "vg",
        "messages": [
            {"role": "user", "content": "Where is the liver?"},
            {"role": "assistant", "content": "Here is the <ref>liver</ref><box>(100,200),(300,400)</box>."},
        ],
        "independent": True,
        "objects": [
            {
                "instance_id": "liver_0",
                "label": "liver",
                "box": [0.1, 0.2, 0.3, 0.4],
                "area": 0.04,
                "present": True,
            }
        ],
        "synthetic": True,
        "teacher": "templates",
    }


def test_values_are_plain_strings_not_enums():
    row = dialogue_row(dialogue(WHERE))
    assert {type(row[name]) for name in ("modality", "axis", "task")} == {str}


def test_an_absent_object_has_no_box():
    (item,) = dialogue_row(dialogue(WHERE_NOT))["objects"]
    assert item == {"instance_id": "spleen_0", "label": "spleen", "box": None, "area": 0.0, "present": False}


@pytest.mark.parametrize(
    ("turns", "task"),
    [((WHERE,), "vg"), ((WHAT,), "roc"), ((WHERE, WHAT), "chat"), ((WHERE, WHERE_NOT), "chat")],
)
def test_several_turns_are_a_chat(turns, task):
    assert dialogue_row(dialogue(*turns))["task"] == task


def test_turns_follow_each_other_as_user_and_assistant():
    messages = dialogue_row(dialogue(WHAT, WHERE))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert messages[0]["content"] == "What is <ref>this</ref><box>(100,200),(300,400)</box>?"
    assert messages[2]["content"] == "Where is the liver?"


def test_objects_are_named_once_in_the_order_of_the_record():
    last = replace(WHERE_NOT, instance_ids=("kidney_0", "spleen_0"))
    ids = [item["instance_id"] for item in dialogue_row(dialogue(last, WHAT, WHERE))["objects"]]
    assert ids == ["liver_0", "spleen_0", "kidney_0"]


def test_a_row_survives_its_own_schema():
    from datasets import Dataset

    rows = [dialogue_row(dialogue(WHERE, WHERE_NOT)), dialogue_row(dialogue(WHAT))]
    assert Dataset.from_list(rows, features=row_features()).to_list() == rows


def test_a_picture_that_is_no_slice_has_no_slice_number():
    planar = replace(RECORD, info=replace(INFO, axis=Axis.PLANAR, slice_index=None))
    row = dialogue_row(Dialogue(planar, (WHERE,), "templates"))
    assert (row["axis"], row["slice"]) == ("2d", None)


def test_present_and_absent_divide_the_instances():
    assert (RECORD.present, RECORD.absent) == ((LIVER, KIDNEY), (SPLEEN,))


def test_the_four_tasks_are_all_but_chat():
    assert set(SINGLE_TASKS) == set(Task) - {Task.CHAT}
