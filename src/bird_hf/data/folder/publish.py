"""Publishing: dialogues -> Parquet shards and a dataset card, in a folder that `load_dataset` takes.

med-grit/README.md                        the card; its front matter lists configs and splits
med-grit/data/vg/train-00000-of-00002.parquet
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image

from ... import markdown
from ...atomic_writes import replacing_folder, write_text
from ..records import Dialogue, MaskedImage, Task, dialogue_row
from .shards import Rows, shard_pattern, write_shards
from .subsets import Subset

if TYPE_CHECKING:
    from datasets import Dataset

# In the package, not among the repository's scripts: an installed `bird` writes cards too.
_CARD = Template(Path(__file__).with_name("card.md").read_text(encoding="utf-8"))
_ABOUT_SUBSETS = """

A config such as `chat_20k` holds as many images of the training split as fit into 20,000 turns. Images are never
divided, the shares of modalities and datasets are those of the whole split, and each subset is part of the next larger
one. The test split is always the whole one."""

_ABOUT_MASKS = """
| `masks` | for each of `objects`: `instance_id`, `size` [height, width], `counts`: COCO's run lengths, or null |"""


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels (H, W) or (H, W, 3) uint8."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def image_cell(image: MaskedImage) -> dict[str, Any]:
    """The `image` column of a row: the PNG and its SA-Med2D file name."""
    return {"bytes": png_bytes(image.pixels), "path": f"{image.info.image_id}.png"}


def rows_of(dialogue: Dialogue, cell: dict[str, Any] | None) -> dict[Task, Rows]:
    """The rows of a dialogue by config: one row per turn under the turn's task, and one with all turns under `chat`."""
    rows: dict[Task, Rows] = {Task.CHAT: [dialogue_row(dialogue, cell) | {"task": Task.CHAT.value}]}
    for turn in dialogue.turns:
        single = Dialogue(dialogue.record, (turn,), dialogue.teacher, dialogue.independent)
        rows.setdefault(turn.task, []).append(dialogue_row(single, cell))
    return rows


def publish(
    splits: Mapping[str, Iterable[tuple[Dialogue, dict[str, Any] | None]]],
    out: Path,
    card: str,
    shards: int = 2,
) -> dict[str, dict[str, int]]:
    """Write a Med-GRIT folder; returns the number of rows by config and split.

    splits: the dialogues of each split, each with the `image` cell of its rows. card: what the README says about this
    dataset (see `write_card`). In an existing folder `out`, files of the same names are replaced and others stay.
    """
    counts: dict[str, dict[str, int]] = {}
    with replacing_folder(out) as making:
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
    return counts


def write_card(
    folder: Path,
    counts: Mapping[str, Mapping[str, int]],
    body: str,
    subsets: Sequence[Subset] = (),
    masks: bool = False,
) -> None:
    """Write the README of a dataset folder from the template `card.md`. The shards must be there already.

    counts: rows by config and split, for the front matter that `load_dataset` reads and for a table. body: what is said
    about this dataset, in Markdown. subsets: parts of the training split that become configs of their own. masks:
    whether rows have the column `masks`.
    """
    of_subsets = {
        f"{task}_{subset.name}": {**counts[task], "train": rows}
        for subset in subsets
        for task, rows in subset.rows.items()
    }
    card = _CARD.substitute(
        header=yaml.safe_dump(_front_matter(folder, counts, subsets), sort_keys=False),
        body=body,
        rows=_rows_table({**counts, **of_subsets}) + (_ABOUT_SUBSETS if subsets else ""),
        config=next(iter(counts), "vg"),
        masks=_ABOUT_MASKS if masks else "",
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "README.md", card)


def open_folder(folder: Path, task: str, split: str) -> Dataset:
    """Load the rows of a Med-GRIT folder with `load_dataset`.

    Raises ValueError if the folder is not a Med-GRIT folder, or has no such task or split.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    if task not in [str(known) for known in Task]:
        raise ValueError(f"task {task!r} is unknown; use one of {', '.join(Task)}")
    card = folder / "README.md"
    if not card.is_file() or not card.read_text(encoding="utf-8", errors="replace").startswith("---"):
        raise ValueError(f"{folder} is not a Med-GRIT folder; `bird data sample --out {folder}` makes one")
    try:
        dataset = load_dataset(str(folder), task, split=split)
    except (ValueError, OSError, DatasetsError) as error:
        raise ValueError(
            f"{folder} has no readable task {task!r} with a split {split!r} ({error})"
        ) from error
    if missing := {"image_id", "image", "messages"} - {*dataset.column_names}:
        raise ValueError(f"{folder} is not a Med-GRIT folder: its rows lack {', '.join(sorted(missing))}")
    return dataset


def _rows_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The numbers of rows as Markdown: a line per config, a column per split."""
    splits = list(dict.fromkeys(split for of_task in counts.values() for split in of_task))
    rows = [[task, *(of_task.get(split, 0) for split in splits)] for task, of_task in counts.items()]
    return markdown.table(["config", *splits], rows)


def _digest(folder: Path) -> str:
    """One sha256 of the names and contents of the shards of a config."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.parquet")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _files_of(
    folder: Path, task: str, subset: Subset, counts: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """The files of a subset's config: its part of the training split, and the other splits whole."""
    shards = sorted((folder / "data" / task).glob(shard_pattern("train")))[: subset.shards[task]]
    paths = {split: f"data/{task}/{shard_pattern(split)}" for split in counts[task]}
    named: dict[str, Any] = paths | {"train": [f"data/{task}/{path.name}" for path in shards]}
    return {"default": False, "data_files": [{"split": split, "path": path} for split, path in named.items()]}


def _front_matter(
    folder: Path, counts: Mapping[str, Mapping[str, int]], subsets: Sequence[Subset]
) -> dict[str, Any]:
    """The metadata of the card, for the hub and for `load_dataset`.

    The description of each config is a hash of its shards: for a local folder, `load_dataset` looks rows up in its
    cache by the folder's name and these configs alone, and would otherwise return the rows of an older folder of the
    same name.
    """
    configs: list[dict[str, Any]] = [
        {
            "config_name": task,
            "description": f"sha256 {_digest(folder / 'data' / task)}",
            "data_files": [
                {"split": split, "path": f"data/{task}/{shard_pattern(split)}"} for split in splits
            ],
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
