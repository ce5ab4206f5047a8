"""The demo's examples are read from a Med-GRIT folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bird_hf.data.folder.publish import open_folder
from bird_hf.data.records import SINGLE_TASKS
from bird_hf.demo.callbacks import REGION_TASKS
from bird_hf.demo.examples import read_examples
from bird_hf.hub.boxes import Box
from bird_hf.questions import tagged_question

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_examples_are_the_datas_own_images_and_questions(data: Path) -> None:
    examples = read_examples(data)
    assert len(examples) == 8
    assert {example.caption for example in examples} >= {"ct, phantom", "x-ray, phantom"}
    for task in SINGLE_TASKS:
        rows = {row["messages"][0]["content"] for row in open_folder(data, task, "test")}
        shown = [example.questions[task] for example in examples]
        boxes = [
            Box.from_pixels([float(part) for part in box.split(",")], example.image.size) if box else None
            for (_, box, _), example in zip(shown, examples, strict=True)
        ]
        assert {tagged_question(text, box) for (text, _, _), box in zip(shown, boxes, strict=True)} == rows
        assert all(boxes) == (task in REGION_TASKS)
