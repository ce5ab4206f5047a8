"""Florence-2: `left kidney<loc_250><loc_150><loc_625><loc_550>`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ..base import Questions
from ..grids import Grid, Rounding
from ..location_tokens import BoxesLastDialect
from ..views import View

_LOST = re.compile(r"[^\x00-\x7f]|[<\n]")  # in a phrase


@dataclass(frozen=True)
class Florence2Dialect(BoxesLastDialect):
    """Four location tokens for each box behind its label; 1000 bins of the picture, read at their middle.

    Florence's own processor cuts what it reads to whole pixels, strips letters that are not ASCII from phrases, and
    reads nothing before a `<`, or of a phrase with a line break. This reader does none of it. A phrase with boxes that
    the processor would read as another one is not written.
    """

    name: ClassVar[str] = "florence-2"
    models: ClassVar[str] = "Florence-2"
    known: ClassVar[str] = (
        "Florence's processor: floor(v * 1000), at most 999, read at (n + 0.5) / 1000. It has no task for free "
        "questions; mia is not asked. It drops letters of phrases that are not ASCII; a phrase with such letters and a "
        "box is not written, so its row is left out."
    )
    frame: ClassVar[str] = "1000 bins of the picture"
    questions: ClassVar[Questions] = Questions(
        vg="<CAPTION_TO_PHRASE_GROUNDING>{names}",
        roc="<REGION_TO_CATEGORY>{box}",
        rc="<REGION_TO_DESCRIPTION>{box}",
        mia=None,
        name_separator=". ",
    )
    model_types: ClassVar[tuple[str, ...]] = ("florence2",)
    token: ClassVar[str] = "<loc_{:d}>"
    special_tokens: ClassVar[bool] = True

    def _listed(self, objects: list[tuple[str, list[str]]]) -> str:
        """Raises ValueError for a phrase that Florence's processor would read as another one."""
        for label, _ in objects:
            if not label.strip():
                raise ValueError(f"a box without a phrase is nothing that {self.name}'s own processor reads")
            if lost := _LOST.search(label):
                raise ValueError(
                    f"the phrase {label!r} holds {lost.group()!r}, which {self.name}'s own processor does not read"
                )
        return super()._listed(objects)

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=1000, top=999, rounding=Rounding.FLOOR, is_bins=True)
        return grid, grid
