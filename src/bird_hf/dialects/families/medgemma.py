"""MedGemma 1.5: a fenced JSON list, y first, of the picture padded to a square."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ...hub.grounding import GroundedText
from ..base import Questions
from ..grids import Grid, Order
from ..json_lists import JsonDialect
from ..views import View, padded_square

_BEFORE_ANSWER = "Final Answer:"
_ANSWER_MARK = re.compile(r"final answer\**+:\**+\s*+", re.IGNORECASE)  # some write it in bold
_FORM = (
    "Boxes are [y0, x0, y1, x1], the upper left and the lower right corner, each number from 0 to 1000 of the image's "
    'height or width. Give them as one JSON list in a ```json fence: a "box_2d" and a "label" for each object. "Left" '
    "means the patient's left."
)


@dataclass(frozen=True)
class MedGemmaDialect(JsonDialect):
    """`Final Answer: ```json[{"box_2d": [238, 250, 538, 625], "label": "left kidney"}]``` `.

    Pad the picture with black to a square before the model sees it (`View.padding_px` says where). Thinking traces
    between `<unused94>` and `<unused95>` are left out, also when they are not closed.
    """

    name: ClassVar[str] = "medgemma"
    models: ClassVar[str] = "MedGemma 1.5 (chest X-rays)"
    known: ClassVar[str] = (
        "Google's notebook: y first, 0 to 1000, padded square. The paper says 0 to 1, which the notebook does not "
        "follow. The rounding is not known; Python's is used. The form in questions is not known."
    )
    frame: ClassVar[str] = "thousandths of the padded square"
    sees: ClassVar[str] = "the picture in the middle of a square; an odd pixel is added at the right or below"
    order: ClassVar[Order] = Order.Y_FIRST
    questions: ClassVar[Questions] = Questions(
        vg=f'{_FORM} Where is the {{names}}? Write "{_BEFORE_ANSWER}" before the list.',
        vg_unnamed=f'{_FORM} {{question}} Write "{_BEFORE_ANSWER}" before the list.',
        name_separator=" and the ",
    )
    absent: ClassVar[str | None] = f"{_BEFORE_ANSWER} ```json[]```"
    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
    name_parts: ClassVar[tuple[str, ...]] = ("medgemma",)
    thinking: ClassVar[tuple[tuple[str, str], ...]] = (("<unused94>", "<unused95>"), ("<think>", "</think>"))
    key: ClassVar[str] = "box_2d"
    padding_rgb: ClassVar[tuple[int, int, int] | None] = (0, 0, 0)

    def view(self, image_wh: tuple[int, int]) -> View:
        return padded_square(image_wh)

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=1000, top=1000)
        return grid, grid

    def _compose(self, answer: GroundedText, view: View) -> str:
        text = super()._compose(answer, view)
        return f"{_BEFORE_ANSWER} ```json{text}```" if answer.boxes else text

    def _parse(self, text: str, view: View) -> GroundedText:
        """Reads what follows the last "Final Answer:", or all if that is not there."""
        return super()._parse(_ANSWER_MARK.split(text)[-1], view)
