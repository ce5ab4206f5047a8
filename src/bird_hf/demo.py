"""The demo page: an example image or an upload, a question, and the answer with its boxes on the image.

`bird demo` serves it on this machine and `space/app.py` as a Space of the hub. The server keeps nothing about a visitor
except the images, for an hour; the page itself holds the question and the box.
"""

from __future__ import annotations

import atexit
import html
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from .data.folder.publish import open_folder
from .data.records import SINGLE_TASKS, Task
from .hub.boxes import Box
from .hub.grounding import read
from .hub.pixels import open_image
from .inference import Answer, GroundingModel, Query, load, read_box_px
from .sample import NOTICE, example_rows

MAX_UPLOAD_MB = 20
MAX_QUESTION_CHARS = 500
_KEPT_SECONDS = 3600  # how long images stay in the server's cache
_WAITING = 16  # visitors in the queue; they are answered one at a time
_SHOWN_SIDE_PX = (512, 1024)  # of the picture with the boxes: gradio makes a mask of its size for every box

_TASK_NAMES = {
    Task.VISUAL_GROUNDING: "Where is it? (VG)",
    Task.REFERRING_CLASSIFICATION: "What is in a box? (ROC)",
    Task.REFERRING_CAPTION: "Describe a box (RC)",
    Task.IMAGE_ANALYSIS: "About the image (MIA)",
}
_QUESTIONS = {
    Task.VISUAL_GROUNDING: "Where is the right lung?",
    Task.REFERRING_CLASSIFICATION: "What is this?",
    Task.REFERRING_CAPTION: "Describe this region.",
    Task.IMAGE_ANALYSIS: "Which imaging modality is this?",
}
_REGION_TASKS = (Task.REFERRING_CLASSIFICATION, Task.REFERRING_CAPTION)

_INTRODUCTION = """
# BiRD: ask a biomedical image
Choose an example (one test image of each modality) or upload an image, pick a task or write a question, and ask.
"""
_CSS = """
#notice {position: fixed; inset: 0 0 auto 0; z-index: 100; padding: 0; border-radius: 0; text-align: center;
  background: #7f1d1d; color: white;}
.gradio-container {padding-top: 56px !important;}
#examples .caption-label {max-width: 100%; padding: 0 4px; font-size: 11px; white-space: normal;}
#message {padding: 0;} #message div[role] {padding: 8px 12px; border-left: 4px solid #c2410c;}
"""


@dataclass(frozen=True)
class ExampleImage:
    """An image of the test split, with one question of each task: the words, and the box in pixels or ""."""

    caption: str
    image: Image.Image
    questions: dict[Task, tuple[str, str]]


class Reply(NamedTuple):
    """The contents of the answer's side of the page; empty if there is nothing to show.

    shown: the picture and (x1, y1, x2, y2) with a name for each box, in pixels of that picture.
    """

    message: str = ""  # HTML
    text: str = ""
    boxes: str = ""
    shown: tuple[Image.Image, list[tuple[tuple[int, int, int, int], str]]] | None = None


def run_demo(model: Path, data: Path, host: str | None = None, port: int | None = None) -> None:
    """Serve the page for a checkpoint folder with the test images of a Med-GRIT folder, until stopped.

    `host` and `port` are by default gradio's: GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, else 127.0.0.1 and the
    first free port from 7860. Raises ValueError if a folder cannot be used or the address is taken.
    """
    examples = read_examples(data)
    keep_uploads_private()
    page = build_page(Callbacks(load(model), examples))
    launch(page, host, port)


def keep_uploads_private() -> None:
    """Make all files that this process writes from now on readable by its user only: uploads, and pictures of them.

    gradio's folder for them is a new one, which is deleted when the process ends, unless GRADIO_TEMP_DIR names one.
    """
    os.umask(0o077)
    if "GRADIO_TEMP_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="bird-demo-")  # mode 0700
    os.environ["GRADIO_TEMP_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def launch(page: gr.Blocks, host: str | None = None, port: int | None = None, **kwargs: Any) -> None:
    """Serve a page; `kwargs` go to gradio's `launch`. Sharing, analytics and recording are off.

    Raises ValueError if the address is taken.
    """
    # The default fonts would be loaded from Google.
    theme = gr.themes.Default(font=["sans-serif"], font_mono=["monospace"])
    try:
        page.queue(max_size=_WAITING, default_concurrency_limit=1).launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            pwa=False,
            enable_monitoring=False,
            run_history=False,
            max_file_size=f"{MAX_UPLOAD_MB}mb",
            footer_links=[],
            theme=theme,
            css=_CSS,
            **kwargs,
        )
    except OSError as error:
        where = f"{host or 'this machine'}{'' if port is None else f', port {port}'}"
        raise ValueError(f"the page cannot be served on {where} ({error}); give another --port") from error


