"""An answer as the page shows it: HTML for its words, boxes and downloads, and outlines for the picture.

Phrases and boxes that belong together have the same number (`data-span`) and the same colour as in `Answer.draw`.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from ..draw import MODEL_COLOURS
from ..hub.boxes import Box
from ..hub.grounding import GroundedText, Span
from ..inference import Answer
from .examples import box_text

_MAX_DOWNLOAD_PX = 1024  # longer side of the PNG, which travels in the page


class Reply(NamedTuple):
    """Values of the components that show an answer: two pieces of HTML; empty before the first answer."""

    message: str
    answer: str


def no_answer(message: str = "") -> Reply:
    """The reply without an answer. message: what is wrong."""
    return Reply(_lines([message] if message else []), _template().render(answer=None))


def reply_of(answer: Answer, image: Image.Image, reference: GroundedText | None = None) -> Reply:
    """Render an answer about `image`; the texts say if it has no words or boxes, is malformed, or has remarks.

    reference: the answer of the test row, if the question is that of an example.
    """
    issues = [f"Malformed answer: {', '.join(answer.issues)}."] if answer.issues else []
    page = _template().render(
        answer=answer,
        pieces=list(_pieces(answer)),
        boxes=[mark for mark in outlines(answer, image.size) if mark["kind"] == "found"],
        reference=reference.text if reference else "",
        downloads=_downloads(answer, image, reference),
    )
    return Reply(_lines([*issues, *map(_sentence, answer.remarks)]), page)


def _lines(messages: Iterable[str]) -> str:
    """The content of the page's message area, a line for each message; screen readers announce it at once."""
    return "".join(f'<div role="alert">{html.escape(" ".join(words.split()))}</div>' for words in messages)


def _sentence(remark: str) -> str:
    return f"{remark[:1].upper()}{remark[1:]}."


def picture_value(
    path: str | None, image_wh: tuple[int, int], box: str = "", marks: Sequence[Any] = ()
) -> Any:
    """The value of the picture component.

    path: the image file, in gradio's cache. box: the box of the question, as the box field holds it.
    marks: what `outlines` returned.
    """
    if path is None:
        return None
    width, height = image_wh
    file = gr.FileData(path=path).model_dump()  # gradio adds the address
    return {"image": file, "width": width, "height": height, "asked": box, "outlines": list(marks)}


def outlines(
    answer: Answer, image_wh: tuple[int, int], reference: GroundedText | None = None
) -> list[dict[str, Any]]:
    """The boxes to draw over the picture, the reference first.

    Each has its kind (reference or found), its phrase, its box in pixels of the image as numbers and as text, and,
    if it is found, the number of its span and its colour.
    """
    marks = [
        _mark("reference", span.phrase, box, image_wh)
        for span in (reference.spans if reference else ())
        for box in span.boxes
    ]
    for number, span in _numbered(answer):
        for box in span.boxes:
            colour = {"number": number, "colour": _colour(number)}
            marks.append(_mark("found", span.phrase, box, image_wh) | colour)
    return marks


def _mark(kind: str, phrase: str, box: Box, image_wh: tuple[int, int]) -> dict[str, Any]:
    xyxy = box.to_pixels(image_wh)
    return {"kind": kind, "phrase": phrase or "(no phrase)", "xyxy": list(xyxy), "text": box_text(xyxy)}


def _numbered(answer: Answer) -> Iterator[tuple[int, Span]]:
    """The spans of an answer with their numbers; as in `Answer.draw`, those of the question come first."""
    return enumerate(answer.spans, len(answer.question.spans))


def _colour(number: int) -> str:
    return MODEL_COLOURS[number % len(MODEL_COLOURS)]


class _Piece(NamedTuple):
    """A part of an answer's text; `number` and `colour` are those of its span, if it has boxes."""

    text: str
    number: int | None = None
    colour: str = ""


def _pieces(answer: Answer) -> Iterator[_Piece]:
    """The answer's text, cut at the phrases that have boxes."""
    end = 0
    for number, span in _numbered(answer):
        if span.boxes and end <= span.start < span.end:
            yield _Piece(answer.text[end : span.start])
            yield _Piece(answer.text[span.start : span.end], number, _colour(number))
            end = span.end
    yield _Piece(answer.text[end:])


class _Download(NamedTuple):
    name: str
    label: str
    uri: str


def _downloads(answer: Answer, image: Image.Image, reference: GroundedText | None) -> list[_Download]:
    """The answer as files. They are part of the page, so that the server keeps none."""
    return [
        _Download("answer.png", "PNG", _data_uri("image/png", _png(answer, image, reference))),
        _Download("answer.json", "JSON", _json_uri(answer.to_json())),
        _Download("answer.coco.json", "COCO", _json_uri(coco(answer, image.size))),
    ]


def _png(answer: Answer, image: Image.Image, reference: GroundedText | None) -> bytes:
    picture = image.copy()
    picture.thumbnail((_MAX_DOWNLOAD_PX, _MAX_DOWNLOAD_PX))
    drawn = replace(answer, image=picture).draw(reference.spans if reference else ())
    stream = io.BytesIO()
    drawn.save(stream, format="PNG")
    return stream.getvalue()


def coco(answer: Answer, image_wh: tuple[int, int]) -> dict[str, Any]:
    """The answer's boxes as a COCO detection document: bbox is [x, y, width, height] in pixels."""
    phrases = list(dict.fromkeys(span.phrase for span in answer.spans if span.boxes))
    annotations: list[dict[str, Any]] = []
    for span in answer.spans:
        for box in span.boxes:
            x1, y1, x2, y2 = box.to_pixels(image_wh)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1,
                    "category_id": phrases.index(span.phrase) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    return {
        "images": [{"id": 1, "file_name": "image.png", "width": image_wh[0], "height": image_wh[1]}],
        "categories": [{"id": number, "name": phrase} for number, phrase in enumerate(phrases, 1)],
        "annotations": annotations,
    }


def _json_uri(document: dict[str, Any]) -> str:
    return _data_uri("application/json", json.dumps(document, ensure_ascii=False, indent=1).encode())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("answer.html")
