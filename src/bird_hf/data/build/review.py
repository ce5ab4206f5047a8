"""The decisions of reviewers about a build's class names and turns, and how a build applies them.

A decision belongs to a name in a dataset, or to the exact text of a turn about an image, never to a line of a file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from ..records import MaskedImage, Turn, hash_of_turn, sha256_of
from ..sources.base import Candidate, LeftOut
from ..sources.faults import Drop, FaultyImageError

_Mark = TypeVar("_Mark")  # a mask or a box


@dataclass(frozen=True)
class Review:
    """The decisions of reviewers.

    names: (dataset, clean name) -> the name to use, which is the same name if it was accepted, and None if it was
    rejected. turns: the hash of each rejected turn (`hash_of`) -> the reviewer's reason.
    """

    names: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    turns: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str | None:
        """The sha256 of all decisions that change a dataset; None if none does."""
        changes = sorted((*key, name or "") for key, name in self.names.items() if name != key[1])
        if not changes and not self.turns:
            return None
        return sha256_of([changes, sorted(self.turns.items())])

    def listed(self, item: Candidate | LeftOut) -> Candidate | LeftOut:
        """Return a listed image with the names to use; it is left out if all its names were rejected."""
        if isinstance(item, LeftOut) or not item.labels:
            return item
        names = (self._name(item.info.dataset, label) for label in item.labels)
        labels = tuple(dict.fromkeys(name for name in names if name is not None))
        return (
            replace(item, labels=labels) if labels else LeftOut(item.info.image_id, Drop.REJECTED_IN_REVIEW)
        )

    def read(self, image: MaskedImage) -> MaskedImage:
        """Return an image with the names to use; rejected names are neither present nor absent in it.

        A new name is absent only if all names that are renamed to it are. Raises FaultyImageError if no object is left.
        """
        dataset, absent = image.info.dataset, {*image.absent}
        masks, boxes = self._renamed(dataset, image.masks), self._renamed(dataset, image.boxes)
        if (image.masks or image.boxes) and not (masks or boxes):
            raise FaultyImageError(Drop.REJECTED_IN_REVIEW)
        shown = {name for name, _ in (*masks, *boxes)}
        missing = (self._name(dataset, label) for label in image.absent)
        kept = [
            name
            for name in missing
            if name is not None
            and name not in shown
            and self._old_names.get((dataset, name), set()) <= absent
        ]
        return replace(image, masks=masks, boxes=boxes, absent=tuple(dict.fromkeys(kept)))

    def kept(self, image_id: str, turns: Iterable[Turn]) -> tuple[Turn, ...]:
        """Return the turns that were not rejected."""
        return tuple(
            turn for turn in turns if not self.turns or hash_of_turn(image_id, turn) not in self.turns
        )

    def _renamed(self, dataset: str, marks: Iterable[tuple[str, _Mark]]) -> tuple[tuple[str, _Mark], ...]:
        named = ((self._name(dataset, label), mark) for label, mark in marks)
        return tuple((name, mark) for name, mark in named if name is not None)

    def _name(self, dataset: str, label: str) -> str | None:
        return self.names.get((dataset, label), label)

    @cached_property
    def _old_names(self) -> Mapping[tuple[str, str], set[str]]:
        """(dataset, name to use) -> the names that are renamed to it."""
        found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for (dataset, label), name in self.names.items():
            if name is not None:
                found[dataset, name].add(label)
        return found


def hash_of_name(dataset: str, name: str) -> str:
    """Return the key of a decision about a name."""
    return sha256_of([dataset, name])