def read_examples(data: Path) -> list[ExampleImage]:
    """One image of each modality of a Med-GRIT folder's test split.

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
        question = read(row["messages"][0]["content"])
        box = _box_text(question.boxes[0].to_pixels(row["image"].size)) if question.boxes else ""
        caption = f"{row['modality'].replace('_', '-')}, {'phantom' if row['synthetic'] else 'real'}"
        example = examples.setdefault(row["image_id"], ExampleImage(caption, row["image"], {}))
        example.questions[Task(row["task"])] = (question.text, box)
    return list(examples.values())


class Callbacks:
    """The callbacks of the page. Each takes values of the page's components and returns the new ones."""

    def __init__(self, model: GroundingModel, examples: Sequence[ExampleImage]) -> None:
        self.model, self.examples = model, examples

    def choose(self, event: gr.SelectData) -> tuple[Any, ...]:
        """Selecting an example -> (chosen, task, question, box, picture, *reply)."""
        chosen, task = int(event.index), Task.VISUAL_GROUNDING.value
        return chosen, task, *self.pick(task, chosen), self.examples[chosen].image, *Reply()

    def receive(self, upload: bytes) -> tuple[Any, ...]:
        """Uploading a file -> (upload, chosen, box, picture, *reply); if it is not an image, only a message."""
        try:
            return None, None, "", open_image(upload), *Reply()
        except ValueError as error:
            return None, None, "", None, *Reply(message=_line(str(error)))

    def pick(self, task: str, chosen: int | None) -> tuple[str, str]:
        """Selecting a task -> (question, box), those of the chosen example if there is one."""
        default = (_QUESTIONS[Task(task)], "")
        return default if chosen is None else self.examples[chosen].questions.get(Task(task), default)

    def mark(self, event: gr.SelectData, picture: str, task: str, question: str, box: str) -> tuple[Any, ...]:
        """Clicking the image -> (task, question, box, *reply). Two clicks give two opposite corners of a box.

        After the first click the box field holds "x,y". A click while another task is selected selects ROC.
        """
        if task not in _REGION_TASKS:
            task, box = Task.REFERRING_CLASSIFICATION, ""
            question = _QUESTIONS[task]
        clicked = (int(event.index[0]), int(event.index[1]))
        first = _corner(box)
        if first is None:
            hint = f"First corner {clicked}. Click the opposite corner."
            return task, question, "{},{}".format(*clicked), *Reply(message=_line(hint))
        image = open_image(Path(picture).read_bytes())
        (x1, x2), (y1, y2) = map(sorted, zip(first, clicked, strict=True))
        xyxy = (
            x1,
            y1,
            min(x2 + 1, image.width),
            min(y2 + 1, image.height),
        )  # the clicked pixel is part of the box
        try:
            shown = annotated(image, [("your box", Box.from_pixels(xyxy, image.size))])
        except ValueError as error:  # both clicks on the far edge, outside the last pixel
            return task, question, "", *Reply(message=_line(str(error)))
        return task, question, _box_text(xyxy), *Reply(shown=shown)

    def ask(self, picture: str | None, task: str, question: str, box: str) -> Reply:
        """Asking the question -> the answer, or a message in one line."""
        try:
            if picture is None:
                raise ValueError("there is no image; choose an example or upload one")
            return self._answer(open_image(Path(picture).read_bytes()), Task(task), question, box.strip())
        except ValueError as error:
            return Reply(message=_line(str(error)))

    def _answer(self, image: Image.Image, task: Task, question: str, box_text: str) -> Reply:
        if len(question) > MAX_QUESTION_CHARS:
            raise ValueError(
                f"the question has {len(question)} characters; ask in up to {MAX_QUESTION_CHARS}"
            )
        if task in _REGION_TASKS and not box_text:
            raise ValueError(
                "this question is about a region; give its box x1,y1,x2,y2 in pixels, or click two corners"
            )
        box = Box.from_pixels(read_box_px(box_text), image.size) if box_text else None
        (answer,) = self.model.answers([Query.about(image, question, box)])
        return reply_of(answer, image, box)


