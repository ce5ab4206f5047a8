"""Records of an abdominal CT slice with kidneys, cysts and an aorta, and without a spleen."""

from __future__ import annotations

import json
from dataclasses import replace

from bird_hf.data.records import Axis, ImageInfo, ImageRecord, Instance, Modality, Task, Turn
from bird_hf.data.teachers.plan import PlannedTurn
from bird_hf.data.teachers.replies import read_turns
from bird_hf.hub.boxes import Box

# Radiological display: the patient's right kidney is on the left of the image.
RIGHT = Instance("right_kidney_0", "right kidney", Box(0.1, 0.6, 0.3, 0.8), 0.03)
LEFT = Instance("left_kidney_0", "left kidney", Box(0.7, 0.6, 0.9, 0.8), 0.03)
CYSTS = tuple(
    Instance(f"cyst_{place}", "cyst", Box(0.5, 0.1 * place, 0.52, 0.1 * place + 0.02), 0.0004)
    for place in range(3)
)
NO_SPLEEN = Instance("spleen_0", "spleen", None, 0.0)
AORTA = Instance("aorta_0", "aorta", Box(0.48, 0.48, 0.52, 0.52), 0.002)
ALL = (LEFT, RIGHT, *CYSTS, NO_SPLEEN)

VG, ROC, RC = (
    "Where is the left kidney?",
    "What is [[this structure|left_kidney_0]]?",
    "Describe [[this|left_kidney_0]].",
)


def record(*instances: Instance, name: str = "ct_00--set--case--x_0003", **info: object) -> ImageRecord:
    what = ImageInfo(name, Modality.CT, "00", "abdomen", Axis.AXIAL, 3, "set", "case", False)
    return ImageRecord(replace(what, **info), (512, 512), instances)


def records(number: int) -> list[ImageRecord]:
    return [record(*ALL, name=f"ct_00--set--case--x_{place:04d}") for place in range(number)]


def read_turn(task: str, question: str, answer: str) -> Turn:
    """Read a reply with one turn about ALL. A VG turn is about the label in its question, by default "left kidney"."""
    about = {"roc": "left_kidney_0", "rc": "left_kidney_0", "mia": ""}.get(task, "left kidney")
    about = next((name for name in ("cyst", "spleen") if task == "vg" and name in question), about)
    words = json.dumps({"turns": [{"task": task, "question": question, "answer": answer}]})
    (turn,) = read_turns(record(*ALL), [PlannedTurn(Task(task), about)], words)
    return turn
