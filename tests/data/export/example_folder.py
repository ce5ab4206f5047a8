"""A small Med-GRIT folder for tests of exports: every task, absent objects, several boxes, awkward file names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bird_hf.data.folder.publish import png_bytes
from bird_hf.data.folder.shards import write_shards
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span, write

WH = (80, 60)
# Spaces, percent signs, letters beyond ASCII, characters of URLs and glob patterns, doubled hyphens.
STEMS = ("ct_00--a b 50%--c--x_0001", "ct_é漢--%20--[1]*?#&'--x_0002", "ct_plain")
KIDNEY, LIVER = Box(0.3, 0.25, 0.625, 0.55), Box(0.41, 0.1, 0.7, 0.4)
SECOND_KIDNEY = Box(0.3, 0.6, 0.5125, 0.8)
EDGE = Box(0.0, 0.2, 0.1, 0.9)  # outside the middle square


def pixels_of(number: int, wh: tuple[int, int] = WH) -> np.ndarray:
    """A picture of which every pixel differs from its neighbours."""
    width, height = wh
    row, column = np.mgrid[:height, :width]
    return np.stack([row * 4 % 256, column * 3 % 256, row * 0 + 40 * number], axis=-1).astype(np.uint8)


def tagged(pieces: Sequence[str | tuple[str, Sequence[Box]]]) -> str:
    """Pieces of text, and phrases with boxes, as tagged text."""
    text, spans = "", []
    for piece in pieces:
        words, boxes = (piece, ()) if isinstance(piece, str) else piece
        if boxes:
            spans.append(Span(words, len(text), len(text) + len(words), tuple(boxes)))
        text += words
    return write(text, spans)


def row_of(
    task: str, stem: str, question: Sequence[Any], answer: Sequence[Any], objects: dict[str, Sequence[Box]]
) -> dict[str, Any]:
    """A published row. objects: the boxes of each label; none if it is absent."""
    cells = [
        {
            "instance_id": f"{label}_{place}",
            "label": label,
            "box": list(box.xyxy),
            "area": 0.1,
            "present": True,
        }
        for label, boxes in objects.items()
        for place, box in enumerate(boxes)
    ]
    cells += [
        {"instance_id": f"{label}_0", "label": label, "box": None, "area": 0.0, "present": False}
        for label, boxes in objects.items()
        if not boxes
    ]
    number = STEMS.index(stem) if stem in STEMS else 0
    return {
        "image_id": stem, "image": {"bytes": png_bytes(pixels_of(number)), "path": f"{stem}.png"},
        "image_wh": list(WH), "modality": "ct", "modality_detail": "", "region": "abdomen", "axis": "axial",
        "slice": 1, "dataset": "d", "case_id": stem, "caption": "", "task": task,
        "messages": [{"role": "user", "content": tagged(question)}, {"role": "assistant", "content": tagged(answer)}],
        "forms": [""], "independent": True, "objects": cells, "synthetic": False, "teacher": "templates",
    }  # fmt: skip


def all_rows() -> list[dict[str, Any]]:
    """Rows of every task."""
    first, second, third = STEMS
    kidney, liver = {"left kidney": (KIDNEY,)}, {"liver": (LIVER,)}
    return [
        row_of("vg", first, ["Where is the left kidney?"], ["Here is the ", ("left kidney", [KIDNEY]), "."], kidney),
        row_of(
            "vg", first, ["Where are the kidneys?"], ["Here: ", ("kidney", [KIDNEY, SECOND_KIDNEY]), "."],
            {"kidney": (KIDNEY, SECOND_KIDNEY)},
        ),
        row_of(
            "vg", second, ["Locate the left kidney and the liver."],
            ["Here are the ", ("left kidney", [KIDNEY]), " and the ", ("liver", [LIVER]), "."], kidney | liver,
        ),
        row_of("vg", second, ["Where is the spleen?"], ["There is no spleen in this image."], {"spleen": ()}),
        row_of("vg", third, ["Where is the skin?"], ["Here is the ", ("skin", [EDGE]), "."], {"skin": (EDGE,)}),
        row_of("roc", third, ["What is ", ("this", [LIVER]), "?"], ["This is the liver."], liver),
        row_of("rc", third, ["Describe ", ("this region", [LIVER]), "."], ["A large liver, central."], liver),
        row_of("mia", third, ["Is a liver visible?"], ["Yes, the liver is visible."], liver),
    ]  # fmt: skip


def write_folder(folder: Path, rows: Sequence[dict[str, Any]] | None = None, split: str = "train") -> Path:
    """The rows as a Med-GRIT folder."""
    rows = all_rows() if rows is None else rows
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        write_shards(of_task, folder / "data" / task, split, 1)
    return folder
