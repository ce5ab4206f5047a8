"""Images with a folder of masks per class: `images/NAME.png` and `masks/CLASS/NAME.png`; the folder is the label."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ..records import MaskedImage, Modality
from .archives import Place
from .base import Candidate, LeftOut
from .description import DESCRIPTION, Description
from .faults import Drop, FaultyImageError
from .label_names import clean_label, region_of
from .separate_masks import SeparateMasks, images_in, where_of

DATASET = "mask_folders"  # without labels.yaml


class MaskFolders:
    """Images with a folder of masks per class. A class without a file for an image has no object in it."""

    kind = "masks in a folder per class"
    pixels_are_free = True

    def __init__(self, folder: Path, about: Description | None, modality: Modality | None = None) -> None:
        """about: labels.yaml. Raises ValueError, in one line, if neither it nor `modality` says the modality."""
        self._folder = folder
        self._classes = _classes_of(folder, about.dataset if about else DATASET)
        named = [label for label in self._classes.values() if isinstance(label, str)]
        if about is None:
            if modality is None:
                raise ValueError(
                    f"{folder} has a folder of masks per class but does not say its modality; give --modality, one of "
                    f"{', '.join(Modality)}, or add {DESCRIPTION}"
                )
            about = Description(
                dataset=DATASET, modality=modality, region=region_of(modality, named), labels={}
            )
        if about.labels and (others := [label for label in named if label not in about.labels.values()]):
            raise ValueError(
                f"{folder / 'masks'} has a folder of {others[0]!r}, which is not among the labels of {DESCRIPTION}; "
                "add it there, or leave `labels` out"
            )
        self._about = about
        self._known = tuple(dict.fromkeys((*about.labels.values(), *named)))
        self._reader = SeparateMasks(folder, about.orientation, about.faulty, about.lesions)

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether a folder has images and masks, and `masks` holds folders only."""
        if not (folder / "images").is_dir() or not (folder / "masks").is_dir():
            return False
        found = False
        with os.scandir(
            folder / "masks"
        ) as entries:  # SA-Med2D has millions of files there: the first one decides
            for entry in entries:
                if not entry.name.startswith("."):
                    if not entry.is_dir():
                        return False
                    found = True
        return found

    def listed(self) -> Iterator[Candidate | LeftOut]:
        images = images_in(self._folder, "images")
        masks: dict[str, list[tuple[str | Drop, Place]]] = defaultdict(list)
        for name, label in self._classes.items():
            for stem, place in images_in(self._folder, f"masks/{name}").items():
                if stem in images:
                    masks[stem].append((label, place))
                else:
                    yield LeftOut(stem, Drop.MISSING_IMAGE, "/".join(place))
        for stem, image in images.items():
            of_image = [(label, place) for label, place in masks[stem] if isinstance(label, str)]
            faults = [(label, place) for label, place in masks[stem] if isinstance(label, Drop)]
            if faults:
                yield LeftOut(stem, faults[0][0], "/".join(faults[0][1]))
            elif not of_image:
                yield LeftOut(stem, Drop.NO_MASKS)
            else:
                labels = tuple(dict.fromkeys(label for label, _ in of_image))
                yield Candidate(self._about.image_info(stem), labels, where_of(image, of_image))

    def read(self, candidate: Candidate) -> MaskedImage:
        return self._reader.read(candidate, self._known if self._about.exhaustive else ())


def _classes_of(folder: Path, dataset: str) -> dict[str, str | Drop]:
    """Name of a folder in `masks` -> its clean label, or why it has none."""
    classes: dict[str, str | Drop] = {}
    for path in sorted((folder / "masks").iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            try:
                classes[path.name] = clean_label(dataset, path.name)
            except FaultyImageError as error:
                classes[path.name] = error.reason
    return classes
