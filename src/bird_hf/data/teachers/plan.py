"""Plan the turns that a chat model writes about an image, so that code and not the model chooses the objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..draws import draw_of
from ..records import ImageRecord, Task
from ..sides import other_side
from .base import ABSENT_SHARE
from .subjects import askable_absent


@dataclass(frozen=True)
class PlannedTurn:
    """A turn to write. about: a label for VG, an instance id for ROC and RC, empty for MIA."""

    task: Task
    about: str = ""


def plan_turns(record: ImageRecord, seed: int) -> tuple[PlannedTurn, ...]:
    """Plan one turn per task (BiRD 3, step iii), and for every second image a VG turn about an absent object.

    There is no ROC turn if the image does not allow one (see `ImageRecord`). The absent object is the other side
    of a present one if the image has such a pair, which is the hardest to deny.
    """
    rng = np.random.default_rng(draw_of(seed, record.info.image_id))
    labels = list(dict.fromkeys(item.label for item in record.present))
    ids = [item.instance_id for item in record.present]
    turns = [PlannedTurn(Task.VISUAL_GROUNDING, str(rng.choice(labels)))]
    if record.allows_classification:
        turns.append(PlannedTurn(Task.REFERRING_CLASSIFICATION, str(rng.choice(ids))))
    turns += [PlannedTurn(Task.REFERRING_CAPTION, str(rng.choice(ids))), PlannedTurn(Task.IMAGE_ANALYSIS)]
    absent = askable_absent(record)
    if absent and rng.random() < ABSENT_SHARE:
        pairs = [label for label in absent if other_side(label) in labels]
        turns.insert(1, PlannedTurn(Task.VISUAL_GROUNDING, str(rng.choice(pairs or absent))))
    return tuple(turns)
