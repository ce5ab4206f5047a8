"""The examples of a report (eval/examples.py) as pictures and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..eval.examples import Example, Rank
from ..eval.split_images import MissingPixelsError, SplitImages
from ..hub.grounding import Span
from ..markdown import Table
from .html import thumbnail_with_boxes

_SIDE_PX = 480
_NAME_CHARS = 120
_NOTE = (
    "Grounding answers by the sum of the IoUs of their pairs over the larger number of boxes, of different modalities "
    "where there are."
)
_COLOURS = " Solid: the model's boxes. Dashed green: the reference."
_NO_IMAGES = (
    " Boxes are in thousandths of the image. Give --data, the folder of the questions, to see them drawn."
)


@dataclass(frozen=True)
class Shown:
    """An example on the page. picture: a data URI, or None if there is no image."""

    example: Example
    picture: str | None


def shown_example(example: Example, images: SplitImages | None) -> Shown:
    """The example with its image, if there is one."""
    if images is None:
        return Shown(example, None)
    try:
        image = images[example.prediction.image]
    except (KeyError, MissingPixelsError):
        return Shown(example, None)
    return Shown(example, thumbnail_with_boxes(image, example.answered, _SIDE_PX, example.wanted))


def examples_note(has_images: bool) -> str:
    """What stands above the examples."""
    return _NOTE + (_COLOURS if has_images else _NO_IMAGES)


def examples_table(shown: Sequence[Shown]) -> Table:
    """The examples in words and numbers."""
    lines = [
        [
            each.rank.value,
            f"{each.score:.2f}",
            _name(each),
            each.question,
            each.answer,
            _corners(each.answered),
            each.reference,
            _corners(each.wanted),
        ]
        for each in (item.example for item in shown)
    ]
    return Table(
        ["rank", "score", "image", "question", "answer", "boxes", "reference", "reference boxes"], lines
    )


def ranked(shown: Sequence[Shown]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The examples of each rank as the template shows them."""
    groups = []
    for rank in Rank:
        figures = [_figure(each) for each in shown if each.example.rank is rank]
        if figures:
            groups.append((rank.value, figures))
    return groups


def _figure(shown: Shown) -> dict[str, Any]:
    each = shown.example
    return {
        "picture": shown.picture,
        "score": f"{each.score:.2f}",
        "outcome": each.outcome.value.replace("_", " "),
        "name": _name(each),
        "question": each.question,
        "answer": each.answer,
        "reference": each.reference,
        "boxes": _corners(each.answered),
        "reference_boxes": _corners(each.wanted),
    }


def _name(example: Example) -> str:
    return f"id {example.prediction.id}, {example.prediction.image[:_NAME_CHARS]}"


def _corners(spans: Sequence[Span]) -> str:
    return " ".join(str(box.to_thousandths()) for span in spans for box in span.boxes) or "none"
