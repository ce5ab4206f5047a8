"""`bird ask`: questions about images, and the names that a model knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonOption, ModelOption

if TYPE_CHECKING:
    from ..hub.boxes import Box
    from ..images.view import OpenedImage
    from ..inference import Answer


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
Device = Annotated[str | None, typer.Option(help="cpu (the default), cuda, cuda:1, mps.")]
Dtype = Annotated[str | None, typer.Option(help="float32 (the default), bfloat16, float16.")]
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
Names = Annotated[
    bool, typer.Option("--names", help="List the names that the model knows, by modality; asks nothing.")
]


def ask(
    context: typer.Context,
    image: Image = None,
    question: Question = None,
    model: ModelOption = Path("bird"),
    box: PixelBox = None,
    box_unit: UnitBox = None,
    more_images: MoreImages = None,
    more_questions: MoreQuestions = None,
    as_json: JsonOption = False,
    draw: Picture = None,
    device: Device = None,
    dtype: Dtype = None,
    slice_: Slice = None,
    frame: Frame = None,
    window: Window = None,
    names: Names = False,
) -> None:
    """Ask a question about an image; prints the answer and its boxes in pixels.

    Several images or questions are answered in one run; with --json they are a list in one document.
    """
    if names:
        _print_names(model, as_json)
        return
    if image is None or question is None:
        missing = "IMAGE" if image is None else "QUESTION"
        context.fail(f'Missing argument {missing}; for example bird ask IMAGE.png "Where is the right lung?"')
    images, questions = [image, *(more_images or [])], [question, *(more_questions or [])]
    asked = [(path, text) for path in images for text in questions]
    pictures = _picture_paths(draw, images, len(asked))
    opened = _opened(images, slice_, frame, window)
    answers = _answers(opened, questions, _asked_box(box, box_unit), model, device, dtype)
    paths = [path for path, _ in asked]
    documents = [_document(*each) for each in zip(answers, paths, pictures, strict=True)]
    if as_json:
        typer.echo(json.dumps(documents if len(documents) > 1 else documents[0], ensure_ascii=False))
    else:
        _print_answers(asked, documents)


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


def _answers(
    images: Sequence[OpenedImage],
    questions: Sequence[str],
    box: Box | Sequence[float] | None,
    model: Path,
    device: str | None,
    dtype: str | None,
) -> list[Answer]:
    """The answers to every question about the first image, then about the next."""
    from ..inference import load
    from ..questions import Query

    queries = [Query.about(image, question, box) for image in images for question in questions]
    return load(model, device, dtype).answers(queries, progress=len(queries) > 1)


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


def _print_answers(asked: Sequence[tuple[Path, str]], documents: Sequence[dict[str, Any]]) -> None:
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


def _print_names(model: Path, as_json: bool) -> None:
    from ..checkpoint.load import find_checkpoint, read_label_names

    names = read_label_names(find_checkpoint(model))
    if as_json:
        typer.echo(json.dumps(names, ensure_ascii=False))
        return
    for modality, known in names.items():
        typer.echo(f"{modality} ({len(known)}): {', '.join(known)}")
    if not names:
        typer.echo(f"{model} does not list the names that it knows; checkpoints trained by bird train do")
