"""InternVL's own fine-tuning code (internvl_chat): conversations, and the file of `--meta_path`."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import Export, Trainer, conversation, dump_json
from .rows import ExportRow, Said

_MOST_TILES = 12  # of a picture; the default of its code


class InternVL(Trainer):
    """`{"id", "image", "width", "height", "conversations": [{"from": "human", ...}, {"from": "gpt", ...}]}`."""

    name: ClassVar[str] = "internvl"
    dialects: ClassVar[tuple[str, ...]] = ("internvl", "medrega")

    def row(self, row: ExportRow, said: Said) -> dict[str, Any]:
        width, height = row.image_wh
        talk = conversation(f"<image>\n{said.question}", said.answer, ("human", "gpt"), ("from", "value"))
        return {"image": self.picture_of(row), "width": width, "height": height, "conversations": talk}

    def register(self, export: Export) -> None:
        super().register(export)
        meta = {
            name.removesuffix(".jsonl"): {
                "root": str(export.out),
                "annotation": str(export.out / name),
                "data_augment": False,
                "max_dynamic_patch": _MOST_TILES,
                "repeat_time": 1,
                "length": rows,
            }
            for name, rows in export.rows.items()
        }
        dump_json(meta, export.folder / "meta.json")
