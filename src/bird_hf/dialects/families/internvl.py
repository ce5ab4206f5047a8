"""InternVL: `<ref>left kidney</ref><box>[[250, 150, 625, 550]]</box>`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..base import Questions
from ..grids import Grid
from ..tagged import ListTagsDialect
from ..views import View


@dataclass(frozen=True)
class InternVLDialect(ListTagsDialect):
    """All boxes of a phrase in one list, thousandths of the picture.

    The picture is cut into tiles, which changes nothing: the numbers refer to the whole of it.
    """

    name: ClassVar[str] = "internvl"
    models: ClassVar[str] = "InternVL 2 to 3.5"
    known: ClassVar[str] = (
        "InternVL's fine-tuning documentation, 0 to 1000. Its own rounding is not known; Python's round is ms-swift's. "
        "The prompt is that of its RefCOCO evaluation. No InternVL model was run, not even a tiny one: tests use the "
        "dialect with a tiny Idefics3."
    )
    frame: ClassVar[str] = "thousandths of the picture"
    questions: ClassVar[Questions] = Questions(
        vg="Please provide the bounding box coordinate of the region this sentence describes: <ref>{names}</ref>",
        vg_unnamed="{question}",
        name_separator="</ref> <ref>",
    )
    model_types: ClassVar[tuple[str, ...]] = ("internvl", "internvl_chat")
    phrase_tags: ClassVar[tuple[str, str]] = ("<ref>", "</ref>")
    box_tags: ClassVar[tuple[str, str]] = ("<box>", "</box>")
    special_tokens: ClassVar[bool] = True

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=1000, top=1000)
        return grid, grid
