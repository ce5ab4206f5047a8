"""Shikra: `left kidney [0.250,0.275,0.625,0.575]`, of the picture padded to a square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...hub.boxes import Box
from ..base import Questions
from ..grids import Grid, Rounding
from ..number_lists import NumberListDialect
from ..views import View, padded_square


@dataclass(frozen=True)
class ShikraDialect(NumberListDialect):
    """Three decimal places behind the words; several boxes of one phrase in one list, separated by `;`.

    The picture is padded with white to a square (an odd pixel at the right or below) before the numbers are taken.
    """

    name: ClassVar[str] = "shikra"
    models: ClassVar[str] = "Shikra"
    known: ClassVar[str] = (
        "Shikra's code: Python's round to three places of the padded square. Which question it is asked with is drawn "
        "from many; one is used here."
    )
    frame: ClassVar[str] = "fractions of the padded square"
    sees: ClassVar[str] = "the picture in the middle of a square; an odd pixel is added at the right or below"
    questions: ClassVar[Questions] = Questions(
        vg="Where is the {names}? Give the coordinates.", vg_unnamed="{question}", name_separator=" and the "
    )
    model_types: ClassVar[tuple[str, ...]] = ("shikra",)
    decimals: ClassVar[int] = 3
    padding_rgb: ClassVar[tuple[int, int, int] | None] = (255, 255, 255)
    separator: ClassVar[str] = ","

    def format_boxes(self, boxes: Sequence[Box], view: View) -> str:
        return f"[{';'.join(self._listed(box, view) for box in boxes)}]" if boxes else ""

    def view(self, image_wh: tuple[int, int]) -> View:
        return padded_square(image_wh)

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=1000, top=1000, rounding=Rounding.DECIMAL)
        return grid, grid
