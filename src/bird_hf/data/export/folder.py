"""Export a Med-GRIT folder for a trainer: rows stream through, so memory stays flat."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from ...atomic_writes import check_new_folder, replacing_folder
from ...dialects import View
from ...progress import progress_bar
from ..folder.left_out import LEFT_OUT, LeftOutRow, write_left_out
from ..folder.shards import Row, shards_of, stream_rows
from ..records import Task
from .base import Export, Picture, Trainer
from .pictures import Pictures, check_stem
from .rows import ExportRow, LeftOutError, read_row

_COLUMNS = ("image_id", "image_wh", "modality", "messages", "objects", "synthetic")


@dataclass(frozen=True)
class Exported:
    """What an export wrote. rows: of each file, by its name. left_out: rows that were left out, by reason."""

    rows: dict[str, int]
    left_out: Counter[str]


@dataclass(frozen=True)
class Choice:
    """Which rows and pictures to export; by default all splits, all tasks of the trainer, and the pictures.

    images_dir: a folder with IMAGE_ID.png for rows without pixels. link: link to its files instead of copying them.
    """

    splits: Sequence[str] | None = None
    tasks: Sequence[Task] | None = None
    images: bool = True
    images_dir: Path | None = None
    link: bool = False


def export_for(trainer: Trainer, folder: Path, out: Path, choice: Choice | None = None) -> Exported:
    """Write a Med-GRIT folder for a trainer into the new folder `out`; a row per question and answer.

    Rows that the dialect cannot say are left out, counted, and listed in `left_out.csv`. Raises ValueError if `out` is
    not empty, the folder lacks what is chosen, a row cannot be trusted, or nothing is left.
    """
    choice = choice or Choice()
    check_new_folder(out)
    shards = _chosen(trainer, folder, choice)
    with replacing_folder(out) as making:
        writer = _Writer(trainer, Export(making, out.absolute()), choice)
        for (task, split), paths in shards.items():
            writer.write(task, split, paths)
        exported = writer.finish()
        if not exported.rows:
            raise ValueError(
                f"none of the {exported.left_out.total()} rows of {folder} can be exported: "
                + ", ".join(f"{reason} {count}" for reason, count in exported.left_out.items())
            )
    return exported


def _chosen(trainer: Trainer, folder: Path, choice: Choice) -> dict[tuple[Task, str], list[Path]]:
    """The shards to export. Raises ValueError if the trainer cannot use a task, or the folder lacks one."""
    for task in choice.tasks or ():
        if task not in trainer.tasks:
            raise ValueError(f"--to {trainer.name} takes the tasks {', '.join(trainer.tasks)}; got {task}")
    of_task = {task: shards_of(folder, task) for task in choice.tasks or trainer.tasks}
    if missing := [task for task in choice.tasks or () if not of_task[task]]:
        raise ValueError(f"{folder} has no rows of {', '.join(missing)}")
    known = dict.fromkeys(split for splits in of_task.values() for split in splits)
    if not known:
        raise ValueError(f"{folder} has no rows of {', '.join(trainer.tasks)}; there is nothing to export")
    if missing_splits := [split for split in choice.splits or () if split not in known]:
        raise ValueError(f"{folder} has no split {', '.join(missing_splits)}; it has {', '.join(known)}")
    splits = [split for split in known if choice.splits is None or split in choice.splits]
    return {
        (task, split): of_task[task][split] for split in splits for task in of_task if split in of_task[task]
    }


@dataclass
class _Writer:
    """Writes rows while they arrive."""

    trainer: Trainer
    export: Export
    choice: Choice
    left_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        padding = (self.trainer.dialect and self.trainer.dialect.padding_rgb) or (0, 0, 0)
        self._pictures = Pictures(self.choice.images_dir, self.choice.link, padding)
        self._waiting = self.export.folder / ".left_out.jsonl"

    def write(self, task: Task, split: str, paths: Sequence[Path]) -> None:
        """Write the rows of a task and split, behind those that their file has already."""
        name = self.trainer.file_of(task, split)
        path = self.export.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = [*_COLUMNS, *(["image"] if self.choice.images else [])]
        bar = progress_bar(
            stream_rows(paths, columns), desc=f"{task} {split}", total=_count(paths), unit="row"
        )
        with ExitStack() as stack:
            file = stack.enter_context(path.open("a", encoding="utf-8", newline=""))
            left_out = stack.enter_context(self._waiting.open("a", encoding="utf-8"))
            for number, row in enumerate(bar):
                try:
                    self._add(row, task, split, number, file)
                except LeftOutError as error:
                    self.left_out[error.reason.value] += 1
                    line = error.row(f"{row['image_id']}, {task}-{split}-{number}")
                    left_out.write(json.dumps(line) + "\n")
                except ValueError as error:
                    raise ValueError(f"{paths[0].parent}, {split}, row {number}: {error}") from error
        if not self.export.rows.get(name):
            path.unlink()
            if path.parent != self.export.folder:
                path.parent.rmdir()

    def finish(self) -> Exported:
        """Write the files beside the rows."""
        if self.left_out:
            write_left_out(self._left_out_rows(), self.export.folder / LEFT_OUT)
        self._waiting.unlink(missing_ok=True)
        self.trainer.register(self.export)
        return Exported(self.export.rows, self.left_out)

    def _add(self, row: Row, task: Task, split: str, number: int, file: IO[str]) -> None:
        check_stem(row["image_id"])
        found = read_row(row, task, split, number)
        said = self.trainer.say(found)
        picture = self._picture(row, found) if self.choice.images else None
        name = self.trainer.file_of(task, split)
        done = self.export.rows.get(name, 0)
        if not done:
            file.write(self.trainer.head())
        file.write(self.trainer.encode(found, said, done, picture))
        self.export.rows[name] = done + 1

    def _picture(self, row: Row, found: ExportRow) -> Picture | None:
        """Write the picture of a row; or return what makes it, if rows hold their pictures."""
        dialect = self.trainer.dialect
        view = dialect.view(found.image_wh) if dialect else View(found.image_wh)
        if self.trainer.embeds_pictures:
            return partial(self._pictures.png, row, view)
        self._pictures.place(row, view, self.export.folder / self.trainer.picture_of(found))
        return None

    def _left_out_rows(self) -> Iterator[LeftOutRow]:
        with self._waiting.open(encoding="utf-8") as lines:
            for line in lines:
                yield LeftOutRow(*json.loads(line))


def _count(paths: Sequence[Path]) -> int | None:
    """The number of rows of shards, from their footers; None if one cannot be read, which reading it will say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return sum(pq.read_metadata(path).num_rows for path in paths)
    except (OSError, pa.ArrowException):
        return None
