"""Kosmos-2: `<phrase>left kidney</phrase><object><patch_index_0136><patch_index_0563></object>`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...hub.boxes import Box
from ...hub.grounding import Issue
from ..base import Numbers, Questions
from ..grids import Grid, Rounding
from ..tagged import TaggedDialect
from ..views import View

_CELLS = 32  # of the grid, along each side
_PAIR = re.compile(r"<patch_index_([0-9]{1,6})>\s*+<patch_index_([0-9]{1,6})>")
_SEPARATOR = "</delimiter_of_multi_objects/>"


@dataclass(frozen=True)
class Kosmos2Dialect(TaggedDialect):
    """A box is its first and its last cell of a grid of 32 x 32 cells, counted by rows.

    A box is read back from the middle of its first cell to the middle of its last, but from edge to edge if both are in
    one row or one column. An edge can move by 1/32 of the picture: good for evaluation, too coarse for training data.
    """

    name: ClassVar[str] = "kosmos-2"
    models: ClassVar[str] = "Kosmos-2"
    known: ClassVar[str] = "Kosmos-2's processor in transformers."
    frame: ClassVar[str] = "cells of a grid of 32 x 32"
    questions: ClassVar[Questions] = Questions(
        vg="<grounding><phrase>{names}</phrase>",
        roc="<grounding>Question: {question} Answer:",
        rc="<grounding>Question: {question} Answer:",
        mia="Question: {question} Answer:",
        vg_unnamed="<grounding>Question: {question} Answer:",
        name_separator="</phrase><phrase>",
    )
    model_types: ClassVar[tuple[str, ...]] = ("kosmos-2",)
    phrase_tags: ClassVar[tuple[str, str]] = ("<phrase>", "</phrase>")
    box_tags: ClassVar[tuple[str, str]] = ("<object>", "</object>")
    other_tags: ClassVar[tuple[str, ...]] = ("<grounding>",)
    groups_boxes: ClassVar[bool] = True
    special_tokens: ClassVar[bool] = True

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=_CELLS, top=_CELLS - 1, rounding=Rounding.FLOOR, is_bins=True)
        return grid, grid

    def describe(self) -> dict[str, str]:
        read_at = "the middle of a cell; the edge if both cells are in one row or column"
        return super().describe() | {"rounding": "first cell down, last cell up", "read_at": read_at}

    def quantum(self, view: View) -> tuple[float, float]:
        return 1 / _CELLS, 1 / _CELLS

    def numbers(self, box: Box, view: View) -> tuple[int, int, int, int]:
        """Column and row of the first cell, column and row of the last cell."""
        x1, y1, x2, y2 = view.to_seen(box)
        column, row = math.floor(x1 * _CELLS), math.floor(y1 * _CELLS)
        # The last cell is not before the first, whatever floats make of a very thin box.
        return column, row, max(column, math.ceil(x2 * _CELLS - 1)), max(row, math.ceil(y2 * _CELLS - 1))

    def box(self, numbers: Numbers, view: View) -> Box | Issue:
        x1, y1, x2, y2 = numbers
        if max(numbers) >= _CELLS:
            return Issue.OUT_OF_RANGE
        if x1 > x2 or y1 > y2:
            return Issue.INVERTED_BOX
        near, far = (0.0, 1.0) if x1 == x2 or y1 == y2 else (0.5, 0.5)
        seen = (x1 + near) / _CELLS, (y1 + near) / _CELLS, (x2 + far) / _CELLS, (y2 + far) / _CELLS
        return view.from_seen(seen, self.quantum(view)) or Issue.OUTSIDE_PICTURE

    def format_content(self, boxes: Sequence[Box], view: View) -> str:
        return _SEPARATOR.join(
            map("<patch_index_{:04d}><patch_index_{:04d}>".format, *self._cells(boxes, view))
        )

    def read_content(self, content: str, view: View) -> list[Box | Issue]:
        found: list[Box | Issue] = []
        for part in content.split(_SEPARATOR):
            pair = _PAIR.fullmatch(part.strip())
            if pair is None:
                found.append(Issue.NOT_FOUR_NUMBERS)
                continue
            (y1, x1), (y2, x2) = (divmod(int(cell), _CELLS) for cell in pair.groups())
            found.append(self.box((x1, y1, x2, y2), view))
        return found

    def _cells(self, boxes: Sequence[Box], view: View) -> tuple[list[int], list[int]]:
        """The first and the last cell of each box, counted by rows."""
        corners = [self.numbers(box, view) for box in boxes]
        return [y1 * _CELLS + x1 for x1, y1, _, _ in corners], [y2 * _CELLS + x2 for _, _, x2, y2 in corners]
