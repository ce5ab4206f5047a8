"""Qwen's own fine-tuning code (qwen-vl-finetune): conversations, and the entries of its table of datasets."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import Export, Trainer, conversation, dump_json
from .rows import ExportRow, Said


class Qwen(Trainer):
    """`{"image": "images/ID.png", "conversations": [{"from": "human", ...}, {"from": "gpt", ...}]}`.

    Its table of datasets is Python (`qwenvl/data/__init__.py`, `data_dict`); `data_dict.json` has the entries for it.
    """

    name: ClassVar[str] = "qwen"
    dialects: ClassVar[tuple[str, ...]] = ("qwen3-vl", "qwen2.5-vl", "qwen2-vl")

    def row(self, row: ExportRow, said: Said) -> dict[str, Any]:
        talk = conversation(f"<image>\n{said.question}", said.answer, ("human", "gpt"), ("from", "value"))
        return {"image": self.picture_of(row), "conversations": talk}

    def register(self, export: Export) -> None:
        super().register(export)
        entries = {
            name.removesuffix(".jsonl"): {
                "annotation_path": str(export.out / name),
                "data_path": str(export.out),
            }
            for name in export.rows
        }
        dump_json(entries, export.folder / "data_dict.json")
