"""Which turns an image gets from a chat model: drawn by code, so that a model's taste does not choose the objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..draws import draw_of
from ..records import ImageRecord, Task
from ..sides import other_side
from .templates import askable_absent

# With the four tasks 4.5 turns an image: 270 K on 60 K images (BiRD 3).
ABSENT_SHARE = 0.5


@dataclass(frozen=True)
class Wanted:
    """A turn to write. `about`: a label for VG, an instance id for ROC and RC, nothing for MIA."""

    task: Task
    about: str = ""


def plan_turns(record: ImageRecord, seed: int) -> tuple[Wanted, ...]:
    """One turn a task (BiRD 3, step iii), and for every second image one about something that is not there.

    PET and fundus with one class have nothing to classify. What is absent is the other side of something that is there
    where the image has such a pair: the hardest thing to deny.
    """
    rng = np.random.default_rng(draw_of(seed, record.info.image_id))
    labels = list(dict.fromkeys(item.label for item in record.present))
    ids = [item.instance_id for item in record.present]
    turns = [Wanted(Task.VISUAL_GROUNDING, str(rng.choice(labels)))]
    if record.allows_classification:
        turns.append(Wanted(Task.REFERRING_CLASSIFICATION, str(rng.choice(ids))))
    turns += [Wanted(Task.REFERRING_CAPTION, str(rng.choice(ids))), Wanted(Task.IMAGE_ANALYSIS)]
    absent = askable_absent(record)
    if absent and rng.random() < ABSENT_SHARE:
        pairs = [label for label in absent if other_side(label) in labels]
        turns.insert(1, Wanted(Task.VISUAL_GROUNDING, str(rng.choice(pairs or absent))))
    return tuple(turns)
