"""The demo page: an example image or an upload, a question, and the answer with its boxes on the image.

`bird demo` serves it on this machine and `space/app.py` as a Space of the hub. The server keeps nothing about a visitor
except the images, for an hour; the page itself holds the question, the box and the answer.

The picture is our own component: `picture.html` and `picture.js` in a `gr.HTML`. (gradio_image_annotation did not load
with gradio 6.0, nor later with 6.14: issues 27 and 29 of its repository.)
"""

from __future__ import annotations

import atexit
import html
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from ..asking import ModelChoice, open_model
from ..data.records import Task
from ..draw import MODEL_COLOURS, REFERENCE_COLOUR
from ..sample import NOTICE
from .answers import no_answer
from .callbacks import DEFAULT_WINDOW, MAX_QUESTION_CHARS, PLANES, QUESTIONS, WINDOWS, Callbacks
from .examples import ExampleImage, read_examples

MAX_UPLOAD_MB = 64  # a chest CT, compressed
_KEPT_SECONDS = 3600  # how long images stay in the server's cache
_WAITING = 16  # visitors in the queue; they are answered one at a time

_TASK_NAMES = {
    Task.VISUAL_GROUNDING: "Where is it? (VG)",
    Task.REFERRING_CLASSIFICATION: "What is in a box? (ROC)",
    Task.REFERRING_CAPTION: "Describe a box (RC)",
    Task.IMAGE_ANALYSIS: "About the image (MIA)",
}
_INTRODUCTION = """
# BiRD: ask a biomedical image
Choose an example or upload an image, pick a task or write a question, and ask. Each question stands alone: the model
does not see the questions and answers before it.
"""
# The picture's value in the browser, with the text of the box field as its box.
_BOX_TO_PICTURE = "(box, picture) => picture && {...picture, asked: box, outlines: []}"


def run_demo(model: Path | ModelChoice, data: Path, host: str | None = None, port: int | None = None) -> None:
    """Serve the page for a model with the test images of a Med-GRIT folder, until stopped.

    `host` and `port` are by default gradio's: GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, else 127.0.0.1 and the
    first free port from 7860. Raises ValueError if a folder cannot be used or the address is taken.
    """
    examples = read_examples(data)
    keep_uploads_private()
    choice = model if isinstance(model, ModelChoice) else ModelChoice(os.fspath(model))
    page = build_page(Callbacks(open_model(choice), examples))
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
            css=_css(),
            **kwargs,
        )
    except OSError as error:
        where = f"{host or 'this machine'}{'' if port is None else f', port {port}'}"
        raise ValueError(f"the page cannot be served on {where} ({error}); give another --port") from error


class _ViewControls(NamedTuple):
    """Which slice, frame and window of an upload is shown; hidden for pictures and examples."""

    plane: gr.Radio
    number: gr.Slider
    note: gr.HTML
    window: gr.Dropdown


class _Components(NamedTuple):
    """The components of the page that callbacks read or change."""

    chosen: gr.State
    uploaded: gr.State
    gallery: gr.Gallery
    upload: gr.File
    stored: gr.Image
    picture: gr.HTML
    view: _ViewControls
    task: gr.Radio
    question: gr.Textbox
    box: gr.Textbox
    button: gr.Button
    message: gr.HTML
    answer: gr.HTML


def build_page(callbacks: Callbacks) -> gr.Blocks:
    """The page: its layout, and the callback of each component."""
    with gr.Blocks(
        title="BiRD", analytics_enabled=False, delete_cache=(_KEPT_SECONDS // 6, _KEPT_SECONDS)
    ) as page:
        gr.HTML(html.escape(NOTICE), elem_id="notice")
        gr.Markdown(_INTRODUCTION, elem_id="introduction")
        chosen, uploaded = gr.State(None), gr.State(None, time_to_live=_KEPT_SECONDS)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=5, min_width=250):
                images = _image_choice(callbacks.examples)
                if names := callbacks.known_names:
                    gr.HTML(_names_page(names), elem_id="names", apply_default_css=False)
            with gr.Column(scale=11, min_width=320):
                picture = _picture()
                view = _view_controls()
            with gr.Column(scale=8, min_width=320):
                question = _question_side()
                answer = _answer_side()
        parts = [chosen, uploaded, *images, *picture, view, *question, *answer]
        _connect(callbacks, _Components._make(parts))
    return page


def _connect(callbacks: Callbacks, on: _Components) -> None:
    """Set the callback of each component."""
    reply = [on.message, on.answer]
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    show: dict[str, Any] = {
        "fn": callbacks.show,
        "inputs": [on.stored, on.box],
        "outputs": on.picture,
        **hidden,
    }
    box_to_picture: dict[str, Any] = {
        "fn": None,
        "inputs": [on.box, on.picture],
        "outputs": on.picture,
        "js": _BOX_TO_PICTURE,
        **hidden,
    }
    _connect_images(callbacks, on, show, hidden)
    on.task.input(callbacks.pick, [on.task, on.chosen], [on.question, on.box], **hidden).then(
        **box_to_picture
    )
    on.box.input(**box_to_picture)
    on_draw = [on.task, on.question, on.box, *reply]
    on.picture.draw(callbacks.mark, [on.stored, on.task, on.question], on_draw, **hidden)
    gr.on(
        [on.button.click, on.question.submit, on.box.submit],
        callbacks.ask,
        [on.stored, on.chosen, on.task, on.question, on.box, on.uploaded],
        [on.picture, *reply],
        show_progress_on=on.answer,
        api_visibility="private",
    )


