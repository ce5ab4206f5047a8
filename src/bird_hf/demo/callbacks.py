"""The callbacks of the page: values of its components in, new values out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ..data.records import Task
from ..hub.boxes import Box
from ..hub.grounding import GroundedText
from ..hub.pixels import open_image
from ..inference import GroundingModel
from ..questions import Query, read_box_px
from .answers import no_answer, outlines, picture_value, reply_of
from .examples import ExampleImage

MAX_QUESTION_CHARS = 500
REGION_TASKS = (Task.REFERRING_CLASSIFICATION, Task.REFERRING_CAPTION)
QUESTIONS = {
    Task.VISUAL_GROUNDING: "Where is the right lung?",
    Task.REFERRING_CLASSIFICATION: "What is this?",
    Task.REFERRING_CAPTION: "Describe this region.",
    Task.IMAGE_ANALYSIS: "Which imaging modality is this?",
}


class Callbacks:
    """The callbacks of the page, for a model and its example images.

    `stored` is everywhere the path of the image that is asked about, and `chosen` the number of the example that it
    is; each None if there is none.
    """

    def __init__(self, model: GroundingModel, examples: Sequence[ExampleImage]) -> None:
        self.model, self.examples = model, examples

    @property
    def known_names(self) -> tuple[str, ...]:
        """The names that the model was trained on, if its checkpoint lists them."""
        return self.model.processor.known_names

    def choose(self, event: gr.SelectData) -> tuple[Any, ...]:
        """Selecting an example -> (chosen, task, question, box, stored, *reply)."""
        chosen, task = int(event.index), Task.VISUAL_GROUNDING.value
        return chosen, task, *self.pick(task, chosen), self.examples[chosen].image, *no_answer()

    def receive(self, upload: bytes) -> tuple[Any, ...]:
        """Uploading a file -> (upload, chosen, box, stored, *reply); if it is not an image, only a message."""
        try:
            return None, None, "", open_image(upload), *no_answer()
        except ValueError as error:
            return None, None, "", None, *no_answer(str(error))

    def show(self, stored: str | None, box: str) -> Any:
        """A new image -> its picture, with the box of the question."""
        return picture_value(stored, _read(stored).size, box) if stored else None

    def pick(self, task: str, chosen: int | None) -> tuple[str, str]:
        """Selecting a task -> (question, box), those of the chosen example if there is one."""
        if chosen is None or Task(task) not in self.examples[chosen].questions:
            return QUESTIONS[Task(task)], ""
        text, box, _ = self.examples[chosen].questions[Task(task)]
        return text, box

    def mark(self, event: gr.EventData, stored: str, task: str, question: str) -> tuple[Any, ...]:
        """Drawing, changing or clearing the box on the picture -> (task, question, box, *reply).

        A box that is drawn while a task without a box is selected selects ROC.
        """
        try:
            box = _checked_box(str(event.box), _read(stored).size)
        except ValueError as error:
            return task, question, "", *no_answer(str(error))
        if box and task not in REGION_TASKS:
            task = Task.REFERRING_CLASSIFICATION.value
            question = QUESTIONS[Task(task)]
        return task, question, box, *no_answer()

    def ask(
        self, stored: str | None, chosen: int | None, task: str, question: str, box: str
    ) -> tuple[Any, ...]:
        """Asking the question -> (picture, *reply); if it cannot be asked, only a message."""
        try:
            if stored is None:
                raise ValueError("there is no image; choose an example or upload one")
            return self._answer(stored, chosen, Task(task), question, box.strip())
        except ValueError as error:
            return self.show(stored, box), *no_answer(str(error))

    def _answer(
        self, stored: str, chosen: int | None, task: Task, question: str, box_field: str
    ) -> tuple[Any, ...]:
        if len(question) > MAX_QUESTION_CHARS:
            raise ValueError(
                f"the question has {len(question)} characters; ask in up to {MAX_QUESTION_CHARS}"
            )
        if task in REGION_TASKS and not box_field:
            raise ValueError(
                "this question is about a region; give its box x1,y1,x2,y2 in pixels, or draw it on the image"
            )
        image = _read(stored)
        box = Box.from_pixels(read_box_px(box_field), image.size) if box_field else None
        (answer,) = self.model.answers([Query.about(image, question, box)])
        reference = self._reference(chosen, task, question, box_field)
        marks = outlines(answer, image.size, reference)
        picture = picture_value(stored, image.size, box_field, marks)
        return picture, *reply_of(answer, image, reference)

    def _reference(self, chosen: int | None, task: Task, question: str, box: str) -> GroundedText | None:
        """The reference answer, if the question is the chosen example's own, word for word and with its box."""
        example = self.examples[chosen].questions.get(task) if chosen is not None else None
        same = example is not None and (question.strip(), box) == (example.text.strip(), example.box)
        return example.reference if example is not None and same else None


def _read(stored: str) -> Image.Image:
    return open_image(Path(stored).read_bytes())


def _checked_box(text: str, image_wh: tuple[int, int]) -> str:
    """The box that the browser sent; "" if it was cleared.

    Raises ValueError if it is not four numbers or not inside the image.
    """
    if text:
        Box.from_pixels(read_box_px(text), image_wh)
    return text
