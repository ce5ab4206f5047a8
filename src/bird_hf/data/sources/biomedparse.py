"""Images and masks under BiomedParse's file names.

    train/NAME_MODALITY_SITE.png         train_mask/NAME_MODALITY_SITE_TARGET.png

A target has `+` for a blank and no underscore: `case12_CT_lung.png`, `case12_CT_lung_lung+nodule.png`. The folders of a
split, X and X_mask, can be below folders of datasets: `ACDC/train`, `amos22/CT/train`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ..records import Axis, ImageInfo, ImageName, MaskedImage, Modality
from .archives import Place
from .base import Candidate, LeftOut
from .faults import Drop, FaultyImageError
from .label_names import clean_label, patient_of
from .separate_masks import SeparateMasks, images_in, where_of

_MASKS = "_mask"  # what the name of a folder of masks has more
_DEPTH = 4  # of the folders of splits
_DATASET = "biomedparse"  # of splits that are in no folder of a dataset
_NO_DETAIL = "00"
_MODALITIES = {
    "ct": Modality.CT,
    "mri": Modality.MR,
    "mr": Modality.MR,
    "xray": Modality.X_RAY,
    "pet": Modality.PET,
    "endoscope": Modality.ENDOSCOPY,
    "endoscopy": Modality.ENDOSCOPY,
    "dermoscope": Modality.DERMOSCOPY,
    "dermoscopy": Modality.DERMOSCOPY,
    "fundus": Modality.FUNDUS,
    "ultrasound": Modality.ULTRASOUND,
}
_SEQUENCES = re.compile(r"t1|t2|flair|adc|dwi")  # of MR; a file may give only the sequence
_VOLUMES = (Modality.CT, Modality.MR, Modality.PET)
_SLICE = re.compile(r"(.+?)[_-]\d{1,5}")
_REGION = re.compile(r"[^\W\d_][\w. -]{0,60}")


class BiomedParse:
    """Images and masks under BiomedParse's file names, which say modality, region and label."""

    kind = "BiomedParse"
    pixels_are_free = False  # CC BY-NC-SA and the terms of each dataset

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = SeparateMasks(folder)

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether there is a pair of folders X and X_mask with file names of BiomedParse."""
        return any(
            any(stem.count("_") >= 3 for stem in images_in(folder, split + _MASKS))
            for split in _splits(folder)
        )

    def listed(self) -> Iterator[Candidate | LeftOut]:
        for split in _splits(self._folder):
            images = images_in(self._folder, split)
            masks: dict[str, list[tuple[str, Place]]] = defaultdict(list)
            for stem, place in images_in(self._folder, split + _MASKS).items():
                image, _, target = stem.rpartition("_")
                if image in images:
                    masks[image].append((target, place))
                else:
                    yield LeftOut(stem, Drop.MISSING_IMAGE, "/".join(place))
            for stem, place in images.items():
                try:
                    yield _candidate(_dataset_of(split), stem, place, masks[stem])
                except FaultyImageError as error:
                    yield LeftOut(stem, error.reason, error.detail)

    def read(self, candidate: Candidate) -> MaskedImage:
        return self._reader.read(candidate)


def _candidate(dataset: str, stem: str, image: Place, masks: list[tuple[str, Place]]) -> Candidate:
    """An image with its masks by target. Raises FaultyImageError if its name or a target is unusable."""
    if not masks:
        raise FaultyImageError(Drop.NO_MASKS)
    original, modality_name, site = parsed(stem)
    modality, detail = modality_of(modality_name)
    region = site.replace("+", " ").replace("-", " ").lower()
    if not _REGION.fullmatch(region):
        raise FaultyImageError(Drop.BAD_NAME, f"site {site[:40]!r}")
    named = [(clean_label(dataset, target.replace("+", " ")), place) for target, place in masks]
    name = ImageName(modality.prefix(detail), dataset, original)
    info = ImageInfo(
        image_id=name.write(),
        modality=modality,
        modality_detail=detail,
        region=region,
        axis=Axis.PLANAR,
        slice_index=None,
        dataset=dataset,
        case_id=f"{dataset}/{_case_of(dataset, original, modality)}",
        synthetic=name.synthetic,
    )
    return Candidate(info, tuple(dict.fromkeys(label for label, _ in named)), where_of(image, named))


def parsed(stem: str) -> tuple[str, str, str]:
    """The name, the modality and the site of an image file's name. Raises FaultyImageError."""
    parts = stem.rsplit("_", 2)
    if len(parts) != 3 or not all(parts) or not stem.isprintable():
        raise FaultyImageError(Drop.BAD_NAME, "not NAME_MODALITY_SITE")
    return parts[0], parts[1], parts[2]


def modality_of(name: str) -> tuple[Modality, str]:
    """The modality and its detail: "MRI-FLAIR" -> (MR, "flair"). Raises FaultyImageError if it is none of the eight."""
    words = re.split(r"[-+ ]", name.lower())
    modality = _MODALITIES.get("".join(words)) or _MODALITIES.get(words[0])
    sequence = words if modality is None and _SEQUENCES.match(words[0]) else words[1:]
    if modality is None and sequence is words:
        modality = Modality.MR
    if modality is None:
        raise FaultyImageError(Drop.UNKNOWN_MODALITY, name[:40])
    detail = "".join(sequence) if modality is Modality.MR else ""
    return modality, detail if re.fullmatch("[a-z0-9]{1,20}", detail) else _NO_DETAIL


def _case_of(dataset: str, original: str, modality: Modality) -> str:
    """The unit of a split: the patient if the dataset is known, else the volume of a slice, else the image.

    The last number of a slice's name is taken for its place in the volume, so that no volume is in both splits.
    """
    patient = patient_of(dataset, original)
    if patient != original or modality not in _VOLUMES:
        return patient
    found = _SLICE.fullmatch(original)
    return found.group(1) if found else original


def _dataset_of(split: str) -> str:
    """The dataset of a split: the folders that it is in, each once (`ACDC/ACDC/train` is of ACDC)."""
    folders = dict.fromkeys(split.split("/")[:-1])
    name = re.sub(r"[^\w.+]+", "_", "_".join(folders)).strip("_.+")
    return name[:60] or _DATASET


def _splits(folder: Path, depth: int = _DEPTH) -> list[str]:
    """The folders X with a sibling X_mask, relative to a folder, sorted."""
    found: list[str] = []
    level = [folder]
    for _ in range(depth):
        below: list[Path] = []
        for each in level:
            with os.scandir(each) as entries:
                names = {
                    entry.name
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                }
            pairs = {name for name in names if name + _MASKS in names}
            found += [(each / name).relative_to(folder).as_posix() for name in pairs]
            used = pairs | {name + _MASKS for name in pairs}
            below += [each / name for name in sorted(names - used)]
        level = below
    return sorted(found)
