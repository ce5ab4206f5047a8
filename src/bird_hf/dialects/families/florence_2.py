"""Florence-2: `left kidney<loc_250><loc_150><loc_625><loc_550>`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..base import Questions
from ..grids import Grid, Rounding
from ..location_tokens import BoxesLastDialect
from ..views import View


@dataclass(frozen=True)
class Florence2Dialect(BoxesLastDialect):
    """Four location tokens for each box behind its label; 1000 bins of the picture, read at their middle.

    Florence's own processor also cuts what it reads to whole pixels and strips letters that are not ASCII from
    phrases; this reader does neither. A phrase that is not ASCII is written as it is.
    """

    name: ClassVar[str] = "florence-2"
    models: ClassVar[str] = "Florence-2"
    known: ClassVar[str] = (
        "Florence's processor: floor(v * 1000), at most 999, read at (n + 0.5) / 1000. It has no task for free "
        "questions; mia is not asked."
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

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=1000, top=999, rounding=Rounding.FLOOR, is_bins=True)
        return grid, grid
