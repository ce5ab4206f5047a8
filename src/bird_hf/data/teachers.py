"""Who writes the words of a dialogue: the interface, and the teacher that needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from .dialogues import TEACHER, write_dialogue
from .records import Dialogue, ImageRecord, Task
from .sampling import draw_of

# With a question for an absent object every second time, 4.5 to 5.5 turns an image: the paper has 270 K on 60 K.
TURNS = {
    Task.VISUAL_GROUNDING: 2,
    Task.REFERRING_CLASSIFICATION: 1,
    Task.REFERRING_CAPTION: 1,
    Task.IMAGE_ANALYSIS: 1,
}
_ABSENT_SHARE = 0.5


@dataclass(frozen=True)
class Refused:
    """An image for which no acceptable dialogue was written, and why."""

    image_id: str
    reason: str


class Teacher(Protocol):
    """Writes a dialogue for each record; it names instances, and code puts their boxes in."""

    name: str

    def dialogues(self, records: Iterable[ImageRecord]) -> Iterator[Dialogue | Refused]:
        """One result a record, in the order of the records, which are taken as they are needed."""


def open_teacher(
    name: str,
    seed: int,
    store: Path,
    model: str | None = None,
    base_url: str | None = None,
    batch: bool = False,
    rejected: Mapping[str, str] | None = None,
) -> Teacher:
    """The teacher of a name: `templates`, or `openai`, a chat model behind any compatible endpoint.

    store: the folder that keeps every reply of a chat model. batch: ask it through its Batch API. rejected: hashes
    of turns that people rejected, and why. Raises ValueError for an unknown name, or where a chat model has none.
    """
    if name == "templates":
        return TemplateTeacher(seed)
    if name != "openai":
        raise ValueError(f"teacher {name!r} is unknown; use templates or openai")
    from .chat_teacher import ChatSettings, ChatTeacher
    from .teacher_batches import BatchTeacher

    settings = ChatSettings(model=model or "", base_url=base_url, seed=seed, rejected=rejected or {})
    return BatchTeacher(settings, store) if batch else ChatTeacher(settings, store)


class TemplateTeacher:
    """Fixed wordings, offline. A record's words depend on the seed and its image's name, on nothing else."""

    name = TEACHER

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def dialogues(self, records: Iterable[ImageRecord]) -> Iterator[Dialogue | Refused]:
        for record in records:
            rng = np.random.default_rng(draw_of(self._seed, record.info.image_id))
            yield write_dialogue(record, rng, TURNS, absent=int(rng.random() < _ABSENT_SHARE))
