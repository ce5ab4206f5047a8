"""The interface of a teacher, which writes dialogues about images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..records import Dialogue, ImageRecord

ABSENT_SHARE = 0.5  # of images have a question about an absent object


@dataclass(frozen=True)
class Refusal:
    """An image for which no acceptable dialogue was written, and the reason."""

    image_id: str
    reason: str


class Teacher(Protocol):
    """Writes a dialogue for each record. It refers to instances by id; code inserts their boxes."""

    name: str

    def dialogues(self, records: Iterable[ImageRecord]) -> Iterator[Dialogue | Refusal]:
        """Yield one result per record, in the order of the records, which are consumed lazily."""
