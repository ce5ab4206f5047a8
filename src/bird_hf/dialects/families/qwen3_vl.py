"""Qwen3-VL: a JSON list of boxes in thousandths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..base import Questions
from ..grids import Grid
from ..json_lists import JsonDialect
from ..views import View


@dataclass(frozen=True)
class Qwen3VLDialect(JsonDialect):
    """`[{"bbox_2d": [250, 150, 625, 550], "label": "left kidney"}]`, x first, thousandths of the picture.

    How a box is written in a question is not published: here it is the list of four numbers behind its words.
    """

    name: ClassVar[str] = "qwen3-vl"
    models: ClassVar[str] = "Qwen3-VL"
    known: ClassVar[str] = (
        "Qwen's fine-tuning code and its maintainers' answers: 0 to 1000, Python's round, clipped. The row of that "
        "code's own README is invalid JSON and in pixels; it is not followed. The form in questions is not known."
    )
    frame: ClassVar[str] = "thousandths of the picture"
    questions: ClassVar[Questions] = Questions(
        vg="Locate the {names} in this image and output the bbox coordinates in JSON format.",
        vg_unnamed="{question} Report bbox coordinates in JSON format.",
        name_separator=" and the ",
    )
    absent: ClassVar[str | None] = "[]"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl", "qwen3_vl_moe")
    key: ClassVar[str] = "bbox_2d"

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=1000, top=1000)
        return grid, grid
