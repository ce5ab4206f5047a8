"""Settings of the builds that the tests share, and functions that read what a build or a review wrote."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bird_hf.data.build.pipeline import BuildSettings
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.records import Modality, Task

COUNT, SIDE = 5, 64  # phantoms per modality, pixels
IMAGES = COUNT * len(Modality)
SETTINGS = BuildSettings(seed=3)  # of `built`
REVIEW_SETTINGS = BuildSettings(seed=0)  # of `unreviewed`

Table = list[dict[str, str]]


def run(*arguments: object) -> subprocess.Popen[str]:
    """Start `bird data build` in a process of its own."""
    command = [sys.executable, "-m", "bird_hf.cli", "data", "build", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def published(out: Path) -> dict[str, bytes]:
    """The bytes of all published files, by name."""
    paths = (path for path in out.rglob("*") if path.is_file() and not {".build", "review"} & {*path.parts})
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def rows_of(out: Path, task: str = "chat") -> list[dict[str, Any]]:
    """The rows of a task in both splits, without images."""
    return [
        row for split in ("train", "test") for row in open_folder(out, task, split).remove_columns("image")
    ]


def turns_of(out: Path) -> set[tuple[str, str, str]]:
    """(image, question, answer) of every turn."""
    return {
        (row["image_id"], *(message["content"] for message in row["messages"]))
        for task, splits in manifest(out)["rows"].items()
        if task != Task.CHAT
        for split in splits
        for row in open_folder(out, task, split).remove_columns("image")
    }


def table(path: Path) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def decide(path: Path, wanted: Callable[[dict[str, str]], bool], **cells: str) -> Table:
    """Fill in cells of the wanted lines, as a reviewer does; returns these lines."""
    lines = table(path)
    chosen = [line for line in lines if wanted(line)]
    assert chosen
    for line in chosen:
        line.update(cells)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return chosen
