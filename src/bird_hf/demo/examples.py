"""The example images of the page: one test image of each modality, with a question of each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..data.folder.publish import open_folder
from ..data.records import SINGLE_TASKS, Task
from ..hub.grounding import GroundedText, read
from ..sample import example_rows


class ExampleQuestion(NamedTuple):
    """A question of a test row: its words, its box in pixels as "x1,y1,x2,y2" or "", and the reference answer."""

    text: str
    box: str
    reference: GroundedText


@dataclass(frozen=True)
class ExampleImage:
    """An image of the test split, with one question of each task."""

    caption: str
    image: Image.Image
    questions: dict[Task, ExampleQuestion]


def read_examples(data: Path) -> list[ExampleImage]:
    """Read one image of each modality of a Med-GRIT folder's test split.

    Raises ValueError if it is not a Med-GRIT folder, lacks a task, or has rows without pixels.
    """
    for each in SINGLE_TASKS:
        open_folder(data, each, "test")  # its error names what is missing
    examples: dict[str, ExampleImage] = {}
    for row in example_rows(data):
        if row["image"] is None:
            raise ValueError(
                f"{data}: row {row['image_id']} has no pixels; join the rows with your copy of the images first"
            )
        question, reference = (read(message["content"]) for message in row["messages"][:2])
        box = box_text(question.boxes[0].to_pixels(row["image"].size)) if question.boxes else ""
        caption = f"{row['modality'].replace('_', '-')}, {'phantom' if row['synthetic'] else 'real'}"
        example = examples.setdefault(row["image_id"], ExampleImage(caption, row["image"], {}))
        example.questions[Task(row["task"])] = ExampleQuestion(question.text, box, reference)
    return list(examples.values())


def box_text(xyxy: Sequence[float]) -> str:
    """A box in pixels as the page shows and reads it: "x1,y1,x2,y2", rounded."""
    return ",".join(f"{value:.0f}" for value in xyxy)
