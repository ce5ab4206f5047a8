"""nnU-Net's raw datasets and the tasks of the Medical Segmentation Decathlon: `imagesTr`, `labelsTr`, `dataset.json`.

dataset.json                    dataset.json
imagesTr/case1_0000.nii.gz      imagesTr/liver_1.nii.gz      nnU-Net: a file a channel. Decathlon: one file a case,
imagesTr/case1_0001.nii.gz      labelsTr/liver_1.nii.gz      with a fourth axis if there are several channels
labelsTr/case1.nii.gz

Only the training cases are read; those of `imagesTs` belong to the test of their challenge.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...records import MaskedImage, Modality
from ..archives import Place
from ..base import Candidate, LeftOut, Source
from ..description import Description, added_entries
from ..faults import Drop
from ..label_maps import IMAGE_ENDINGS, LabelledImages
from ..label_names import clean_label
from ..labelled_volumes import LabelledVolumes, VolumePair
from ..volume_headers import VOLUME_ENDINGS
from .dataset_json import DATASET_JSON, DatasetJson, read_dataset_json
from .known import dataset_name, description_of

IMAGES, LABELS = "imagesTr", "labelsTr"
_OF_CHANNEL = re.compile(r"(.+)_(\d{4})")


def has_training_folders(path: Path) -> bool:
    """Whether a folder is a raw dataset of nnU-Net or a task of the Decathlon."""
    return (path / DATASET_JSON).is_file() and all((path / name).is_dir() for name in (IMAGES, LABELS))


def open_training_folders(path: Path, modality: Modality | None = None) -> Source:
    """Open a raw dataset of nnU-Net or a task of the Decathlon.

    modality: used if neither its channels nor a labels.yaml beside it name one. Raises ValueError, in one line, if
    nothing does, or if dataset.json or labels.yaml is invalid.
    """
    said, added = read_dataset_json(path / DATASET_JSON), added_entries(path)
    cases = _Cases(path, said)
    about = _description(path, said, added, modality)
    regions = None
    if said.overlapping and "labels" not in added:
        regions = {clean_label(about.dataset, name): values for name, values in said.regions.items()}
    if not cases.are_volumes:
        if regions is not None:
            raise ValueError(f"{path}: regions with several values are read in volumes only, not in images")
        return TrainingImages(path, about, cases)
    kind = "nnU-Net" if cases.have_channel_files else "Medical Segmentation Decathlon"
    return LabelledVolumes(
        path, about, kind=kind, pairs=lambda: cases.pairs(about, said.channels), regions=regions
    )


def _description(
    path: Path, said: DatasetJson, added: Mapping[str, Any], modality: Modality | None
) -> Description:
    names = {
        number if said.overlapping else values[0]: name
        for number, (name, values) in enumerate(said.regions.items(), 1)
    }
    known: dict[str, Any] = {
        "dataset": dataset_name(said.name or path.resolve().name),
        "labels": names,
        "ignore": [*said.ignore],
    }
    if "labels" in added:
        known["ignore"] = [value for value in said.ignore if value not in dict(added["labels"])]
    numbers = [number for number in said.channels if number == added.get("channel")] or [*said.channels]
    channel = said.channels[min(numbers)] if numbers else None
    return description_of(path, known, added, channel, modality)


class _Cases:
    """The cases of the training folders, by the names of the files."""

    def __init__(self, path: Path, said: DatasetJson) -> None:
        endings = (said.file_ending,) if said.file_ending else (*VOLUME_ENDINGS, *IMAGE_ENDINGS)
        if unknown := {*endings} - {*VOLUME_ENDINGS, *IMAGE_ENDINGS}:
            raise ValueError(
                f"{path / DATASET_JSON}: files that end in {unknown.pop()!r} are not read; "
                f"convert them to one of {', '.join(VOLUME_ENDINGS)} and .png"
            )
        self.labels = _stems(path / LABELS, endings)
        self.plain: dict[str, str] = {}
        self.channels: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for stem, name in _stems(path / IMAGES, endings).items():
            found = None if stem in self.labels else _OF_CHANNEL.fullmatch(stem)
            if found is None:
                self.plain[stem] = name
            else:
                self.channels[found.group(1)][int(found.group(2))] = name

    @property
    def are_volumes(self) -> bool:
        return any(name.lower().endswith(VOLUME_ENDINGS) for name in self.labels.values())

    @property
    def have_channel_files(self) -> bool:
        return bool(self.channels)

    def pairs(self, about: Description, names: Mapping[int, str]) -> Iterator[VolumePair | LeftOut]:
        """Yield every case that has an image, or labels."""
        for stem in sorted({*self.labels, *self.plain, *self.channels}):
            if stem not in self.labels:
                yield LeftOut(stem, Drop.NO_MASKS, f"no {LABELS}/{stem}")
            elif stem in self.plain:
                yield self._pair(stem, self.plain[stem], about.channel)
            elif (files := self.channels.get(stem)) is None:
                yield LeftOut(stem, Drop.MISSING_IMAGE, f"no {IMAGES}/{stem}_0000, and no {IMAGES}/{stem}")
            else:
                number = min(files) if about.channel is None and len(files) == 1 else about.channel
                if number is None or number not in files:
                    yield LeftOut(stem, Drop.CHANNEL_UNKNOWN, _channels_line(files, names))
                else:
                    yield self._pair(stem, files[number], None)

    def _pair(self, stem: str, image: str, channel: int | None) -> VolumePair:
        return VolumePair(stem, [IMAGES, image], [LABELS, self.labels[stem]], stem, channel)


class TrainingImages:
    """The training cases of a raw dataset of nnU-Net that are images, not volumes."""

    kind = "nnU-Net"
    pixels_are_free = True

    def __init__(self, path: Path, about: Description, cases: _Cases) -> None:
        self._about, self._cases = about, cases
        self._images = LabelledImages(path, replace(about, window=None))

    def listed(self) -> Iterator[Candidate | LeftOut]:
        for pair in self._cases.pairs(self._about, {}):
            if isinstance(pair, LeftOut):
                yield pair
            else:
                where: list[Place] = [pair.image, pair.mask]
                yield Candidate(self._about.image_info(pair.stem), (), where)

    def read(self, candidate: Candidate) -> MaskedImage:
        return self._images.read(candidate)


def _stems(folder: Path, endings: tuple[str, ...]) -> dict[str, str]:
    """Name without ending -> name, of the files of a folder; hidden files, such as `._a.nii.gz` of macOS, are not."""
    found = {}
    for path in sorted(folder.iterdir()):
        ending = next((ending for ending in endings if path.name.lower().endswith(ending)), None)
        if ending is not None and not path.name.startswith(".") and path.is_file():
            found[path.name[: -len(ending)]] = path.name
    return found


def _channels_line(files: Mapping[int, str], names: Mapping[int, str]) -> str:
    found = ", ".join(f"{number} {names.get(number, '')}".strip() for number in sorted(files)[:8])
    return f"channels {found}; choose one with `channel` in a labels.yaml beside {DATASET_JSON}"
