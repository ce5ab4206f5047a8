"""Photographs with one file per mask: read for mask folders, masks with a suffix, and BiomedParse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..frames import Orientation
from ..records import MaskedImage
from .archives import FolderFiles, Place
from .base import Candidate, checked
from .description import Faulty
from .faults import Drop, FaultyImageError
from .label_maps import IMAGE_ENDINGS, read_bytes
from .photographs import Photograph

_MOST_PIECES = 256  # of a mask of lesions; noise has more


@dataclass(frozen=True)
class SeparateMasks:
    """Reads an image and its masks. `Candidate.where` is [place of the image, [[label, place of the mask], ...]].

    lesions: labels of which each connected piece is an object of its own.
    """

    root: Path
    orientation: Orientation | None = None
    faulty: Faulty = Faulty.DROP_IMAGE
    lesions: tuple[str, ...] = ()

    def read(self, candidate: Candidate, known: Iterable[str] = ()) -> MaskedImage:
        """Read an image and its masks. known: the labels that are annotated wherever they are visible.

        Raises FaultyImageError if the image has a fault, or a mask and `faulty` is DROP_IMAGE. The label of a mask
        that is dropped alone is not absent.
        """
        files = FolderFiles(self.root, ("",))
        image, places = candidate.where
        content = read_bytes(files, image, Drop.UNREADABLE_IMAGE)
        picture = Photograph.read(content, self.orientation)
        masks = []
        for label, place in places:
            try:
                mask = picture.mask(read_bytes(files, place, Drop.UNREADABLE_MASK), place[1])
                pieces = _pieces(mask) if label in self.lesions else [mask]
            except FaultyImageError as error:
                image_wide = error.reason in (Drop.SIZE_MISMATCH, Drop.ORIENTATION_UNKNOWN)
                if image_wide or self.faulty is Faulty.DROP_IMAGE:
                    raise
                continue
            masks += [(label, piece) for piece in pieces]
        annotated = {label for label, _ in places}
        absent = [label for label in known if label not in annotated]
        return checked(candidate.info, picture.pixels, masks, absent, faulty=self.faulty)


def images_in(root: Path, folder: str) -> dict[str, Place]:
    """Name without ending -> place of every image directly in a folder below `root`, sorted by name.

    Raises ValueError, in one line, if two images have one name.
    """
    places: dict[str, Place] = {}
    for name, place in sorted(FolderFiles(root, (folder,)).files()):
        stem = stem_of(place[1])
        if stem is None:
            continue
        if stem in places:
            raise ValueError(f"{root}: {name} and {places[stem][1]} have one name; rename one of them")
        places[stem] = place
    return places


def stem_of(name: str, endings: Sequence[str] = IMAGE_ENDINGS) -> str | None:
    """The name of an image file without its ending; None if it is not one."""
    ending = next((each for each in endings if name.lower().endswith(each)), None)
    return None if ending is None else name[: -len(ending)]


def where_of(image: Place, masks: Iterable[tuple[str, Place]]) -> list[Any]:
    """`Candidate.where` of an image with its masks, as `SeparateMasks.read` reads it."""
    return [image, [[label, place] for label, place in masks]]


def _pieces(mask: np.ndarray) -> list[np.ndarray]:
    """The connected pieces (8-connectivity) of a mask, or the mask if it is empty. Raises FaultyImageError."""
    numbered, number = ndimage.label(mask, structure=np.ones((3, 3)))
    if number > _MOST_PIECES:
        raise FaultyImageError(Drop.FRAGMENT, f"a mask in {number:,} pieces")
    return [numbered == each for each in range(1, number + 1)] or [mask]
