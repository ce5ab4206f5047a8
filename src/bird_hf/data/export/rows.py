"""Rows of a Med-GRIT folder as questions and answers in a dialect, and why a row is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ...dialects import ABSENT_TEXT, Dialect, NotVisibleError, View
from ...hub.boxes import Box
from ...hub.grounding import GroundedText, Span, read
from ..folder.left_out import LeftOutRow
from ..records import Task

_FLOAT_NOISE = 1e-9


class Reason(StrEnum):
    """Why a row is left out."""

    BROKEN_TEXT = "broken_text"
    BOX_NOT_VISIBLE = "box_not_visible"
    TASK_NOT_ASKED = "task_not_asked"
    NOT_WRITABLE = "not_writable"


_WHAT_TO_DO = {
    Reason.BROKEN_TEXT: "The row's tags are broken: mend the row, or leave it.",
    Reason.BOX_NOT_VISIBLE: "The model does not see the box: choose a dialect that sees the whole picture.",
    Reason.TASK_NOT_ASKED: "The model has no way to be asked this: choose the tasks with --tasks.",
    Reason.NOT_WRITABLE: "The dialect cannot say this so that it is read back: choose another dialect.",
}


class LeftOutError(ValueError):
    """A row that cannot be said."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def row(self, name: str) -> LeftOutRow:
        """The line of `left_out.csv`."""
        return LeftOutRow(name, self.reason.value, self.detail, _WHAT_TO_DO[self.reason])


@dataclass(frozen=True)
class ExportRow:
    """A question and its answer as clean text with boxes in fractions of the picture.

    id: unique in an export, such as `vg-train-12`. labels: of the objects that the question is about. is_absent:
    whether the answer is that none of them is there. stem: the name of the picture file without `.png`.
    """

    id: str
    task: Task
    split: str
    stem: str
    image_wh: tuple[int, int]
    modality: str
    synthetic: bool
    labels: tuple[str, ...]
    is_absent: bool
    question: GroundedText
    answer: GroundedText


@dataclass(frozen=True)
class Said:
    """The question and the answer of a row as a trainer is given them."""

    question: str
    answer: str


def read_row(row: Mapping[str, Any], task: Task, split: str, number: int) -> ExportRow:
    """A row of a shard. Raises LeftOutError if its text is broken, ValueError if the row cannot be trusted."""
    messages = row["messages"]
    if [message["role"] for message in messages] != ["user", "assistant"]:
        raise ValueError("its messages are not one question and one answer")
    width, height = row["image_wh"]
    if not (width >= 1 and height >= 1):
        raise ValueError(f"image_wh [{width}, {height}] is no size of a picture")
    texts = [read(message["content"]) for message in messages]
    if issues := [issue for text in texts for issue in text.issues]:
        raise LeftOutError(Reason.BROKEN_TEXT, f"{issues[0]} in its text")
    exact = _exact_boxes(row["objects"])
    question, answer = (_with_boxes(text, exact) for text in texts)
    is_absent = (
        task is Task.VISUAL_GROUNDING
        and bool(row["objects"])
        and not answer.boxes
        and not any(item["present"] for item in row["objects"])
    )
    return ExportRow(
        f"{task}-{split}-{number}",
        task,
        split,
        row["image_id"],
        (width, height),
        row["modality"],
        row["synthetic"],
        tuple(dict.fromkeys(item["label"] for item in row["objects"])),
        is_absent,
        question,
        answer,
    )


def say(row: ExportRow, dialect: Dialect) -> Said:
    """A row in a dialect. Raises LeftOutError if the dialect cannot say it, or would not read the same boxes."""
    if getattr(dialect.questions, row.task.value) is None:
        raise LeftOutError(Reason.TASK_NOT_ASKED, f"{dialect.name} is not asked {row.task}")
    names = row.labels if row.task is Task.VISUAL_GROUNDING else ()
    answer = row.answer
    if row.is_absent and dialect.absent is not None:
        answer = GroundedText(ABSENT_TEXT)
    try:
        view = dialect.view(row.image_wh)
        said = Said(dialect.ask(row.task.value, row.question, view, names), dialect.write(answer, view))
    except NotVisibleError as error:
        raise LeftOutError(Reason.BOX_NOT_VISIBLE, str(error)) from error
    except ValueError as error:
        raise LeftOutError(Reason.NOT_WRITABLE, str(error)) from error
    _check_read_back(said.answer, row.answer.boxes, dialect, view)
    return said


def check_marks(said: Said, marks: Sequence[str]) -> None:
    """Raises LeftOutError if a text holds a mark that the trainer replaces, such as `<image>`."""
    for text in (said.question, said.answer):
        for mark in marks:
            if mark in text:
                raise LeftOutError(Reason.NOT_WRITABLE, f"the text holds {mark}, which the trainer replaces")


def _check_read_back(text: str, boxes: Sequence[Box], dialect: Dialect, view: View) -> None:
    found = dialect.read(text, view)
    quantum = dialect.quantum(view) * 2
    same = len(found.boxes) == len(boxes) and all(
        abs(one - other) <= most + _FLOAT_NOISE
        for box, again in zip(boxes, found.boxes, strict=True)
        for one, other, most in zip(view.to_seen(box), view.to_seen(again), quantum, strict=True)
    )
    if not same or found.issues:
        what = f" ({found.issues[0]})" if found.issues else ""
        raise LeftOutError(Reason.NOT_WRITABLE, f"{dialect.name} reads other boxes in {text[:80]!r}{what}")


def _exact_boxes(objects: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int, int, int], Box]:
    """The boxes of objects, by the thousandths that text has of them. Raises ValueError if one is malformed."""
    exact = {}
    for item in objects:
        if item["box"]:
            try:
                box = Box(*item["box"])
            except (TypeError, ValueError) as error:
                raise ValueError(f"the box of {item['instance_id']!r} is malformed ({error})") from error
            exact[box.to_thousandths()] = box
    return exact


def _with_boxes(text: GroundedText, exact: Mapping[tuple[int, int, int, int], Box]) -> GroundedText:
    """The same text, with each box as its object has it: text has whole thousandths only."""
    spans = tuple(
        Span(
            span.phrase,
            span.start,
            span.end,
            tuple(exact.get(box.to_thousandths(), box) for box in span.boxes),
        )
        for span in text.spans
    )
    return GroundedText(text.text, spans)
