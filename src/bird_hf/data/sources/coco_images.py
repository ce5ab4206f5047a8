"""Images with the objects of a COCO instance file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..records import MaskedImage
from .archives import FolderFiles
from .base import Candidate, LeftOut, checked
from .coco import CocoFile
from .description import Description
from .faults import Drop, read_pixels
from .label_maps import read_bytes


class CocoImages:
    """Images with the objects of a COCO instance file."""

    kind = "COCO instances"
    pixels_are_free = True

    def __init__(self, folder: Path, about: Description) -> None:
        self._about = about
        self._files = FolderFiles(folder, ("images",))
        self._coco = CocoFile.read(folder, about.annotations or "", about.dataset)

    def listed(self) -> Iterator[Candidate | LeftOut]:
        places = dict(self._files.files())
        for image_id, name in self._coco.images.items():
            place = places.get(f"images/{name}")  # a name in the COCO file is never opened as a path
            labels = self._coco.labels_of(image_id)
            if place is None:
                yield LeftOut(name, Drop.MISSING_IMAGE)
            elif not labels and not self._about.exhaustive:
                yield LeftOut(name, Drop.NO_MASKS)
            else:
                yield Candidate(self._about.image_info(Path(name).stem), labels, [place, image_id])

    def read(self, candidate: Candidate) -> MaskedImage:
        place, image_id = candidate.where
        pixels = read_pixels(read_bytes(self._files, place, Drop.UNREADABLE_IMAGE))
        masks = self._coco.masks_of(image_id, pixels.shape[:2])
        shown = {label for label, _ in masks}
        known = self._coco.labels if self._about.exhaustive else ()
        return checked(candidate.info, pixels, masks, [label for label in known if label not in shown])
