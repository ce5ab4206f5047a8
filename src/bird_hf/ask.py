"""One question about one image: from a file and words to text with boxes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .checkpoint.load import load_checkpoint
from .eval.predict import Query, generate_answers
from .hub.boxes import Box
from .hub.grounding import GroundedText, Span, read, write
from .hub.image_processing_bird import open_image

# The words of a question that a box stands behind: "What is this?", "Describe this region.", not "this image".
_POINTING = re.compile(
    r"\bthis(?: (?:region|structure|object|area))?\b(?! (?:image|picture|scan|slice)\b)", re.IGNORECASE
)


@dataclass(frozen=True)
class Answer:
    """What the model wrote, as it stands (`raw`) and as it was read (`grounded`), and the image's size."""

    raw: str
    grounded: GroundedText
    image_wh: tuple[int, int]

    def as_json(self) -> dict[str, Any]:
        """The form of `bird ask --json`; boxes in the unit frame and in pixels of the image."""
        return {
            "text": self.grounded.text,
            "raw": self.raw,
            "spans": [span_json(span, self.image_wh) for span in self.grounded.spans],
            "issues": [str(issue) for issue in self.grounded.issues],
        }


def span_json(span: Span, image_wh: tuple[int, int]) -> dict[str, Any]:
    """A span with its boxes in both frames."""
    return {
        "phrase": span.phrase,
        "start": span.start,
        "end": span.end,
        "boxes_unit": [list(box.xyxy) for box in span.boxes],
        "boxes_px": [list(box.to_pixels(image_wh)) for box in span.boxes],
    }


def ask(
    model_folder: str | Path, image_path: str | Path, question: str, box_px: Sequence[float] | None = None
) -> tuple[Answer, Image.Image]:
    """Ask a checkpoint a question about an image file; returns the answer and the image as it was read.

    box_px: (x1, y1, x2, y2) half-open pixels that the question is about. Raises ValueError, in one line, where
    the image, the question, the box or the checkpoint is not usable.
    """
    image = open_image(image_path)
    tagged = tagged_question(question, Box.from_pixels(box_px, image.size) if box_px is not None else None)
    model, processor = load_checkpoint(model_folder)
    (raw,) = generate_answers(model, processor, [Query(tagged, image)])
    return Answer(raw, read(raw), image.size), image


def tagged_question(question: str, box: Box | None = None) -> str:
    """A question as the model reads it; a box stands behind "this ..." or, without such words, at the end."""
    question = question.strip()
    if not question:
        raise ValueError('the question is empty; ask something, such as "Where is the liver?"')
    if box is None:
        return question
    if not _POINTING.search(question):
        question += " this region"
    return _POINTING.sub(lambda found: _boxed(found.group(), box), question, count=1)


def read_box_px(text: str, name: str = "box") -> tuple[float, ...]:
    """The four numbers of "x1,y1,x2,y2"; `name` is what the error calls the text."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise ValueError(f"{name} {text!r} is not four numbers x1,y1,x2,y2 in pixels, such as 10,20,110,90")
    return numbers


def _boxed(phrase: str, box: Box) -> str:
    return write(phrase, [Span(phrase, 0, len(phrase), (box,))])
