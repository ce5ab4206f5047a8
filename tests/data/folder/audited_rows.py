"""Chat rows for the tests of the audit and of its page: clean ones, and a folder with five faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bird_hf.data.folder.publish import image_cell, rows_of
from bird_hf.data.folder.shards import write_shards
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality, Task
from bird_hf.data.teachers.templates import write_dialogue


def item(label: str, *box: float, present: bool = True) -> dict[str, Any]:
    return {"instance_id": label, "label": label, "box": list(box) or None, "area": 0.1, "present": present}


def messages(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": answer}]


def chats(seeds: range) -> list[dict[str, Any]]:
    """Return clean rows, one for each seed, about CT and ultrasound phantoms."""
    rows = []
    for seed in seeds:
        image = draw_phantom([Modality.CT, Modality.ULTRASOUND][seed % 2], seed, 96)
        dialogue = write_dialogue(
            record_of(image, 0.003), np.random.default_rng(seed), dict.fromkeys(SINGLE_TASKS, 1), absent=0
        )
        rows += rows_of(dialogue, image_cell(image))[Task.CHAT]
    return rows


def write(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> Path:
    """Write one shard of each split; returns the folder."""
    write_shards(train, folder / "data" / "chat", "train", 1)
    write_shards(test, folder / "data" / "chat", "test", 1)
    return folder


def write_dirty(folder: Path) -> Path:
    """Write a folder with five findings; returns it.

    The second test row has the image and the case of the first training row, and hostile text; the third has no
    readable image.
    """
    train, test = chats(range(3)), chats(range(10, 13))
    test[1] = test[1] | {name: train[0][name] for name in ("image", "image_wh", "case_id")}
    test[1]["image_id"] = '<script>alert("1")</script>'
    test[1]["objects"] = [item("</figure><img src=x onerror=alert(2)>", 0.0, 0.0, 1.0, 1.0)]
    test[1]["messages"] = messages("<ref><i>bold</i></ref><box>(1,2),(3,4)</box>")
    test[2]["image"] = {"bytes": b"no picture", "path": "/nowhere/ct_3.png"}
    return write(folder, train, test)
