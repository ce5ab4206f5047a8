"""MAIRA-2: `<obj>left kidney <box><x16><y15><x66><y55></box></obj>`, of the middle square of the picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...hub.boxes import Box
from ...hub.grounding import GroundedText, Issue
from ..base import Questions, numbers_of
from ..grids import Grid, Rounding
from ..tagged import TaggedDialect
from ..views import View, centre_crop

_FOUR = re.compile(r"<x([0-9]++)>\s*+<y([0-9]++)>\s*+<x([0-9]++)>\s*+<y([0-9]++)>")


@dataclass(frozen=True)
class Maira2Dialect(TaggedDialect):
    """100 bins of the middle square, read at their middle. What lies outside the square cannot be said.

    MAIRA's own processor also cuts what it reads to whole pixels; this reader does not.
    """

    name: ClassVar[str] = "maira-2"
    models: ClassVar[str] = "MAIRA-2"
    known: ClassVar[str] = (
        "MAIRA-2's processor, which reads; it writes no boxes, so rounding down follows from that. "
        "The model answers reports and phrases; it is not asked about regions."
    )
    frame: ClassVar[str] = "100 bins of the middle square"
    sees: ClassVar[str] = "the middle square of the picture"
    questions: ClassVar[Questions] = Questions(
        vg="Repeat the following finding as a grounded phrase with bounding boxes indicating all locations where it "
        "can be seen in the given chest X-ray image. Finding: {names}",
        roc=None,
        rc=None,
        mia=None,
    )
    model_types: ClassVar[tuple[str, ...]] = ("maira2",)
    phrase_tags: ClassVar[tuple[str, str]] = ("<obj>", "</obj>")
    box_tags: ClassVar[tuple[str, str]] = ("<box>", "</box>")
    has_boxes_inside: ClassVar[bool] = True
    keeps_text: ClassVar[bool] = False

    def view(self, image_wh: tuple[int, int]) -> View:
        return centre_crop(image_wh)

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=100, top=99, rounding=Rounding.FLOOR, is_bins=True)
        return grid, grid

    def _compose(self, answer: GroundedText, view: View) -> str:
        """One tagged phrase after the other: MAIRA's processor refuses words between them."""
        spans = [span for span in self._spans(answer) if span.boxes]
        if not spans:
            return answer.text
        return " ".join(self._tagged(span.phrase, span.boxes, view) for span in spans)

    def format_content(self, boxes: Sequence[Box], view: View) -> str:
        return "".join("<x{}><y{}><x{}><y{}>".format(*self.numbers(box, view)) for box in boxes)

    def read_content(self, content: str, view: View) -> list[Box | Issue]:
        found = _FOUR.fullmatch(content.strip())
        numbers = numbers_of(found.groups(), whole=True) if found else None
        return [self.box(numbers, view) if numbers else Issue.NOT_FOUR_NUMBERS]
