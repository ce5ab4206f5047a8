"""VLMEvalKit: one table per task and split, for its class of custom question sets."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from typing import Any, ClassVar

from ...dialects import Dialect
from ..records import Task
from .base import NAME, Picture, Trainer
from .rows import ExportRow, Said

_CORNERS = ("x1", "y1", "x2", "y2")
_COLUMNS = (
    "index",
    "image",
    "question",
    "answer",
    "split",
    *(f"bbox_{corner}" for corner in _CORNERS),
    *(f"bbox_{corner}_norm" for corner in _CORNERS),
    "width",
    "height",
    "id",
    "modality",
    "synthetic",
)


class VlmEvalKit(Trainer):
    """Tab-separated `index, image, question, answer`, and the box of an answer that has exactly one.

    image: a PNG in base64, or the index of the row before that has the same picture.
    """

    name: ClassVar[str] = "vlmevalkit"
    embeds_pictures: ClassVar[bool] = True

    def __init__(self, dialect: Dialect | None) -> None:
        super().__init__(dialect)
        self._picture: tuple[str, int] = ("", -1)  # the last one, and the index of its row

    def file_of(self, task: Task, split: str) -> str:
        return f"{NAME}_{task}_{split}.tsv"

    def head(self) -> str:
        self._picture = ("", -1)
        return "\t".join(_COLUMNS) + "\n"

    def row(self, row: ExportRow, said: Said) -> dict[str, Any]:
        width, height = row.image_wh
        cells: dict[str, Any] = {"question": said.question, "answer": said.answer, "split": row.split}
        if len(row.answer.boxes) == 1:
            [box] = row.answer.boxes
            pixels = box.to_pixels(row.image_wh)
            cells |= {f"bbox_{name}": value for name, value in zip(_CORNERS, pixels, strict=True)}
            cells |= {f"bbox_{name}_norm": value for name, value in zip(_CORNERS, box.xyxy, strict=True)}
        facts = {"id": row.id, "modality": row.modality, "synthetic": row.synthetic}
        return cells | {"width": width, "height": height} | facts

    def encode(self, row: ExportRow, said: Said, number: int, picture: Picture | None) -> str:
        cells = {"index": number, "image": ""} | self.row(row, said)
        if picture is not None:
            if self._picture[0] != row.stem:
                self._picture = (row.stem, number)
                cells["image"] = b64encode(picture()).decode("ascii")
            else:
                cells["image"] = self._picture[1]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, _COLUMNS, restval="", delimiter="\t", lineterminator="\n")
        writer.writerow(cells)
        return stream.getvalue()
