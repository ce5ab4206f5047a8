"""Publishing: rows -> Parquet shards and a card, in the folder that `load_dataset` takes.

    med-grit/README.md                        the card; its front matter lists configs and splits
    med-grit/data/vg/train-00000-of-00002.parquet

A folder is written under a temporary name and moved into place when it is whole.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image

from ..records import Dialogue, MaskedImage, Task, dialogue_row, row_features
from .subsets import Subset

if TYPE_CHECKING:
    from datasets import Dataset

Rows = list[dict[str, Any]]
# Rows of one image stand next to each other and repeat its PNG; zstd finds the repetition in its window.
_COMPRESSION = "zstd"
_ROW_GROUP = 64
# In the package, not among the repository's scripts: an installed `bird` writes cards too.
_CARD = Template(Path(__file__).with_name("card.md").read_text(encoding="utf-8"))
_OF_SUBSETS = """

A config such as `chat_20k` holds the part of the training split that has so many turns: whole images, in the shares of
modalities and datasets that all have. Each part lies in the next; the test split is that of all."""


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels (H, W) or (H, W, 3) uint8."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def image_cell(image: MaskedImage) -> dict[str, Any]:
    """The `image` column of a row: the PNG and its SA-Med2D file name."""
    return {"bytes": png_bytes(image.pixels), "path": f"{image.info.image_id}.png"}


def rows_of(dialogue: Dialogue, cell: dict[str, Any] | None) -> dict[Task, Rows]:
    """The rows of a dialogue by config: one a turn under the turn's task, and all turns under `chat`."""
    rows: dict[Task, Rows] = {Task.CHAT: [dialogue_row(dialogue, cell) | {"task": Task.CHAT.value}]}
    for turn in dialogue.turns:
        single = Dialogue(dialogue.record, (turn,), dialogue.teacher, dialogue.independent)
        rows.setdefault(turn.task, []).append(dialogue_row(single, cell))
    return rows


def write_shards(rows: Rows, folder: Path, split: str, shards: int) -> None:
    """Write rows as `folder`/SPLIT-0000i-of-0000n.parquet; rows keep their order from shard to shard."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = max(1, min(shards, len(rows)))
    edges = np.linspace(0, len(rows), shards + 1).astype(int)
    for number, (start, stop) in enumerate(pairwise(edges)):
        write_shard(rows[start:stop], folder / f"{split}-{number:05d}-of-{shards:05d}.parquet")


def write_shard(rows: Rows, path: Path) -> None:
    """Write one Parquet file; it appears under its name only when it is whole."""
    import pyarrow.parquet as pq
    from datasets import Dataset

    features = row_features()
    table = Dataset.from_list(rows, features=features).data.table.cast(features.arrow_schema)
    making = path.with_suffix(".making")
    pq.write_table(table, making, compression=_COMPRESSION, row_group_size=_ROW_GROUP)
    making.rename(path)


def publish(
    splits: Mapping[str, Iterable[tuple[Dialogue, dict[str, Any] | None]]],
    out: Path,
    card: str,
    shards: int = 2,
) -> dict[str, dict[str, int]]:
    """Write a Med-GRIT folder; returns the number of rows by config and split.

    splits: for each split its dialogues, each with the `image` cell of its rows. `card` is what the README says
    of this dataset (see `write_card`). Of an older folder at `out`, the files of the same names are replaced.
    """
    making = out.with_name(f".{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    counts: dict[str, dict[str, int]] = {}
    for split, dialogues in splits.items():
        by_task: dict[Task, Rows] = {}
        for dialogue, cell in dialogues:
            for task, rows in rows_of(dialogue, cell).items():
                by_task.setdefault(task, []).extend(rows)
        for task in Task:
            if task in by_task:
                write_shards(by_task[task], making / "data" / task.value, split, shards)
                counts.setdefault(task.value, {})[split] = len(by_task[task])
    write_card(making, counts, card)
    replace_folder(making, out)
    return counts


def write_card(
    folder: Path, counts: Mapping[str, Mapping[str, int]], body: str, subsets: Sequence[Subset] = ()
) -> None:
    """Write the README of a dataset folder: `card.md` around what `body` says of this one.

    counts: rows by config and split; they become the front matter that `load_dataset` reads, and a table. subsets:
    parts of the training split, which become configs too. The shards stand in the folder already.
    """
    of_subsets = {
        f"{task}_{subset.name}": {**counts[task], "train": rows}
        for subset in subsets
        for task, rows in subset.rows.items()
    }
    card = _CARD.substitute(
        header=yaml.safe_dump(_front_matter(folder, counts, subsets), sort_keys=False),
        body=body,
        rows=_rows_table({**counts, **of_subsets}) + (_OF_SUBSETS if subsets else ""),
        config=next(iter(counts), "vg"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(card, encoding="utf-8")


def open_folder(folder: Path, task: str, split: str) -> Dataset:
    """The rows of a Med-GRIT folder.

    Raises ValueError, in one line, where the folder is none, or has no such task or split.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    if task not in [str(known) for known in Task]:
        raise ValueError(f"task {task!r} is unknown; use one of {', '.join(Task)}")
    card = folder / "README.md"
    if not card.is_file() or not card.read_text(encoding="utf-8", errors="replace").startswith("---"):
        raise ValueError(f"{folder} is no Med-GRIT folder; `bird data sample --out {folder}` makes one")
    try:
        dataset = load_dataset(str(folder), task, split=split)
    except (ValueError, OSError, DatasetsError) as error:
        raise ValueError(
            f"{folder} has no readable task {task!r} with a split {split!r} ({error})"
        ) from error
    if missing := {"image_id", "image", "messages"} - {*dataset.column_names}:
        raise ValueError(f"{folder} is no Med-GRIT folder: its rows lack {', '.join(sorted(missing))}")
    return dataset


