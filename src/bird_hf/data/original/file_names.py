"""What the name of an image says where the name is all that there is.

Names of SA-Med2D say modality, dataset, case, axis and slice (`sa_med2d_source.parse_stem`); of any other name, the
word before the first underscore must be a modality. No name says a region.
"""

from __future__ import annotations

import re

from ..records import Axis, ImageInfo, Modality
from ..sources.faults import FaultyImageError
from ..sources.label_names import patient_of
from ..sources.sa_med2d import modality_of, parse_stem

# A file name and never a path: no separator, no drive, nothing hidden, no control character.
_PLAIN_STEM = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]{0,239}")


def check_plain_stem(stem: str) -> None:
    """Raises ValueError where an image's id could lead out of the folder of images."""
    if not _PLAIN_STEM.fullmatch(stem):
        raise ValueError(f"{stem[:80]!r} is no plain file name; an id is the name of an image without .png")


def info_of(stem: str) -> ImageInfo:
    """What is known of an image by its name alone; raises ValueError where that names no modality.

    A name that is none of SA-Med2D's is its own case, and a picture that is no slice.
    """
    try:
        prefix, dataset, original, axis, number = parse_stem(stem)
        modality, detail = modality_of(prefix)
    except FaultyImageError:
        return ImageInfo(stem, _first_word(stem), "", "", Axis.PLANAR, None, "", stem, False)
    case_id = f"{dataset}/{patient_of(dataset, original)}"
    return ImageInfo(
        stem, modality, detail, "", axis, number, dataset, case_id, dataset.startswith("phantom_")
    )


def _first_word(stem: str) -> Modality:
    word = stem.split("_")[0]
    try:
        return Modality.X_RAY if word == "x" else Modality(word)
    except ValueError:
        known = ", ".join(Modality)
        raise ValueError(f"image {stem[:80]!r} begins with no modality; known are {known}") from None