def _connect_images(
    callbacks: Callbacks, on: _Components, show: dict[str, Any], hidden: dict[str, Any]
) -> None:
    """Set the callbacks of the examples, of an upload, and of what of it is shown."""
    reply, (plane, number, note, window) = [on.message, on.answer], on.view
    # Files are opened one at a time, because a volume may need gigabytes of memory.
    one_file: dict[str, Any] = {**hidden, "concurrency_id": "file", "concurrency_limit": 1}
    controls: dict[str, Any] = {
        "fn": callbacks.controls,
        "inputs": on.uploaded,
        "outputs": [plane, number, note],
        **hidden,
    }
    windows: dict[str, Any] = {
        "fn": callbacks.window_choice,
        "inputs": on.uploaded,
        "outputs": window,
        **hidden,
    }
    on_choose = [on.chosen, on.task, on.question, on.box, on.stored, *reply, on.uploaded]
    chosen = on.gallery.select(callbacks.choose, None, on_choose, **hidden)
    chosen.then(**show).then(**controls).then(**windows)
    on_upload = [on.upload, on.chosen, on.box, on.stored, *reply, on.uploaded]
    received = on.upload.upload(callbacks.receive, on.upload, on_upload, **one_file)
    received.then(**show).then(**controls).then(**windows)
    turned = [on.box, on.stored, *reply, on.uploaded]
    plane.input(callbacks.turn_plane, [on.uploaded, plane, window], turned, **one_file).then(**show).then(
        **controls
    )
    gr.on(
        [number.release, window.input],
        callbacks.turn,
        [on.uploaded, plane, number, window],
        turned,
        **one_file,
    ).then(**show).then(**controls)


def _image_choice(examples: Sequence[ExampleImage]) -> tuple[gr.Gallery, gr.File]:
    gallery = gr.Gallery(
        [(example.image, example.caption) for example in examples],
        show_label=False,
        columns=4,
        height="auto",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="examples",
    )
    upload = gr.File(
        label=f"Or your own (picture, DICOM, NIfTI, NRRD): up to {MAX_UPLOAD_MB} MB, deleted after an hour",
        type="filepath",
        height=64,
        elem_id="upload",
    )
    return gallery, upload


def _names_page(names: Sequence[str]) -> str:
    summary = f"The {len(names)} names that this model was trained on"
    return f"<details><summary>{summary}</summary>{html.escape(', '.join(names))}</details>"


def _picture() -> tuple[gr.Image, gr.HTML]:
    """The image that is asked about: the file of the visitor in the server's cache, and what the page shows of it."""
    stored = gr.Image(type="filepath", format="png", interactive=False, visible="hidden")
    picture = gr.HTML(
        None,
        html_template=_text("picture.html"),
        js_on_load=_text("picture.js"),
        apply_default_css=False,
        elem_id="picture",
    )
    return stored, picture


def _view_controls() -> _ViewControls:
    with gr.Row(elem_id="view"):
        plane = gr.Radio(
            [str(each) for each in PLANES],
            value=str(PLANES[0]),
            label="Plane",
            visible=False,
            elem_id="plane",
        )
        window = gr.Dropdown(
            [*WINDOWS], value=DEFAULT_WINDOW, label="CT window", visible=False, elem_id="window"
        )
    number = gr.Slider(0, 1, 0, step=1, label="Slice", visible=False, elem_id="number")
    note = gr.HTML(visible=False, elem_id="shown", apply_default_css=False)
    return _ViewControls(plane, number, note, window)


def _question_side() -> tuple[gr.Radio, gr.Textbox, gr.Textbox, gr.Button]:
    first = Task.VISUAL_GROUNDING
    choices = [(name, task.value) for task, name in _TASK_NAMES.items()]
    return (
        gr.Radio(choices, value=first.value, label="Task", elem_id="task"),
        gr.Textbox(QUESTIONS[first], label="Question", max_length=MAX_QUESTION_CHARS, elem_id="question"),
        gr.Textbox(label="Box of the question: x1,y1,x2,y2 in pixels, or none", elem_id="box"),
        gr.Button("Ask", variant="primary", elem_id="ask"),
    )


def _answer_side() -> tuple[gr.HTML, gr.HTML]:
    """In the order of `Reply`."""
    message, answer = no_answer()
    return gr.HTML(message, elem_id="message"), gr.HTML(answer, elem_id="answer", apply_default_css=False)


def _css() -> str:
    colours = f":root {{--asked: {MODEL_COLOURS[0]}; --reference: {REFERENCE_COLOUR};}}\n"
    return colours + _text("page.css")


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
