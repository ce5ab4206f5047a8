"""ms-swift: its own form, which it turns into that of the model it trains; or the rows of a dialect."""

from __future__ import annotations

from typing import Any, ClassVar

from ...dialects import Dialect
from ...hub.boxes import Box
from ...hub.grounding import GroundedText
from .base import Export, Trainer, conversation, dump_json
from .rows import ExportRow, LeftOutError, Reason, Said, check_marks

_PHRASE, _BOX = "<ref-object>", "<bbox>"


class MsSwift(Trainer):
    """`{"messages": [...], "images": [...], "objects": {"ref": [...], "bbox": [...], "bbox_type": "norm1"}}`.

    Without a dialect, phrases and boxes are `<ref-object>` and `<bbox>` in the text, and ms-swift writes what the
    model's template says. `ref` and `bbox` are two lists that it goes through in the order of these marks, over all
    messages; boxes are fractions of the picture. With a dialect, text is what the dialect writes.
    """

    name: ClassVar[str] = "ms-swift"
    marks: ClassVar[tuple[str, ...]] = (*Trainer.marks, _PHRASE, _BOX, "<cot-process>")

    def __init__(self, dialect: Dialect | None) -> None:
        if dialect is None:
            self.dialect = None
        else:
            super().__init__(dialect)

    def say(self, row: ExportRow) -> Said:
        if self.dialect is not None:
            return super().say(row)
        check_marks(Said(row.question.text, row.answer.text), self.marks)
        for box in (*row.question.boxes, *row.answer.boxes):
            _check_thousandths(box)
        return Said(_marked(row.question), _marked(row.answer))

    def row(self, row: ExportRow, said: Said) -> dict[str, Any]:
        messages = conversation(
            f"<image>{said.question}", said.answer, ("user", "assistant"), ("role", "content")
        )
        line: dict[str, Any] = {"messages": messages, "images": [self.picture_of(row)]}
        if self.dialect is not None:
            return line
        texts = (row.question, row.answer)
        phrases = [span.phrase for text in texts for span in text.spans if span.phrase]
        boxes = [list(box.xyxy) for text in texts for box in text.boxes]
        return line | {"objects": {"ref": phrases, "bbox": boxes, "bbox_type": "norm1"}}

    def register(self, export: Export) -> None:
        super().register(export)
        info = [{"dataset_path": name, "dataset_name": name.removesuffix(".jsonl")} for name in export.rows]
        dump_json(info, export.folder / "dataset_info.json")


def _marked(text: GroundedText) -> str:
    """A text with marks in place of phrases and boxes."""
    pieces, done = [], 0
    for span in text.spans:
        pieces += [text.text[done : span.start], _PHRASE if span.phrase else "", _BOX * len(span.boxes)]
        done = span.end
    return "".join([*pieces, text.text[done:]])


def _check_thousandths(box: Box) -> None:
    """ms-swift rounds to thousandths and keeps boxes that are empty then."""
    x1, y1, x2, y2 = (round(value * 1000) for value in box.xyxy)
    if x1 >= x2 or y1 >= y2:
        raise LeftOutError(Reason.NOT_WRITABLE, f"the box {box.xyxy} is empty in thousandths")
