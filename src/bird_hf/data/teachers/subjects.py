"""What a question about an image can be about: its objects, labels that are absent, and names of other images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

from ...hub.boxes import Box
from ..records import Axis, ImageRecord, Instance, Modality
from ..sides import other_side
from .wordings.names import read_table, synonyms_of

Vocabulary = Mapping[Modality, Sequence[str]]  # names by the modality whose images show them


def instances_of(record: ImageRecord, label: str) -> list[Instance]:
    """Return the instances of a label, present or absent."""
    return [item for item in record.instances if item.label == label]


def boxes_of(items: Sequence[Instance]) -> tuple[Box, ...]:
    """Return the boxes of instances in reading order; masks come in any order."""
    return tuple(sorted((item.box for item in items if item.box), key=lambda box: (box.y1, box.x1)))


def labels_of(items: Sequence[Instance]) -> list[str]:
    """Return the labels of instances, each once, in their order."""
    return list(dict.fromkeys(item.label for item in items))


def askable_absent(record: ImageRecord) -> list[str]:
    """Return the absent labels whose absence the image alone shows.

    A sagittal slice does not show its own side, so the other side of a present structure is left out.
    """
    labels = labels_of(record.absent)
    if record.info.axis is not Axis.SAGITTAL:
        return labels
    here = set(labels_of(record.present))
    return [label for label in labels if other_side(label) not in here]


def foreign_names(record: ImageRecord, vocabulary: Vocabulary) -> Mapping[Modality, Sequence[str]]:
    """Return names of other modalities that this image certainly does not show, by their modality.

    A name is left out if its part of the body may be in the image, if its part is not known, or if it holds, or is held
    by, a label of the image or a name of the image's own modality. See `tables/regions.yaml`.
    """
    info = record.info
    own = frozenset((*vocabulary.get(info.modality, ()), *labels_of(record.instances)))
    others = tuple(
        (modality, tuple(names)) for modality, names in vocabulary.items() if modality is not info.modality
    )
    return _foreign(_visible_parts(info.modality, info.region.lower()), own, others)


@lru_cache(maxsize=4096)
def _foreign(
    visible: frozenset[str], own: frozenset[str], others: tuple[tuple[Modality, tuple[str, ...]], ...]
) -> Mapping[Modality, Sequence[str]]:
    found = {}
    for modality, names in others:
        elsewhere = [name for name in names if (parts := _parts_of(name)) and not parts & visible]
        if foreign := [name for name in elsewhere if not _is_known_here(name, own)]:
            found[modality] = foreign
    return found


def _is_known_here(name: str, own: frozenset[str]) -> bool:
    return name in own or any(_holds(name, other) or _holds(other, name) for other in own)


@cache
def _holds(name: str, part: str) -> bool:
    """Whether a name, or a synonym of it, holds another as whole words."""
    return any(f" {part} " in f" {written} " for written in (name, *synonyms_of(name)))


@cache
def _parts_of(name: str) -> frozenset[str]:
    """The parts of the body of a name; empty if it is not known."""
    words = read_table("regions.yaml")["words"]
    return frozenset(
        part
        for part, of_part in words.items()
        if any(re.search(rf"\b{re.escape(word)}\b", name, re.IGNORECASE) for word in of_part)
    )


@cache
def _visible_parts(modality: Modality, region: str) -> frozenset[str]:
    table = read_table("regions.yaml")
    return frozenset(
        table["modalities"].get(modality.value) or table["regions"].get(region) or table["elsewhere"]
    )
