"""Volumes and their label maps side by side, the label maps with a suffix; `labels.yaml` describes them.

labels.yaml                                labels.yaml
p01.nii.gz                                 BraTS_001/BraTS_001_flair.nii.gz       every image of a folder that begins
p01_seg.nii.gz                             BraTS_001/BraTS_001_t1.nii.gz          with the name before the suffix
p02.nii.gz                                 BraTS_001/BraTS_001_seg.nii.gz         belongs to the label map
p02_seg.nii.gz

The suffix (`_seg`, `-label`, `_mask`, ...) is the same for all. The images of a label map are one case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..archives import Place
from ..base import LeftOut
from ..description import Description
from ..faults import Drop
from ..labelled_volumes import SUFFIXES, LabelledVolumes, VolumePair, volumes_in

_SUFFIXED = re.compile(rf"(.+?)([_-](?:{'|'.join(SUFFIXES)}))", re.IGNORECASE)


def has_suffixed_volumes(folder: Path) -> bool:
    """Whether a folder, or one in it, has volumes with a suffix, and there is no folder `images`."""
    if (folder / "images").is_dir():
        return False
    return any(_SUFFIXED.fullmatch(stem) for _, stem, _ in _volumes(folder))


def open_suffixed_volumes(folder: Path, about: Description) -> LabelledVolumes:
    """Open such a folder. Raises ValueError, in one line, if its label maps have different suffixes."""
    found = sorted({match[2] for _, stem, _ in _volumes(folder) if (match := _SUFFIXED.fullmatch(stem))})
    if len(found) != 1:
        raise ValueError(
            f"{folder} has volumes that end in {' and '.join(found[:4])}; give all its label maps one suffix"
        )
    return LabelledVolumes(
        folder, about, kind="volumes with a suffix", pairs=lambda: _pairs(folder, about, found[0])
    )


def _volumes(folder: Path) -> Iterator[tuple[str, str, list[Place]]]:
    """Yield (folder, name without ending, places) of the volumes in a folder and in the folders in it."""
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for name in (".", *inner):
        for stem, places in volumes_in(folder, name).items():
            yield name, stem, places


def _pairs(folder: Path, about: Description, suffix: str) -> Iterator[VolumePair | LeftOut]:
    """Yield every image with its label map."""
    masks: dict[tuple[str, str], list[Place]] = {}
    images: dict[tuple[str, str], list[Place]] = {}
    for name, stem, places in _volumes(folder):
        if stem.endswith(suffix):
            masks[name, stem[: -len(suffix)]] = places
        else:
            images[name, stem] = places
    seen: set[str] = set()
    used: set[tuple[str, str]] = set()
    for (name, stem), places in images.items():
        case = next((case for case in _beginnings(stem) if (name, case) in masks), None)
        # An image of exactly that name is the only one of its label map.
        if case is None or (case != stem and (name, case) in images):
            yield LeftOut(stem, Drop.NO_MASKS, f"no {stem}{suffix}.nii.gz beside it")
            continue
        used.add((name, case))
        if len(places) > 1 or len(masks[name, case]) > 1 or stem in seen:
            yield LeftOut(stem, Drop.DUPLICATE_ID, "several files have this name")
            continue
        seen.add(stem)
        yield VolumePair(stem, places[0], masks[name, case][0], case, about.channel)
    for _, case in sorted(masks.keys() - used):
        yield LeftOut(f"{case}{suffix}", Drop.MISSING_IMAGE, f"no {case}.nii.gz beside it")


def _beginnings(stem: str) -> Iterator[str]:
    """Yield a name, and what it begins with before each `_` and `-`, the longest first."""
    yield stem
    for at in range(len(stem) - 1, 0, -1):
        if stem[at] in "_-":
            yield stem[:at]
