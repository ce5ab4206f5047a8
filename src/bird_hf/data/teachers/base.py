"""Who writes the words of a dialogue: the interface of a teacher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..records import Dialogue, ImageRecord


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
