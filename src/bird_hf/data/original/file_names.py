"""What is known about an image from its file name alone.

Names of SA-Med2D hold modality, dataset, case, axis and slice (`records.ImageName`). Any other name must
begin with a modality and an underscore. No name holds a body region.
"""

from __future__ import annotations

import re

from ..records import Axis, ImageInfo, ImageName, Modality
from ..sources.label_names import patient_of

# A file name and never a path: no separator, no drive, nothing hidden, no control character.
_PLAIN_STEM = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]{0,239}")


def check_plain_stem(stem: str) -> None:
    """Raises ValueError if an image id is not a plain file name: it could lead out of the folder of images."""
    if not _PLAIN_STEM.fullmatch(stem):
        raise ValueError(
            f"{stem[:80]!r} is not a plain file name; an id is the name of an image without .png"
        )


def info_of(stem: str) -> ImageInfo:
    """The image information in a file name. Raises ValueError if the name does not begin with a modality.

    An image whose name is not in SA-Med2D's form is a case of its own, and not a slice.
    """
    try:
        name = ImageName.parse(stem)
        modality, detail = Modality.from_prefix(name.prefix)
    except ValueError:
        return ImageInfo(stem, _first_word(stem), "", "", Axis.PLANAR, None, "", stem, False)
    case_id = f"{name.dataset}/{patient_of(name.dataset, name.original)}"
    return ImageInfo(
        stem, modality, detail, "", name.axis, name.slice_index, name.dataset, case_id, name.synthetic
    )


def _first_word(stem: str) -> Modality:
    try:
        return Modality.from_first_word(stem.split("_")[0])
    except ValueError:
        known = ", ".join(Modality)
        raise ValueError(f"image {stem[:80]!r} does not begin with a modality; use one of {known}") from None
