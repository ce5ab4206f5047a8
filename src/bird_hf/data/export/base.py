"""What every trainer is: which dialects it takes, what a row is in its file, and the file that registers the rows."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ...dialects import Dialect, write_dialect
from ..records import SINGLE_TASKS, Task
from .rows import ExportRow, Said, check_marks, say

Picture = Callable[[], bytes]
NAME = "med_grit"  # of the dataset, in registration files


@dataclass
class Export:
    """An export that is being written.

    folder: where its files are now; they will be in `out`. rows: the number of rows of each file, by its name.
    """

    folder: Path
    out: Path
    rows: dict[str, int] = field(default_factory=dict)


class Trainer(ABC):
    """A program that trains or scores models, with the dialect of the model.

    name: as `--to` has it. dialects: those it takes, its default first; empty: any, and one must be given. tasks: those
    that it can use. marks: what it replaces in a text, so that no text may hold it. embeds_pictures: whether rows hold
    their pictures.
    """

    name: ClassVar[str]
    dialects: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[tuple[Task, ...]] = SINGLE_TASKS
    marks: ClassVar[tuple[str, ...]] = ("<image>", "<video>", "<audio>")
    embeds_pictures: ClassVar[bool] = False

    def __init__(self, dialect: Dialect | None) -> None:
        """Raises ValueError if the trainer needs a dialect, or takes another one."""
        known = ", ".join(self.dialects)
        if dialect is None:
            raise ValueError(
                f"--to {self.name} is of no one model: name its way of writing boxes with --dialect"
                if not known
                else f"--to {self.name} needs --dialect, one of {known}"
            )
        if known and dialect.name not in self.dialects:
            raise ValueError(f"--to {self.name} takes --dialect {known}; got {dialect.name}")
        self.dialect: Dialect | None = dialect

    def say(self, row: ExportRow) -> Said:
        """The question and the answer of a row. Raises LeftOutError if they cannot be said."""
        assert self.dialect is not None
        said = say(row, self.dialect)
        check_marks(said, self.marks)
        return said

    def file_of(self, task: Task, split: str) -> str:
        """The name of the file of a row."""
        return f"{NAME}_{split}.jsonl"

    def picture_of(self, row: ExportRow) -> str:
        """The path of a row's picture in the export; rows have it relative to `root_of`."""
        return f"images/{row.stem}.png"

    def head(self) -> str:
        """What a file begins with."""
        return ""

    @abstractmethod
    def row(self, row: ExportRow, said: Said) -> dict[str, Any]:
        """A row of the file."""

    def encode(self, row: ExportRow, said: Said, number: int, picture: Picture | None) -> str:
        """A line of the file. number: of the row in its file. picture: makes a PNG, if rows hold their pictures.

        Text is ASCII: some trainers open files in the encoding of the machine.
        """
        return json.dumps(self.row(row, said) | _origin(row)) + "\n"

    def register(self, export: Export) -> None:
        """Writes the files beside the rows."""
        if self.dialect is not None:
            write_dialect(self.dialect, export.folder)


def _origin(row: ExportRow) -> dict[str, Any]:
    """What a row of ours says of itself; trainers take no notice of it. image_wh: of the picture in Med-GRIT."""
    return {
        "id": row.id,
        "task": row.task.value,
        "modality": row.modality,
        "synthetic": row.synthetic,
        "image_wh": list(row.image_wh),
    }


def dump_json(value: Any, path: Path) -> None:
    """Writes a registration file; text is ASCII."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def conversation(
    question: str, answer: str, roles: Sequence[str], keys: Sequence[str]
) -> list[dict[str, str]]:
    """A question and an answer as two messages, with the trainer's names of roles and keys."""
    return [{keys[0]: role, keys[1]: text} for role, text in zip(roles, (question, answer), strict=True)]
