"""TRL, and MedGemma, whose notebooks train with it: a folder that `load_dataset` opens, pictures and all."""

from __future__ import annotations

from typing import Any, ClassVar

import yaml

from ..records import Task
from .base import Export, Trainer, conversation
from .rows import ExportRow, Said

_FILE = "metadata.jsonl"  # the name under which `datasets` looks for the rows of a folder of images


class Trl(Trainer):
    """`{"file_name": "images/ID.png", "prompt": [...], "completion": [...]}`, which is loaded as image and messages.

    SFTTrainer counts the loss on completions only, and puts the image into the first message itself.
    """

    name: ClassVar[str] = "trl"

    def file_of(self, task: Task, split: str) -> str:
        return f"{split}/{_FILE}"

    def picture_of(self, row: ExportRow) -> str:
        return f"{row.split}/images/{row.stem}.png"

    def row(self, row: ExportRow, said: Said) -> dict[str, Any]:
        question, answer = conversation(
            said.question, said.answer, ("user", "assistant"), ("role", "content")
        )
        return {"file_name": f"images/{row.stem}.png", "prompt": [question], "completion": [answer]}

    def register(self, export: Export) -> None:
        super().register(export)
        splits = [name.split("/")[0] for name in export.rows]
        files = [{"split": split, "path": f"{split}/**"} for split in splits]
        header = yaml.safe_dump(
            {"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False
        )
        text = f"---\n{header}---\n\nMed-GRIT rows; the boxes are written as `dialect.json` says.\n"
        (export.folder / "README.md").write_text(text, encoding="utf-8")


class MedGemma(Trl):
    """The rows of TRL, with pictures padded to squares, as MedGemma's notebook pads them."""

    name: ClassVar[str] = "medgemma"
    dialects: ClassVar[tuple[str, ...]] = ("medgemma",)