def replace_folder(made: Path, out: Path) -> None:
    """Move a finished folder into place. In an older one, files and folders of the same names are replaced.

    Anything else that stands there is somebody's and stays.
    """
    if not out.exists():
        made.rename(out)
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give the name of a folder")
    old = out / ".replaced"
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    for entry in made.iterdir():
        target = out / entry.name
        if target.exists():
            target.rename(old / entry.name)
        entry.rename(target)
    shutil.rmtree(old)
    made.rmdir()


def _rows_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The numbers of rows as Markdown: a line a config, a column a split."""
    splits = list(dict.fromkeys(split for of_task in counts.values() for split in of_task))
    lines = [["config", *splits], ["---"] * (len(splits) + 1)]
    lines += [[task, *(f"{of_task.get(split, 0):,}" for split in splits)] for task, of_task in counts.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _digest(folder: Path) -> str:
    """One sha256 over the shards of a config, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.parquet")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _files_of(
    folder: Path, task: str, subset: Subset, counts: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """The files of a subset's config: its part of the training split, and all of the others."""
    shards = sorted((folder / "data" / task).glob("train-*.parquet"))[: subset.shards[task]]
    paths = {split: f"data/{task}/{split}-*.parquet" for split in counts[task]}
    named: dict[str, Any] = paths | {"train": [f"data/{task}/{path.name}" for path in shards]}
    return {"default": False, "data_files": [{"split": split, "path": path} for split, path in named.items()]}


def _front_matter(
    folder: Path, counts: Mapping[str, Mapping[str, int]], subsets: Sequence[Subset]
) -> dict[str, Any]:
    """What the hub and `load_dataset` read of a card.

    Each config says what its shards hold. For a local folder, `load_dataset` looks rows up in its cache by the folder's
    name and these configs alone, and would otherwise give the rows of an older folder of the same name.
    """
    configs: list[dict[str, Any]] = [
        {
            "config_name": task,
            "description": f"sha256 {_digest(folder / 'data' / task)}",
            "data_files": [{"split": split, "path": f"data/{task}/{split}-*.parquet"} for split in splits],
        }
        for task, splits in counts.items()
    ]
    if configs:
        configs[0]["default"] = True
    of_task = {config["config_name"]: config for config in configs}
    configs += [
        of_task[task] | {"config_name": f"{task}_{subset.name}"} | _files_of(folder, task, subset, counts)
        for subset in subsets
        for task in counts
        if task in subset.shards
    ]
    return {
        "pretty_name": "Med-GRIT",
        "license": "other",
        "task_categories": ["image-text-to-text", "visual-question-answering", "object-detection"],
        "tags": ["medical", "grounding", "referring"],
        "configs": configs,
    }
