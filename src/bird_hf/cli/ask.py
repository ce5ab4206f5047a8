"""`bird ask`: questions about images, and the names that a model knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .model_options import DecodingOptions, ModelOptions, with_model_options
from .options import JsonOption

if TYPE_CHECKING:
    from ..answering import Answer, Decoding
    from ..asking import ModelChoice
    from ..hub.boxes import Box
    from ..images.view import OpenedImage
    from ..questions import Query


Image = Annotated[
    Path | None,
    typer.Argument(
        help="A picture (PNG, JPEG, ...), DICOM, NIfTI or NRRD file, or a folder with one DICOM series.",
        show_default=False,
    ),
]
Question = Annotated[
    str | None, typer.Argument(help='For example "Where is the right lung?"', show_default=False)
]
PixelBox = Annotated[
    str | None,
    typer.Option(
        "--box",
        help="The region of the question: x1,y1,x2,y2 in pixels of the (upright) picture that is shown.",
    ),
]
UnitBox = Annotated[
    str | None, typer.Option("--box-unit", help="The same in fractions of the image's width and height.")
]
MoreImages = Annotated[
    list[Path] | None,
    typer.Option("--image", help="One more image; can be repeated. All questions are asked about each."),
]
MoreQuestions = Annotated[
    list[str] | None, typer.Option("--question", help="One more question; can be repeated.")
]
Picture = Annotated[
    Path | None,
    typer.Option(
        "--draw",
        help="Write the image with the boxes to this PNG file; of several answers to NAME-1.png, NAME-2.png, ...",
    ),
]
Slice = Annotated[
    str | None,
    typer.Option(
        "--slice",
        help="Of a volume: axial:72, coronal:10, sagittal:8, or 72 (axial); from 0, by default the middle one.",
    ),
]
Frame = Annotated[
    int | None,
    typer.Option(
        "--frame", help="Of a DICOM file or volume of several frames, from 0; by default the middle one."
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        help='Of grey values: lung, mediastinum, "soft tissue", bone, brain or liver of a CT, or LEVEL,WIDTH.',
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Of models of other families: vg, roc, rc or mia. By default the question's words and box tell.",
    ),
]
AskedNames = Annotated[
    list[str] | None,
    typer.Option("--name", help="Of models of other families: an object that is asked for; can be repeated."),
]
Names = Annotated[
    bool, typer.Option("--names", help="List the names that the model knows, by modality; asks nothing.")
]


@with_model_options(default="bird")
def ask(
    context: typer.Context,
    model: ModelOptions,
    decoding: DecodingOptions,
    image: Image = None,
    question: Question = None,
    box: PixelBox = None,
    box_unit: UnitBox = None,
    more_images: MoreImages = None,
    more_questions: MoreQuestions = None,
    as_json: JsonOption = False,
    draw: Picture = None,
    slice_: Slice = None,
    frame: Frame = None,
    window: Window = None,
    names: Names = False,
    task: TaskOption = None,
    asked_names: AskedNames = None,
) -> None:
    """Ask a question about an image; prints the answer and its boxes in pixels.

    Several images, questions or answers (--n) are given in one run; with --json they are a list in one document.

    Example: bird ask IMAGE.png "Where is the left kidney?" --model ./Qwen3-VL-4B
    """
    if names:
        _print_names(model.model, as_json)
        return
    if image is None or question is None:
        missing = "IMAGE" if image is None else "QUESTION"
        context.fail(f'Missing argument {missing}; for example bird ask IMAGE.png "Where is the right lung?"')
    images, questions = [image, *(more_images or [])], [question, *(more_questions or [])]
    decoded = decoding.decoding()
    asked = [(path, text) for path in images for text in questions for _ in range(decoded.n)]
    pictures = _picture_paths(draw, images, len(asked))
    opened = _opened(images, slice_, frame, window)
    queries = _queries(opened, questions, _asked_box(box, box_unit), task, asked_names or ())
    answers = _answers(queries, model.choice(), decoded)
    _print_answers(asked, answers, pictures, as_json)


def _asked_box(px: str | None, unit: str | None) -> Box | Sequence[float] | None:
    from ..questions import check_pixels, read_box_px, read_box_unit

    if px is not None and unit is not None:
        raise ValueError("--box and --box-unit give the same box in two ways; give one of them")
    if unit is not None:
        return read_box_unit(unit, "--box-unit")
    if px is None:
        return None
    corners = read_box_px(px, "--box")
    check_pixels(corners, "for fractions of the image use --box-unit x1,y1,x2,y2")
    return corners


def _picture_paths(draw: Path | None, images: Sequence[Path], count: int) -> list[Path | None]:
    """The file of each answer's picture. Raises ValueError if one cannot be written or is one of the images."""
    from ..draw import check_png_path

    if draw is None:
        return [None] * count
    check_png_path(draw)
    numbered = [draw.with_name(f"{draw.stem}-{number}{draw.suffix}") for number in range(1, count + 1)]
    paths = [draw] if count == 1 else numbered
    for path in paths:
        if path.exists() and any(image.exists() and path.samefile(image) for image in images):
            raise ValueError(f"--draw {path} would overwrite the image; give another name")
    return [*paths]


