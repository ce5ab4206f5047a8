"""MedRegA: InternVL's tags with numbers from 0 to 999."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..grids import Grid
from ..views import View
from .internvl import InternVLDialect


@dataclass(frozen=True)
class MedRegADialect(InternVLDialect):
    """`<ref>left kidney</ref><box>[[250, 150, 624, 549]]</box>`: 999 is the far edge, numbers are read as n / 999."""

    name: ClassVar[str] = "medrega"
    models: ClassVar[str] = "MedRegA (InternVL 1.2)"
    known: ClassVar[str] = (
        "MedRegA's code: 0 to 999, decoded with 999. Its rounding is not known; Python's is used. Its prompts are not "
        "known either; those of InternVL are used."
    )
    frame: ClassVar[str] = "0 to 999 of the picture"
    model_types: ClassVar[tuple[str, ...]] = ("internvl_chat",)
    name_parts: ClassVar[tuple[str, ...]] = ("medrega",)

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=999, top=999)
        return grid, grid
