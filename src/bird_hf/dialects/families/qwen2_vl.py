"""Qwen2-VL: special tokens around phrases and boxes, thousandths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..base import Questions
from ..grids import Grid
from ..tagged import PointTagsDialect
from ..views import View


@dataclass(frozen=True)
class Qwen2VLDialect(PointTagsDialect):
    """`<|object_ref_start|>left kidney<|object_ref_end|><|box_start|>(250,150),(625,550)<|box_end|>`.

    Keep special tokens when an answer is decoded (`skip_special_tokens=False`): the tags are some.
    """

    name: ClassVar[str] = "qwen2-vl"
    models: ClassVar[str] = "Qwen2-VL; Qwen2.5-VL and Qwen3-VL if they were trained on this form"
    known: ClassVar[str] = (
        "ms-swift's conversion, which rounds with Python's round. Qwen's own rounding is not known."
    )
    frame: ClassVar[str] = "thousandths of the picture"
    questions: ClassVar[Questions] = Questions(
        vg="Locate <|object_ref_start|>{names}<|object_ref_end|> in this image.",
        vg_unnamed="{question}",
        name_separator="<|object_ref_end|> and <|object_ref_start|>",
    )
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    phrase_tags: ClassVar[tuple[str, str]] = ("<|object_ref_start|>", "<|object_ref_end|>")
    box_tags: ClassVar[tuple[str, str]] = ("<|box_start|>", "<|box_end|>")
    special_tokens: ClassVar[bool] = True

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=1000, top=1000)
        return grid, grid
