"""Reads `dataset.json` of nnU-Net (both versions) and of the Medical Segmentation Decathlon.

    {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}     nnU-Net
    {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "name": "Liver"}    nnU-Net 1, Decathlon

A region of nnU-Net has several values, which other regions can share: `"whole tumor": [1, 2, 3]`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..description import MAX_LABEL_VALUE

DATASET_JSON = "dataset.json"
_MAX_BYTES = 2**26  # the list of all files is in it


@dataclass(frozen=True)
class DatasetJson:
    """channels: number -> name. regions: name as it is written -> its values, without the background."""

    name: str
    channels: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    ignore: tuple[int, ...]
    file_ending: str | None

    @property
    def overlapping(self) -> bool:
        """Whether a region has several values, so that regions can share them."""
        return any(len(values) > 1 for values in self.regions.values())


def read_dataset_json(path: Path) -> DatasetJson:
    """Read and check a `dataset.json`. Raises ValueError, in one line, with what is wrong in it."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        return _checked(content)
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0][:200]}") from error


def _checked(content: Any) -> DatasetJson:
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise ValueError("not a dataset.json of nnU-Net or the Decathlon: it has no `labels`")
    channels = content.get("channel_names", content.get("modality")) or {}
    if isinstance(channels, str):
        channels = {"0": channels}
    if isinstance(channels, list):
        channels = dict(enumerate(channels))
    regions: dict[str, tuple[int, ...]] = {}
    ignore: tuple[int, ...] = ()
    for name, values in _named(content["labels"]).items():
        if name.strip().lower() == "ignore":
            ignore = values
        elif values != (0,):
            regions[name] = values
    if wrong := [name for name, values in regions.items() if not _usable(values)]:
        raise ValueError(f"label {wrong[0]!r} must have values from 1 to {MAX_LABEL_VALUE:,}")
    if not regions:
        raise ValueError("its `labels` name nothing but the background")
    ending = content.get("file_ending")
    return DatasetJson(
        str(content.get("name", "")),
        {int(number): str(name) for number, name in channels.items()},
        regions,
        ignore,
        str(ending).lower() if ending is not None else None,
    )


def _named(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> values, of labels that are written as {value: name} or {name: value or values}."""
    if all(isinstance(name, str) for name in labels.values()):
        if len({*labels.values()}) < len(labels):
            raise ValueError("two of its `labels` have one name")
        return {name: (int(value),) for value, name in labels.items()}
    return {
        str(name): tuple(int(value) for value in (values if isinstance(values, list) else [values]))
        for name, values in labels.items()
    }


def _usable(values: tuple[int, ...]) -> bool:
    return bool(values) and all(0 < value <= MAX_LABEL_VALUE for value in values)
