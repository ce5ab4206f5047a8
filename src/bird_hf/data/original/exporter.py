"""`bird data export`: a Med-GRIT folder -> original Med-GRIT files and a folder of images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_writes import check_new_folder, replacing_folder
from ...hub.pixels import open_image
from ..folder.publish import png_bytes
from ..folder.shards import shards_of, stream_rows
from ..records import SINGLE_TASKS
from .file_names import check_plain_stem
from .format import PLAIN_NAME, WORD_OF, to_json
from .json_list import MAX_ENTRY_CHARS

_PNG = b"\x89PNG\r\n\x1a\n"


def export_original(folder: Path, out: Path, images: bool = True) -> dict[str, int]:
    """Write a Med-GRIT folder as original files into the new folder `out`; returns the number of turns of each file.

    Imported rows become the entries that they were imported from. In other folders, adjacent rows of an image become
    one entry. images: also write the images of the rows, as images/ID.png.
    Raises ValueError if `out` is not empty, or the rows of an import were changed.
    """
    check_new_folder(out)
    turns: dict[str, int] = {}
    with replacing_folder(out) as making:
        for task in SINGLE_TASKS:
            for split, paths in shards_of(folder, task).items():
                layout = folder / "original" / f"{split}-{task.value}.jsonl"
                rows = _tagged_rows(paths, making / "images" if images else None)
                name, entries = _entries(rows, layout, f"Med-GRIT_{split}_{WORD_OF[task]}.json")
                if name in turns:
                    raise ValueError(f"{layout}: {name} is the name of another file too")
                turns[name] = _write_list(making / name, entries)
        if not turns:
            raise ValueError(f"{folder} has no rows of {', '.join(SINGLE_TASKS)}; there is nothing to export")
    return turns


def _entries(
    rows: Iterator[tuple[str, list[str]]], layout: Path, usual_name: str
) -> tuple[str, Iterator[dict[str, Any]]]:
    """The file name and the entries of rows, as before the import if `layout` exists."""
    if not layout.is_file():
        return usual_name, _new_entries(rows)
    lines = _layout_lines(layout)
    return next(lines)["file"], _imported_entries(rows, lines, layout)


def _tagged_rows(paths: Sequence[Path], images: Path | None) -> Iterator[tuple[str, list[str]]]:
    """Yields (image id, [question, answer]) of every row, and writes the images if a folder for them is given."""
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
            raise ValueError(f"{place}: its messages are not one question and one answer")
        yield row["image_id"], [message["content"] for message in row["messages"]]


def _write_image(content: bytes, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    if not content.startswith(_PNG):
        content = png_bytes(np.asarray(open_image(content)))
    path.write_bytes(content)


def _new_entries(rows: Iterable[tuple[str, list[str]]]) -> Iterator[dict[str, Any]]:
    """Yields entries of rows that were not imported. The first question of an entry refers to the image."""
    for image_id, turns in groupby(rows, key=lambda row: row[0]):
        pairs = [pair for _, pair in turns]
        pairs[0] = [f"Picture 1: <img>images/{image_id}.png</img>\n{pairs[0][0]}", pairs[0][1]]
        yield {"id": image_id, "conversations": pairs}


def _imported_entries(
    rows: Iterator[tuple[str, list[str]]], lines: Iterator[dict[str, Any]], layout: Path
) -> Iterator[dict[str, Any]]:
    """Yields entries as they were before the import."""
    changed = f"the rows are not those that {layout} was written for; remove that file to export them as new entries"
    for line in lines:
        pairs = []
        for prefix in line["openings"]:
            image_id, pair = next(rows, (None, []))
            if image_id != line["id"]:
                raise ValueError(changed)
            pairs.append([prefix + pair[0], pair[1]])
        yield {"id": line["id"], "conversations": pairs} | line["rest"]
    if next(rows, None) is not None:
        raise ValueError(changed)


def _layout_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a file in `original/`; the first names the original file, each other is an entry.

    Raises ValueError if a line has another form.
    """
    with path.open(encoding="utf-8") as lines:
        for number in count(1):
            try:
                line = lines.readline(2 * MAX_ENTRY_CHARS)
                if not line and number > 1:
                    return
                value = json.loads(line)
                _check_layout_line(value, first=number == 1)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}; the file cannot be trusted") from error
            yield value


def _check_layout_line(value: Any, first: bool) -> None:
    form = {"file": str} if first else {"id": str, "openings": list, "rest": dict}
    if not isinstance(value, dict) or value.keys() != form.keys():
        raise ValueError(f"it must have the keys {', '.join(form)}")
    if not all(isinstance(value[key], kind) for key, kind in form.items()):
        raise ValueError("a value has the wrong type")
    if first and not PLAIN_NAME.fullmatch(value["file"]):
        raise ValueError(f"{value['file'][:80]!r} is not a plain file name")
    if not all(isinstance(text, str) for text in value.get("openings", ())):
        raise ValueError("openings must be texts")


def _write_list(path: Path, entries: Iterable[dict[str, Any]]) -> int:
    """Write a JSON list with one entry per line; returns the number of turns."""
    turns = 0
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for entry in entries:
            file.write(separator + to_json(entry))
            separator = ",\n"
            turns += len(entry["conversations"])
        file.write("\n]\n")
    return turns
