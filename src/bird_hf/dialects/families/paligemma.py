"""PaliGemma: `<loc0153><loc0256><loc0563><loc0639> left kidney`, y first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..base import Questions
from ..grids import Grid, Order
from ..location_tokens import BoxesFirstDialect
from ..views import View


@dataclass(frozen=True)
class PaliGemmaDialect(BoxesFirstDialect):
    """Four location tokens before each label, objects separated by ` ; `. Answers are decoded with special tokens kept.

    The prompts are pretraining tasks that the report (arXiv 2407.07726) lists in section 3.2.5. Google's page on
    PaliGemma's prompts has `detect` and `answer en` too, but no box behind `caption`. The line break that ends a prompt
    is added by transformers' processor. No published weights were asked.

    decode_by: what numbers are divided by when they are read. big_vision, which trained the model, writes
    `round(v * 1023)`; many programs read with 1024. 1023 is the inverse of what was trained.
    """

    decode_by: int = 1023

    name: ClassVar[str] = "paligemma"
    models: ClassVar[str] = "PaliGemma 1 and 2"
    known: ClassVar[str] = (
        "big_vision: round(v * 1023), clipped, y first. `detect`, `answer en` and `caption` with a box are pretraining "
        "tasks of the report (arXiv 2407.07726, 3.2.5). How it is asked for the name of a region is not known; the "
        "question with the box is used. Programs differ in decoding."
    )
    frame: ClassVar[str] = "0 to 1023 of the picture"
    order: ClassVar[Order] = Order.Y_FIRST
    questions: ClassVar[Questions] = Questions(
        vg="detect {names}",
        roc="answer en {question}",
        rc="caption {box}",
        mia="answer en {question}",
        name_separator=" ; ",
    )
    model_types: ClassVar[tuple[str, ...]] = ("paligemma",)
    token: ClassVar[str] = "<loc{:04d}>"
    special_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decode_by not in (1023, 1024):
            raise ValueError(f"{self.name}: decode_by is 1023 or 1024; got {self.decode_by}")

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=1023, top=1023, read_scale=self.decode_by)
        return grid, grid
