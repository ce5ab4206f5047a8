"""LLaMA-Factory: rows as messages, and `dataset_info.json`. It has no handling of boxes: they are text."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import Export, Trainer, conversation, dump_json
from .rows import ExportRow, Said


class LlamaFactory(Trainer):
    """`{"messages": [...], "images": ["images/ID.png"]}`, with `--dataset_dir` and `--media_dir` at the export."""

    name: ClassVar[str] = "llama-factory"

    def row(self, row: ExportRow, said: Said) -> dict[str, Any]:
        messages = conversation(
            f"<image>{said.question}", said.answer, ("user", "assistant"), ("role", "content")
        )
        return {"messages": messages, "images": [self.picture_of(row)]}

    def register(self, export: Export) -> None:
        super().register(export)
        tags = {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        }
        info = {
            name.removesuffix(".jsonl"): {
                "file_name": name,
                "formatting": "sharegpt",
                "columns": {"messages": "messages", "images": "images"},
                "tags": tags,
            }
            for name in export.rows
        }
        dump_json(info, export.folder / "dataset_info.json")
