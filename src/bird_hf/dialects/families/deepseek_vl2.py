"""DeepSeek-VL2: `<|ref|>left kidney<|/ref|><|det|>[[250, 150, 624, 549]]<|/det|>`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..base import Questions
from ..grids import Grid
from ..tagged import ListTagsDialect
from ..views import View


@dataclass(frozen=True)
class DeepSeekVL2Dialect(ListTagsDialect):
    """All boxes of a phrase in one list, 0 to 999 of the picture, read as n / 999.

    Keep special tokens when an answer is decoded (`skip_special_tokens=False`): the tags are some.
    """

    name: ClassVar[str] = "deepseek-vl2"
    models: ClassVar[str] = "DeepSeek-VL2"
    known: ClassVar[str] = (
        "DeepSeek's example code, which draws a box at n / 999. Its training code is not published, so the rounding is "
        "not known; Python's is used. The form in questions is not known; that of answers is used."
    )
    frame: ClassVar[str] = "0 to 999 of the picture"
    questions: ClassVar[Questions] = Questions(
        vg="<|ref|>{names}<|/ref|>.",
        vg_unnamed="<|grounding|>{question}",
        name_separator="<|/ref|> <|ref|>",
    )
    model_types: ClassVar[tuple[str, ...]] = ("deepseek_vl_v2",)
    phrase_tags: ClassVar[tuple[str, str]] = ("<|ref|>", "<|/ref|>")
    box_tags: ClassVar[tuple[str, str]] = ("<|det|>", "<|/det|>")
    special_tokens: ClassVar[bool] = True
    other_tags: ClassVar[tuple[str, ...]] = ("<|grounding|>",)

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=999, top=999)
        return grid, grid
