"""Clean names, regions, patients and exhaustive labels, from the tables in `tables/`.

The tables are text files that people can read and correct. Names that are not in a table are cleaned by fixed rules:
underscores become spaces, `Kidney_R` becomes "right kidney". The side always comes from the label.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from ..records import Modality
from .faults import Drop, FaultyImageError

Spellings = dict[tuple[str, str], set[str]]  # (dataset, clean name) -> the names in the source

_recorded: ContextVar[Spellings | None] = ContextVar("spellings", default=None)
_TABLES = Path(__file__).with_name("tables")
_MARKS = {"!union": Drop.UNION_CLASS, "!unnamed": Drop.UNNAMED_CLASS}
_SIDES = {"l": "left", "r": "right", "lt": "left", "rt": "right", "left": "left", "right": "right"}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
_APART = re.compile(r"[\s_,;]+")
# Letters, digits and the punctuation of anatomical names. `<`, `>` and control characters are excluded because they
# could be read as tags.
_NAME = re.compile(r"[^\W_][\w '()/.+-]{0,78}", re.UNICODE)


def clean_label(dataset: str, label: str) -> str:
    """The name of a class as questions use it.

    Raises FaultyImageError if the class is a union of others or its name is not meaningful.
    """
    name = _clean(dataset, label)
    if (recorded := _recorded.get()) is not None:
        recorded.setdefault((dataset, name), set()).add(label)
    return name


@contextmanager
def spellings() -> Iterator[Spellings]:
    """Record the source's names of all labels that are cleaned inside the block, for reviewers of the clean names."""
    found: Spellings = {}
    token = _recorded.set(found)
    try:
        yield found
    finally:
        _recorded.reset(token)


@cache
def _clean(dataset: str, label: str) -> str:
    key = label.strip().lower()
    for pattern, known, name in _table("labels.tsv", 3):
        if fnmatchcase(dataset.lower(), pattern) and fnmatchcase(key.replace(" ", "_"), known):
            if name in _MARKS:
                raise FaultyImageError(_MARKS[name], f"class {label!r} of {dataset}")
            return name
    name = _by_rule(label)
    if not _NAME.fullmatch(name) or not re.search(r"[^\W\d_]{2}", name):
        raise FaultyImageError(Drop.UNNAMED_CLASS, f"class {label!r} of {dataset}")
    return name


def _by_rule(label: str) -> str:
    """Lower-case words, with a side at either end moved to the front. Words in capitals (`GTV`) stay in capitals."""
    words = [word for word in _APART.split(_CAMEL.sub(" ", label.strip())) if word]
    if len(words) > 1 and words[-1].lower() in _SIDES:
        words = [words[-1], *words[:-1]]
    if len(words) > 1 and words[0].lower() in _SIDES:
        words[0] = _SIDES[words[0].lower()]
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)


def patient_of(dataset: str, original: str) -> str:
    """The unit of a split inside a dataset: the patient if the name contains it, else the name itself.

    All frames of a patient belong together (ACDC: `patient001_frame01`).
    """
    _, _, pattern = _facts(dataset)
    found = re.search(pattern, original, re.IGNORECASE) if pattern != "-" else None
    return found.group(1) if found else original


def exhaustive_labels(dataset: str, labels: Iterable[str]) -> tuple[str, ...]:
    """The clean names of a dataset that are annotated wherever they are visible."""
    _, exhaustive, _ = _facts(dataset)
    if exhaustive == "all":
        return tuple(labels)
    listed = {name.strip() for name in exhaustive.split(",")}
    return tuple(label for label in labels if label in listed)


def region_of(modality: Modality, labels: Iterable[str]) -> str:
    """The scanned region, inferred from the modality and the labels; "body" if they do not determine it."""
    by_modality = {word[1:]: region for word, region in _table("regions.tsv", 2) if word.startswith("=")}
    if modality.value in by_modality:
        return by_modality[modality.value]
    votes = Counter(
        region
        for label in labels
        for word, region in _table("regions.tsv", 2)
        if re.search(rf"\b{re.escape(word)}", label, re.IGNORECASE)
    )
    return max(votes, key=lambda region: votes[region]) if votes else "body"


def region_of_body_part(part: str) -> str | None:
    """The region of a DICOM header's Body Part Examined; None if the value is unknown."""
    wanted = part.strip().upper()
    return next((region for name, region in _table("body_parts.tsv", 2) if name == wanted), None)


@cache
def _facts(dataset: str) -> tuple[str, ...]:
    return next(line for line in _table("datasets.tsv", 3) if fnmatchcase(dataset.lower(), line[0]))


@cache
def _table(name: str, columns: int) -> tuple[tuple[str, ...], ...]:
    """The rows of a table. Comments begin with #; columns are separated by tabs."""
    text = (_TABLES / name).read_text(encoding="utf-8")
    lines = [tuple(line.split("\t")) for line in text.splitlines() if line and not line.startswith("#")]
    if wrong := [line for line in lines if len(line) != columns]:
        raise ValueError(f"{name}: the line {wrong[0]} does not have {columns} tab-separated columns")
    return tuple(lines)