def reply_of(answer: Answer, image: Image.Image, asked: Box | None = None) -> Reply:
    """An answer as the page shows it; the texts say if it has no words or boxes, or is malformed."""
    found = [(span.phrase or "(no phrase)", box) for span in answer.spans for box in span.boxes]
    lines = [f"{phrase}: {_box_text(box.to_pixels(image.size))}" for phrase, box in found]
    issues = ", ".join(answer.issues)
    notes = [f"Malformed answer: {issues}."] if issues else []
    notes += [f"{remark[:1].upper()}{remark[1:]}." for remark in answer.remarks]
    return Reply(
        message=_line(" ".join(notes)) if notes else "",
        text=answer.text.strip() or "(The model gave no words.)",
        boxes="\n".join(lines) or "No box in this answer.",
        shown=annotated(image, ([("your box", asked)] if asked else []) + found),
    )


def annotated(
    image: Image.Image, named: Sequence[tuple[str, Box]]
) -> tuple[Image.Image, list[tuple[tuple[int, int, int, int], str]]]:
    """The picture at its displayed size, and the named boxes in whole pixels of that size."""
    low, high = _SHOWN_SIDE_PX
    scale = min(max(1.0, low / max(image.size)), high / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    boxes = []
    for name, box in named:
        x1, y1, x2, y2 = box.to_pixels(size)
        boxes.append(((math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)), name))
    return image.resize(size, Image.Resampling.BICUBIC), boxes


def build_page(callbacks: Callbacks) -> gr.Blocks:
    """The page: its layout, and the callback of each component."""
    with gr.Blocks(
        title="BiRD", analytics_enabled=False, delete_cache=(_KEPT_SECONDS // 6, _KEPT_SECONDS)
    ) as page:
        gr.HTML(html.escape(NOTICE), elem_id="notice")
        gr.Markdown(_INTRODUCTION)
        chosen = gr.State(None)
        with gr.Row():
            with gr.Column():
                gallery, upload, picture = _image_side(callbacks.examples)
            with gr.Column():
                task, question, box, button = _question_side()
                reply = _answer_side()

        asked = [picture, task, question, box]
        private: dict[str, Any] = {"api_visibility": "private"}
        gallery.select(callbacks.choose, None, [chosen, task, question, box, picture, *reply], **private)
        upload.upload(callbacks.receive, upload, [upload, chosen, box, picture, *reply], **private)
        task.input(callbacks.pick, [task, chosen], [question, box], **private)
        picture.select(callbacks.mark, asked, [task, question, box, *reply], **private)
        gr.on([button.click, question.submit], callbacks.ask, asked, reply, **private)
    return page


def _image_side(examples: Sequence[ExampleImage]) -> tuple[gr.Gallery, gr.File, gr.Image]:
    gallery = gr.Gallery(
        [(example.image, example.caption) for example in examples],
        show_label=False,
        columns=4,
        height=270,
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="examples",
    )
    upload = gr.File(
        label=f"Or your own image: up to {MAX_UPLOAD_MB} MB, deleted after an hour",
        type="binary",
        height=150,
        elem_id="upload",
    )
    picture = gr.Image(
        label="Image: click two corners to ask about a region",
        type="filepath",
        format="png",
        interactive=False,
        buttons=[],
        elem_id="picture",
    )
    return gallery, upload, picture


def _question_side() -> tuple[gr.Radio, gr.Textbox, gr.Textbox, gr.Button]:
    first = Task.VISUAL_GROUNDING
    choices = [(name, task.value) for task, name in _TASK_NAMES.items()]
    return (
        gr.Radio(choices, value=first.value, label="Task", elem_id="task"),
        gr.Textbox(_QUESTIONS[first], label="Question", max_length=MAX_QUESTION_CHARS, elem_id="question"),
        gr.Textbox(label="Box of the question: x1,y1,x2,y2 in pixels, or none", elem_id="box"),
        gr.Button("Ask", variant="primary", elem_id="ask"),
    )


def _answer_side() -> list[gr.components.Component]:
    """In the order of `Reply`."""
    return [
        gr.HTML(elem_id="message"),
        gr.Textbox(label="Answer", elem_id="text"),
        gr.Textbox(label="Its boxes: x1,y1,x2,y2 in pixels", lines=2, elem_id="boxes"),
        gr.AnnotatedImage(label="Boxes on the image", format="png", elem_id="shown"),
    ]


def _corner(text: str) -> tuple[int, int] | None:
    """The corner in the box field after a first click; None if the field holds anything else."""
    parts = text.split(",")
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(map(str.isdecimal, parts)) else None


def _box_text(xyxy: Sequence[float]) -> str:
    return ",".join(f"{value:.0f}" for value in xyxy)


def _line(words: str) -> str:
    return f'<div role="alert">{html.escape(" ".join(words.split()))}</div>'
