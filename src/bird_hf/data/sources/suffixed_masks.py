"""Masks named as their image with an ending or a beginning more: `NAME.png` and `NAME_mask.png`, of one class."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..records import MaskedImage
from .archives import Place
from .base import Candidate, LeftOut
from .description import DESCRIPTION, Description
from .faults import Drop
from .separate_masks import SeparateMasks, images_in, where_of

_WORD = r"(?:masks?|segmentation|segm?|ground[ _-]?truth|gt|labels?|annotation|lesion)"
_SUFFIX = re.compile(
    rf"([ _.-]{{0,3}}{_WORD})(?:[ _.-]?\d{{1,4}})?", re.IGNORECASE
)  # a number: one of several masks
_PREFIX = re.compile(rf"{_WORD}[ _.-]{{1,3}}", re.IGNORECASE)
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Affix:
    """What the name of a mask has more than that of its image: before it or behind it."""

    prefix: str
    suffix: str

    def __str__(self) -> str:
        return f"{self.prefix}NAME{self.suffix}"


class SuffixedMasks:
    """Images with masks of one class, named as the image with the same suffix or prefix everywhere."""

    kind = "masks with a suffix"
    pixels_are_free = True

    def __init__(self, folder: Path, about: Description) -> None:
        """Raises ValueError, in one line, if labels.yaml does not name one class, or the suffixes differ."""
        if len(about.labels) != 1:
            raise ValueError(
                f"{folder} has masks with a suffix, which show one class, and {DESCRIPTION} names {len(about.labels)}; "
                "write `labels: {1: NAME}`, or name label maps as their images"
            )
        self._about = about
        [self._label] = about.labels.values()
        self._images, masks = _files_of(folder)
        self._masks = _paired(folder, self._images, masks)
        self._reader = SeparateMasks(folder, about.orientation, about.faulty, about.lesions)

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether a folder has masks whose names are those of images with a suffix or a prefix."""
        try:
            images, masks = _files_of(folder)
        except ValueError:  # two images have one name
            return False
        if not images or not masks or not images.keys().isdisjoint(masks):
            return False
        return any(_affixes(stem, images, words=False) for stem in masks)

    def listed(self) -> Iterator[Candidate | LeftOut]:
        for stem, places in self._masks.items():
            if stem not in self._images:
                yield LeftOut(stem, Drop.MISSING_IMAGE, "/".join(filter(None, places[0])))
        for stem, image in self._images.items():
            if stem not in self._masks:
                yield LeftOut(stem, Drop.NO_MASKS)
            else:
                masks = [(self._label, place) for place in self._masks[stem]]
                yield Candidate(self._about.image_info(stem), (self._label,), where_of(image, masks))

    def read(self, candidate: Candidate) -> MaskedImage:
        return self._reader.read(candidate)


def _files_of(folder: Path) -> tuple[dict[str, Place], dict[str, Place]]:
    """The images and the masks of a folder, by their names without endings."""
    images = images_in(folder, "images" if (folder / "images").is_dir() else "")
    if (folder / "masks").is_dir():
        return images, images_in(folder, "masks")
    masks = {stem: place for stem, place in images.items() if _affixes(stem, images, words=True)}
    return {stem: place for stem, place in images.items() if stem not in masks}, masks


def _paired(folder: Path, images: Mapping[str, Place], masks: Mapping[str, Place]) -> dict[str, list[Place]]:
    """Name of an image -> its masks. Raises ValueError, in one line, if not all masks have the same affix."""
    words = not (folder / "masks").is_dir()
    found = {stem: affixes for stem in masks if (affixes := _affixes(stem, images, words))}
    common = set.intersection(*(set(affixes) for affixes in found.values()))
    common = {affix for affix in common if _is_word(affix)} or common
    if len(common) != 1:
        each = sorted(
            {str(min(affixes, key=str)) for affixes in found.values()} if not common else map(str, common)
        )
        raise ValueError(
            f"{folder}: masks are named {', '.join(each[:4])}; name all of them with the same suffix or prefix"
        )
    [affix] = common
    paired: dict[str, list[Place]] = defaultdict(list)
    for stem, place in masks.items():
        paired[found[stem][affix] if stem in found else _without(stem, affix)].append(place)
    return paired


def _affixes(stem: str, images: Collection[str], words: bool) -> dict[Affix, str]:
    """The affixes that a mask may have -> the image. words: only those with a word such as `mask` in them."""
    found: dict[Affix, str] = {}
    for cut in range(1, min(len(stem), _LONGEST_NAME)):
        if (image := stem[:cut]) in images:
            rest = stem[cut:]
            word = _SUFFIX.fullmatch(rest)
            if word is not None or not words:
                found[Affix("", word.group(1) if word else rest)] = image
        if (image := stem[cut:]) in images and (not words or _PREFIX.fullmatch(stem[:cut])):
            found[Affix(stem[:cut], "")] = image
    return found


def _is_word(affix: Affix) -> bool:
    return bool(_SUFFIX.fullmatch(affix.suffix) or _PREFIX.fullmatch(affix.prefix))


def _without(stem: str, affix: Affix) -> str:
    return stem.removeprefix(affix.prefix).removesuffix(affix.suffix)
