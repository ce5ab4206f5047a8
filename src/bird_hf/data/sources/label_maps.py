"""Label maps: images with one each, and what is checked of their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..records import Axis, MaskedImage
from ..volumes import CaseInfo, objects_of
from .archives import FolderFiles, Place
from .base import Candidate, LeftOut, checked
from .description import DESCRIPTION, Description
from .faults import MOST_NAMED, Drop, FaultyImageError, values_found
from .photographs import Photograph

_WHOLE = 1e-3  # a value this close to a whole number is that number: scaled label maps hold 2.00003
_LARGEST = 2**31 - 1
_MOST_VALUES = 2**17  # different ones in a label map; more are grey values
_BLOCK = 2**22  # values that are checked at once
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")


class LabelledImages:
    """Images with one label map each: `images/NAME.*` and `masks/NAME.png`."""

    kind = "images and label maps"
    pixels_are_free = True

    def __init__(self, folder: Path, about: Description) -> None:
        if not about.labels:
            raise ValueError(f"{folder / DESCRIPTION} has no labels; name the values of the label maps")
        self._about = about
        self._files = FolderFiles(folder, ("images", "masks"))

    def listed(self) -> Iterator[Candidate | LeftOut]:
        for stem, image, mask in paired(self._files, IMAGE_ENDINGS):
            if mask is None:
                yield LeftOut(stem, Drop.NO_MASKS)
            else:
                yield Candidate(self._about.image_info(stem), (), [image, mask])

    def read(self, candidate: Candidate) -> MaskedImage:
        about, (image, mask) = self._about, candidate.where
        content = read_bytes(self._files, image, Drop.UNREADABLE_IMAGE)
        photograph = Photograph.read(content, about.orientation)
        try:
            values = photograph.upright_values(read_bytes(self._files, mask, Drop.UNREADABLE_MASK))
        except FaultyImageError as error:
            if error.reason is not Drop.NOT_BINARY:
                raise
            raise FaultyImageError(Drop.UNKNOWN_VALUE, f"{error.detail}; {_named(about)}") from error
        whole, unknown = named_values(values, about)
        case = about.case_of(candidate.info.image_id)
        masks, absent = label_objects(case, whole, unknown, candidate.info.axis)
        return checked(candidate.info, photograph.pixels, masks, absent, faulty=about.faulty)


def paired(files: FolderFiles, endings: tuple[str, ...]) -> Iterator[tuple[str, Place, Place | None]]:
    """Yield (name without ending, image, mask or None), sorted by name; a mask has the name of its image."""
    images: dict[str, Place] = {}
    masks: dict[str, Place] = {}
    for name, place in sorted(files.files()):
        ending = next((ending for ending in endings if name.lower().endswith(ending)), None)
        if ending is not None:
            (images if place[0] == "images" else masks)[place[1][: -len(ending)]] = place
    for stem, place in images.items():
        yield stem, place, masks.get(stem)


def named_values(values: np.ndarray, about: Description) -> tuple[np.ndarray, tuple[int, ...]]:
    """The values of a label map of any shape as whole numbers (int32), and those found that have no name.

    A value within a thousandth of a whole number is that number. Values without a name, those under `ignore` among
    them, are no object, and nothing is absent where one is: give them to `label_objects`. Raises FaultyImageError if
    a value is no whole number, or there are values other than 0 and none of them has a name.
    """
    whole = np.empty(values.shape, np.int32)
    found: set[int] = set()
    rows = max(1, _BLOCK // (values.size // len(values)))
    for first in range(0, len(values), rows):
        block = values[first : first + rows]
        # NaN compares as False, so it is refused too.
        fits = np.abs(block.astype(np.float64)) <= _LARGEST
        rounded = np.rint(np.where(fits, block, 0))
        fits &= np.abs(block - rounded) <= _WHOLE
        if not fits.all():
            raise _unknown_value(block[~fits], about)
        whole[first : first + rows] = rounded
        found.update(np.unique(whole[first : first + rows]).tolist())
        if len(found) > _MOST_VALUES:
            raise _unknown_value(np.array(sorted(found)), about)
    named = found & {*about.labels}
    unknown = found - named - {0}
    if unknown - {*about.ignore} and not named:
        raise _unknown_value(np.array(sorted(found)), about)
    return whole, tuple(sorted(unknown))


def label_objects(
    case: CaseInfo, values: np.ndarray, unknown: Sequence[int], axis: Axis
) -> tuple[tuple[tuple[str, np.ndarray], ...], tuple[str, ...]]:
    """The masks and the absent names of a label map (H, W) of `named_values`.

    unknown: the values without a name. If one is in the map, nothing is absent: it may be any of the labels.
    """
    nameless = np.isin(values, unknown)
    if not nameless.any():
        return objects_of(case, values, axis, min_area=0)
    masks, _ = objects_of(case, np.where(nameless, 0, values), axis, min_area=0)
    return masks, ()


def _unknown_value(values: np.ndarray, about: Description) -> FaultyImageError:
    return FaultyImageError(Drop.UNKNOWN_VALUE, f"{values_found(values)}; {_named(about)}")


def _named(about: Description) -> str:
    values = sorted(about.labels)
    more = f" and {len(values) - MOST_NAMED:,} more" if len(values) > MOST_NAMED else ""
    return f"named {', '.join(map(str, values[:MOST_NAMED]))}{more}"


def read_bytes(files: FolderFiles, place: Place, reason: Drop) -> bytes:
    try:
        return files.read(place)
    except ValueError as error:
        raise FaultyImageError(reason, str(error)) from error
