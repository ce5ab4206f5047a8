"""An answer as the page shows it: HTML for its words, boxes and downloads, and outlines for the picture.

Phrases and boxes that belong together have the same number (`data-span`) and the same colour as in `draw_spans`.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from ..draw import MODEL_COLOURS, draw_spans
from ..hub.boxes import Box
from ..hub.grounding import GroundedText, Span
from ..inference import Answer
from .examples import box_text

_MAX_DOWNLOAD_PX = 1024  # longer side of the PNG, which travels in the page
_ASKED = "your box"


class Reply(NamedTuple):
    """Values of the components that show an answer: two pieces of HTML; empty before the first answer."""

    message: str
    answer: str


@dataclass(frozen=True)
class Asked:
    """A question that was answered.

    words: the question without its box. box: the box that it refers to.
    reference: the answer of the test row, if the question is that of an example.
    """

    image: Image.Image
    words: str
    box: Box | None = None
    reference: GroundedText | None = None

    def spans_with(self, answer: Answer) -> tuple[Span, ...]:
        """The box of the question, then the spans of the answer: the order in which colours are given."""
        own = (Span(_ASKED, 0, 0, (self.box,)),) if self.box else ()
        return (*own, *answer.spans)


def message_line(words: str) -> str:
    """One line of the page's message area, which screen readers announce at once."""
    return f'<div role="alert">{html.escape(" ".join(words.split()))}</div>'


def no_answer(message: str = "") -> Reply:
    """The reply without an answer. message: what is wrong, in one line."""
    return Reply(message_line(message) if message else "", _template().render(answer=None))


def reply_of(answer: Answer, asked: Asked) -> Reply:
    """Render an answer; the texts say if it has no words or boxes, or is malformed."""
    issues = ", ".join(answer.issues)
    page = _template().render(
        answer=answer,
        pieces=list(_pieces(answer, asked)),
        boxes=[mark for mark in outlines(asked, answer) if mark["kind"] == "found"],
        reference=asked.reference.text if asked.reference else "",
        downloads=_downloads(answer, asked),
    )
    return Reply(message_line(f"Malformed answer: {issues}.") if issues else "", page)


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


def outlines(asked: Asked, answer: Answer) -> list[dict[str, Any]]:
    """The boxes to draw over the picture, the reference first.

    Each has its kind (reference or found), its phrase, its box in pixels of the image as numbers and as text, and,
    if it is found, the number of its span and its colour.
    """
    reference = asked.reference.spans if asked.reference else ()
    marks = [_mark("reference", span, box, asked) for span in reference for box in span.boxes]
    first = 1 if asked.box else 0
    for number, span in enumerate(answer.spans, first):
        for box in span.boxes:
            colour = {"number": number, "colour": _colour(number)}
            marks.append(_mark("found", span, box, asked) | colour)
    return marks


def _mark(kind: str, span: Span, box: Box, asked: Asked) -> dict[str, Any]:
    xyxy = box.to_pixels(asked.image.size)
    return {"kind": kind, "phrase": span.phrase or "(no phrase)", "xyxy": list(xyxy), "text": box_text(xyxy)}


def _colour(number: int) -> str:
    return MODEL_COLOURS[number % len(MODEL_COLOURS)]


class _Piece(NamedTuple):
    """A part of an answer's text; `number` and `colour` are those of its span, if it has boxes."""

    text: str
    number: int | None = None
    colour: str = ""


def _pieces(answer: Answer, asked: Asked) -> Iterator[_Piece]:
    """The answer's text, cut at the phrases that have boxes."""
    end = 0
    for number, span in enumerate(answer.spans, 1 if asked.box else 0):
        if span.boxes and end <= span.start < span.end:
            yield _Piece(answer.text[end : span.start])
            yield _Piece(answer.text[span.start : span.end], number, _colour(number))
            end = span.end
    yield _Piece(answer.text[end:])


class _Download(NamedTuple):
    name: str
    label: str
    uri: str


def _downloads(answer: Answer, asked: Asked) -> list[_Download]:
    """The answer as files. They are part of the page, so that the server keeps none."""
    return [
        _Download("answer.png", "PNG", _data_uri("image/png", _png(answer, asked))),
        _Download("answer.json", "JSON", _json_uri(_document(answer, asked))),
        _Download("answer.coco.json", "COCO", _json_uri(coco(answer, asked.image.size))),
    ]


def _png(answer: Answer, asked: Asked) -> bytes:
    picture = asked.image.copy()
    picture.thumbnail((_MAX_DOWNLOAD_PX, _MAX_DOWNLOAD_PX))
    reference = asked.reference.spans if asked.reference else ()
    stream = io.BytesIO()
    draw_spans(picture, asked.spans_with(answer), reference).save(stream, format="PNG")
    return stream.getvalue()


def _document(answer: Answer, asked: Asked) -> dict[str, Any]:
    size = asked.image.size
    box = list(asked.box.to_pixels(size)) if asked.box else None
    return {"question": asked.words, "box_px": box, "image_wh": list(size), **answer.to_json()}


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
