"""`bird data export`: a Med-GRIT folder -> original Med-GRIT files and a folder of images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np

from ...hub.pixels import open_image
from ..folder.publish import png_bytes
from ..folder.shards import shards_of, stream_rows
from ..records import SINGLE_TASKS
from .file_names import check_plain_stem
from .format import PLAIN_NAME, WORD_OF, to_json
from .json_list import MAX_ENTRY_CHARS

_PNG = b"\x89PNG\r\n\x1a\n"


def export_original(folder: Path, out: Path, images: bool = True) -> dict[str, int]:
    """Write a Med-GRIT folder as original files into the new folder `out`; returns the turns of each file.

    Imported rows become the entries that they were; of others, neighbouring rows of an image become one entry, and its
    first question shows the image. images: also write the rows' pixels, as images/ID.png.
    Raises ValueError, in one line, where `out` holds something or the rows are not those that were imported.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; give the name of a new folder")
    making = out.with_name(f".{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    turns: dict[str, int] = {}
    try:
        for task in SINGLE_TASKS:
            for split, paths in shards_of(folder, task).items():
                kept = folder / "original" / f"{split}-{task.value}.jsonl"
                name, entries = f"Med-GRIT_{split}_{WORD_OF[task]}.json", None
                if kept.is_file():
                    entries = _kept_lines(kept)
                    name = next(entries)["file"]
                if name in turns:
                    raise ValueError(f"{kept}: {name} is the name of another file too")
                rows = _exported_rows(paths, making / "images" if images else None)
                grouped = _as_usual(rows) if entries is None else _as_kept(rows, entries, kept)
                turns[name] = _write_list(making / name, grouped)
        if not turns:
            raise ValueError(f"{folder} has no rows of {', '.join(SINGLE_TASKS)}; there is nothing to export")
        if out.exists():
            out.rmdir()
        making.rename(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return turns


def _exported_rows(paths: Sequence[Path], images: Path | None) -> Iterator[tuple[str, list[str]]]:
    """(image id, [question, answer]) of every row; pictures that are not there yet are written on the way."""
    columns = ["image_id", "messages", *(["image"] if images else [])]
    for number, row in enumerate(stream_rows(paths, columns)):
        place = f"{paths[0].parent}, row {number}"
        try:
            check_plain_stem(row["image_id"])
            if images and row["image"] and row["image"]["bytes"]:
                _write_image(row["image"]["bytes"], images / f"{row['image_id']}.png")
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        if [message["role"] for message in row["messages"]] != ["user", "assistant"]:
            raise ValueError(f"{place}: its messages are no question and answer")
        yield row["image_id"], [message["content"] for message in row["messages"]]


def _write_image(content: bytes, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    if not content.startswith(_PNG):
        content = png_bytes(np.asarray(open_image(content)))
    path.write_bytes(content)


def _as_usual(rows: Iterable[tuple[str, list[str]]]) -> Iterator[dict[str, Any]]:
    """Entries of rows that were never in the original form."""
    for image_id, turns in groupby(rows, key=lambda row: row[0]):
        pairs = [words for _, words in turns]
        pairs[0] = [f"Picture 1: <img>images/{image_id}.png</img>\n{pairs[0][0]}", pairs[0][1]]
        yield {"id": image_id, "conversations": pairs}


def _as_kept(
    rows: Iterator[tuple[str, list[str]]], entries: Iterator[dict[str, Any]], kept: Path
) -> Iterator[dict[str, Any]]:
    """Entries as they were before the import."""
    changed = f"the rows are not those that {kept} was written for; remove that file to export them in the usual form"
    for entry in entries:
        pairs = []
        for opening in entry["openings"]:
            image_id, words = next(rows, (None, []))
            if image_id != entry["id"]:
                raise ValueError(changed)
            pairs.append([opening + words[0], words[1]])
        yield {"id": entry["id"], "conversations": pairs} | entry["rest"]
    if next(rows, None) is not None:
        raise ValueError(changed)


def _kept_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of `original/`, first the one that names the file; raises ValueError for any other form."""
    forms = ({"file": str}, {"id": str, "openings": list, "rest": dict})
    with path.open(encoding="utf-8") as lines:
        for number in count(1):
            try:
                line = lines.readline(2 * MAX_ENTRY_CHARS)
                if not line and number > 1:
                    return
                value = json.loads(line)
                form = forms[number > 1]
                whole = isinstance(value, dict) and value.keys() == form.keys()
                if not whole or not all(isinstance(value[key], kind) for key, kind in form.items()):
                    raise ValueError("of another form")
                if number == 1 and not PLAIN_NAME.fullmatch(value["file"]):
                    raise ValueError("no plain file name")
                if not all(isinstance(text, str) for text in value.get("openings", ())):
                    raise ValueError("openings must be texts")
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}; it cannot be trusted") from error
            yield value


def _write_list(path: Path, entries: Iterable[dict[str, Any]]) -> int:
    """Write a JSON list, an entry a line; returns the number of turns."""
    turns = 0
    with path.open("w", encoding="utf-8") as file:
        before = "[\n"
        for entry in entries:
            file.write(before + to_json(entry))
            before = ",\n"
            turns += len(entry["conversations"])
        file.write("\n]\n")
    return turns
