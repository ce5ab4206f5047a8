"""Label maps: images with one each, and what is checked of their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..records import MaskedImage
from ..volumes import objects_of
from .archives import FolderFiles, Place
from .base import Candidate, LeftOut, checked
from .description import MAX_LABEL_VALUE, Description
from .faults import Drop, FaultyImageError, read_pixels, read_values

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")


class LabelledImages:
    """Images with one label map each: `images/NAME.*` and `masks/NAME.png`."""

    kind = "images and label maps"
    pixels_are_free = True

    def __init__(self, folder: Path, about: Description) -> None:
        self._about = about
        self._files = FolderFiles(folder, ("images", "masks"))

    def listed(self) -> Iterator[Candidate | LeftOut]:
        for stem, image, mask in paired(self._files, IMAGE_ENDINGS):
            if mask is None:
                yield LeftOut(stem, Drop.NO_MASKS)
            else:
                yield Candidate(self._about.image_info(stem), (), [image, mask])

    def read(self, candidate: Candidate) -> MaskedImage:
        image, mask = candidate.where
        pixels = read_pixels(read_bytes(self._files, image, Drop.UNREADABLE_IMAGE))
        values = read_values(read_bytes(self._files, mask, Drop.UNREADABLE_MASK))
        if values.shape != pixels.shape[:2]:
            raise FaultyImageError(Drop.SHAPE_MISMATCH, f"mask {values.shape}, image {pixels.shape[:2]}")
        check_label_map(values)
        case = self._about.case_of(candidate.info.image_id)
        return checked(candidate.info, pixels, *objects_of(case, values, candidate.info.axis, min_area=0))


def paired(
    files: FolderFiles, endings: tuple[str, ...], series: Sequence[str] = ()
) -> Iterator[tuple[str, Place, Place | None]]:
    """Yield (name without ending, image, mask or None), sorted by name; a mask has the name of its image.

    series: names of folders that count as images, for DICOM series.
    """
    images: dict[str, Place] = {name: ["images", name] for name in series}
    masks: dict[str, Place] = {}
    for name, place in sorted(files.files()):
        ending = next((ending for ending in endings if name.lower().endswith(ending)), None)
        if ending is not None:
            (images if place[0] == "images" else masks)[place[1][: -len(ending)]] = place
    for stem, place in images.items():
        yield stem, place, masks.get(stem)


def check_label_map(values: np.ndarray) -> None:
    """Raises FaultyImageError unless all values are whole numbers below the limit, as they index an array of counts."""
    if values.min() < 0 or values.max() > MAX_LABEL_VALUE or (values != np.rint(values)).any():
        raise FaultyImageError(
            Drop.UNREADABLE_MASK, f"values must be whole numbers up to {MAX_LABEL_VALUE:,}"
        )


def read_bytes(files: FolderFiles, place: Place, reason: Drop) -> bytes:
    try:
        return files.read(place)
    except ValueError as error:
        raise FaultyImageError(reason, str(error)) from error
