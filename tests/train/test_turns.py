"""Which task a turn of a row asks for: by its row, else by the form of its question, else by where boxes are."""

from __future__ import annotations

import pytest

from bird_hf.data.records import Task
from bird_hf.hub.grounding import read
from bird_hf.train.turns import task_of_turn

BOX = "<box>(10,10),(500,500)</box>"


@pytest.mark.parametrize(
    ("question", "answer", "form", "task", "expected"),
    [
        # by the row
        ("Where is it?", f"<ref>it</ref>{BOX}", "", "vg", Task.VISUAL_GROUNDING),
        ("Where is it?", "There is no it.", "", "vg", Task.VISUAL_GROUNDING),
        (f"What is this{BOX}?", "The liver.", "rc/plain", "roc", Task.REFERRING_CLASSIFICATION),
        # by the form: `chat`, or a task that is none of ours, says nothing
        ("Where is it?", "There is no it.", "vg/plain", "chat", Task.VISUAL_GROUNDING),
        ("Where are they?", "a and b", "vg_pair/both", "chat", Task.VISUAL_GROUNDING),
        (f"What is this{BOX}?", "The liver.", "roc/plain", "chat", Task.REFERRING_CLASSIFICATION),
        (f"What is this{BOX}?", "The liver.", "rc/plain", "chat", Task.REFERRING_CAPTION),
        (f"What is this{BOX}?", "The liver.", "roc/plain", "segmentation", Task.REFERRING_CLASSIFICATION),
        ("Which modality?", "CT.", "modality/plain", "chat", Task.IMAGE_ANALYSIS),
        # by its boxes, which do not tell ROC from RC
        ("Where is it?", f"<ref>it</ref>{BOX}", "", None, Task.VISUAL_GROUNDING),
        (f"What is this{BOX}?", "The liver.", "", "chat", Task.REFERRING_CAPTION),
        ("Which modality?", "CT.", "", None, Task.IMAGE_ANALYSIS),
    ],
)
def test_the_task_of_a_turn(question, answer, form, task, expected):
    assert task_of_turn(read(question), read(answer), form, task) is expected
