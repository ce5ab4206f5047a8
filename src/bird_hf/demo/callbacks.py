"""The callbacks of the page: values of its components in, new values out."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from PIL import Image

from ..answering import AskedModel
from ..data.records import Axis, Task
from ..hub.boxes import Box
from ..hub.grounding import GroundedText
from ..images.open import open_image
from ..images.view import OpenedImage, Shown, View
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


PLANES = (Axis.AXIAL, Axis.CORONAL, Axis.SAGITTAL)
DEFAULT_WINDOW = "default"
WINDOWS = (DEFAULT_WINDOW, "soft tissue", "lung", "bone", "brain", "liver")


@dataclass(frozen=True)
class Upload:
    """An uploaded file, in gradio's cache, and what of it is shown."""

    path: str
    shown: Shown


class Callbacks:
    """The callbacks of the page, for a model and its example images.

    `stored` is everywhere the path of the image that is asked about, `chosen` the number of the example that it is, and
    `upload` the uploaded file that it is of; each None if there is none.
    """

    def __init__(self, model: AskedModel, examples: Sequence[ExampleImage]) -> None:
        self.model, self.examples = model, examples

    @property
    def known_names(self) -> Sequence[str]:
        """The names that the model was trained on, if its checkpoint lists them."""
        return self.model.known_names

    def choose(self, event: gr.SelectData) -> tuple[Any, ...]:
        """Selecting an example -> (chosen, task, question, box, stored, *reply, upload)."""
        chosen, task = int(event.index), Task.VISUAL_GROUNDING.value
        return chosen, task, *self.pick(task, chosen), self.examples[chosen].image, *no_answer(), None

    def receive(self, path: str) -> tuple[Any, ...]:
        """Uploading a file -> (file, chosen, box, stored, *reply, upload); if it is not an image, only a message."""
        try:
            opened = open_image(path, name="the image")
        except ValueError as error:
            return None, None, "", None, *no_answer(str(error)), None
        return None, None, "", opened.picture, *no_answer(), Upload(path, opened.shown)

    def turn(self, upload: Upload | None, plane: str, number: float | None, window: str) -> tuple[Any, ...]:
        """Selecting a slice, a frame or a window of the upload -> (box, stored, *reply, upload).

        number: the slice or frame; None for the middle one.
        """
        try:
            if upload is None:
                raise ValueError("there is no uploaded file; upload one")
            opened = open_image(upload.path, _view(upload.shown, plane, number, window), name="the image")
        except ValueError as error:
            return "", gr.skip(), *no_answer(str(error)), upload
        return "", opened.picture, *no_answer(), Upload(upload.path, opened.shown)

    def turn_plane(self, upload: Upload | None, plane: str, window: str) -> tuple[Any, ...]:
        """Selecting a plane -> its middle slice; see `turn`."""
        return self.turn(upload, plane, None, window)

    def controls(self, upload: Upload | None) -> tuple[Any, ...]:
        """A new image -> updates of (plane, number, note), which are hidden where they do not apply."""
        shown = upload.shown if upload else Shown()
        kind, at, count = (
            ("Frame", shown.frame, shown.frames)
            if shown.axis is None
            else ("Slice", shown.index, shown.slices)
        )
        number: dict[str, Any] = {"minimum": 0, "maximum": count - 1, "value": at} if count > 1 else {}
        note = html.escape(shown.note)
        return (
            gr.update(visible=shown.axis is not None, **({"value": str(shown.axis)} if shown.axis else {})),
            gr.update(visible=count > 1, label=kind, **number),
            gr.update(visible=bool(note), value=note),
        )

    def window_choice(self, upload: Upload | None) -> Any:
        """A new image -> an update of the window, which only grey values of volumes and DICOM files have."""
        return gr.update(visible=bool(upload and upload.shown.window), value=DEFAULT_WINDOW)

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
        self,
        stored: str | None,
        chosen: int | None,
        task: str,
        question: str,
        box: str,
        upload: Upload | None = None,
    ) -> tuple[Any, ...]:
        """Asking the question -> (picture, *reply); if it cannot be asked, only a message."""
        try:
            if stored is None:
                raise ValueError("there is no image; choose an example or upload one")
            opened = OpenedImage(_read(stored), upload.shown if upload else Shown())
            return self._answer(stored, opened, chosen, Task(task), question, box.strip())
        except ValueError as error:
            return self.show(stored, box), *no_answer(str(error))

    def _answer(
        self,
        stored: str,
        opened: OpenedImage,
        chosen: int | None,
        task: Task,
        question: str,
        box_field: str,
    ) -> tuple[Any, ...]:
        if len(question) > MAX_QUESTION_CHARS:
            raise ValueError(
                f"the question has {len(question)} characters; ask in up to {MAX_QUESTION_CHARS}"
            )
        if task in REGION_TASKS and not box_field:
            raise ValueError(
                "this question is about a region; give its box x1,y1,x2,y2 in pixels, or draw it on the image"
            )
        image = opened.picture
        box = Box.from_pixels(read_box_px(box_field), image.size) if box_field else None
        query = replace(Query.about(opened, question, box), task=task.value)
        (answer,) = self.model.answers([query])
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
    return open_image(stored, name="the image").picture


def _view(shown: Shown, plane: str, number: float | None, window: str) -> View:
    """The view that the page's controls ask for, of a file of which `shown` is shown."""
    wanted = None if number is None else int(number)
    chosen = None if window == DEFAULT_WINDOW else window
    if shown.axis is not None:
        return View(plane, wanted, shown.frame, chosen)
    return View(frame=wanted if shown.frames > 1 else None, window=chosen)


def _checked_box(text: str, image_wh: tuple[int, int]) -> str:
    """The box that the browser sent; "" if it was cleared.

    Raises ValueError if it is not four numbers or not inside the image.
    """
    if text:
        Box.from_pixels(read_box_px(text), image_wh)
    return text
