"""PaliGemma and Florence-2: rows of a prefix and a suffix, as big_vision and the usual notebooks read them."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import Trainer
from .rows import ExportRow, Said


class PaliGemma(Trainer):
    """`{"image": "images/ID.png", "prefix": "detect left kidney", "suffix": "<loc0153>... left kidney"}`."""

    name: ClassVar[str] = "paligemma"
    dialects: ClassVar[tuple[str, ...]] = ("paligemma",)

    def row(self, row: ExportRow, said: Said) -> dict[str, Any]:
        return {"image": self.picture_of(row), "prefix": said.question, "suffix": said.answer}


class Florence2(PaliGemma):
    """`{"image": ..., "prefix": "<CAPTION_TO_PHRASE_GROUNDING>left kidney", "suffix": "left kidney<loc_250>..."}`."""

    name: ClassVar[str] = "florence-2"
    dialects: ClassVar[tuple[str, ...]] = ("florence-2",)