def _opened(
    images: Sequence[Path], slice_text: str | None, frame: int | None, window: str | None
) -> list[OpenedImage]:
    from ..images.open import open_image
    from ..images.view import read_view

    view = read_view(slice_text, frame, window)
    return [open_image(path, view) for path in images]


def _queries(
    images: Sequence[OpenedImage],
    questions: Sequence[str],
    box: Box | Sequence[float] | None,
    task: str | None,
    names: Sequence[str],
) -> list[Query]:
    """Every question about the first image, then about the next."""
    from ..data.records import SINGLE_TASKS
    from ..questions import Query

    if task is not None and task not in tuple(SINGLE_TASKS):
        raise ValueError(f"--task {task!r} is unknown; use {', '.join(SINGLE_TASKS)}")
    queries = [Query.about(image, question, box) for image in images for question in questions]
    return [replace(query, task=task or "", names=tuple(names)) for query in queries]


def _answers(queries: Sequence[Query], choice: ModelChoice, decoding: Decoding) -> list[Answer]:
    """The answers to each query, `decoding.n` of them."""
    from ..asking import open_model

    model = open_model(choice)
    progress = len(queries) > 1
    if decoding.is_greedy:
        return model.answers(queries, max_new_tokens=decoding.max_new_tokens, progress=progress)
    return [answer for each in model.sampled_answers(queries, decoding, progress=progress) for answer in each]


def _document(answer: Answer, image: Path, picture: Path | None) -> dict[str, Any]:
    """The JSON document of an answer, whose picture is written to the file `picture`."""
    document = answer.to_json() | {"image": str(image)}
    if picture is None:
        return document
    from ..draw import save_png

    drawn = answer.draw()
    save_png(drawn, picture)
    scale = drawn.width / document["image_wh"][0]
    return document | {"drawing": str(picture), "drawing_scale": round(scale, 3)}


def _print_answers(
    asked: Sequence[tuple[Path, str]],
    answers: Sequence[Answer],
    pictures: Sequence[Path | None],
    as_json: bool,
) -> None:
    paths = [path for path, _ in asked]
    documents = [_document(*each) for each in zip(answers, paths, pictures, strict=True)]
    if as_json:
        typer.echo(json.dumps(documents if len(documents) > 1 else documents[0], ensure_ascii=False))
        return
    for (path, text), document in zip(asked, documents, strict=True):
        if len(asked) > 1:
            typer.echo(f"{path}: {text}")
        _print_answer(document)


def _print_answer(document: dict[str, Any]) -> None:
    typer.echo(document["text"])
    for span in document["spans"]:
        for corners in span["boxes_px"]:
            typer.echo(f"  {span['phrase']}: " + ",".join(f"{value:.0f}" for value in corners))
    if "shown" in document:
        typer.echo(f"  shown: {document['shown']['note']}")
    for remark in document["remarks"]:
        typer.echo(f"  remark: {remark}")
    if "drawing" in document:
        typer.echo(
            f"  drawn: {document['drawing']}, {document['drawing_scale']:g} times the size of the image"
        )
    for issue in document["issues"]:
        typer.echo(f"  malformed answer: {issue}", err=True)


def _print_names(model: str, as_json: bool) -> None:
    from ..checkpoint.load import find_checkpoint, read_label_names

    names = read_label_names(find_checkpoint(model))
    if as_json:
        typer.echo(json.dumps(names, ensure_ascii=False))
        return
    for modality, known in names.items():
        typer.echo(f"{modality} ({len(known)}): {', '.join(known)}")
    if not names:
        typer.echo(f"{model} does not list the names that it knows; checkpoints trained by bird train do")
