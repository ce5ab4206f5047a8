"""Images with the objects of a COCO instance file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...hub.boxes import Box
from ..frames import Orientation
from ..records import MaskedImage
from .archives import FolderFiles
from .base import Candidate, LeftOut, check_box, checked
from .coco import corners_of, has_outline, mask_of
from .coco_file import CocoFile, CocoObject
from .description import Description, Faulty
from .faults import Drop, FaultyImageError, check_mask
from .image_files import ImageFiles, NoFile, original_of
from .label_maps import read_bytes
from .photographs import Photograph


class CocoImages:
    """Images with the objects of a COCO instance file: outlines, boxes, or both."""

    kind = "COCO instances"
    pixels_are_free = True

    def __init__(self, folder: Path, about: Description) -> None:
        self._folder, self._about = folder, about
        self._files = FolderFiles(folder, ("images",))
        self._coco = CocoFile.read(folder, about.annotations or "", about.dataset)

    def listed(self) -> Iterator[Candidate | LeftOut]:
        files = ImageFiles(self._folder, "images")
        found = files.find(image.file_name for image in self._coco.images.values())
        for key, image in self._coco.images.items():
            path, labels = found[image.file_name], self._coco.labels_of(key)
            if isinstance(path, NoFile):
                yield LeftOut(image.file_name, Drop.MISSING_IMAGE, path.why)
            elif not labels and not self._about.exhaustive:
                yield LeftOut(image.file_name, Drop.NO_MASKS)
            else:
                info = self._about.image_info(original_of(path))
                yield Candidate(info, labels, [files.place(path), key])

    def read(self, candidate: Candidate) -> MaskedImage:
        about, (place, key) = self._about, candidate.where
        content = read_bytes(self._files, place, Drop.UNREADABLE_IMAGE)
        photograph = Photograph.read(content, about.orientation)
        marked_wh = self._coco.marked_wh(key)
        photograph.orientation_of(marked_wh)  # an image is left out even if none of its marks can be read
        masks: list[tuple[str, np.ndarray]] = []
        boxes: list[tuple[str, Box]] = []
        faults: list[tuple[str | None, FaultyImageError]] = []
        for each in self._coco.objects.get(key, []):
            name = self._coco.name_of(each.category)
            try:
                label, mark = self._mark(each, name, photograph, marked_wh)
            except FaultyImageError as error:
                where = f"annotation {each.annotation} ({name or f'category {each.category[:40]}'})"
                detail = f"{where}: {error.detail}" if error.detail else where
                faults.append((name, FaultyImageError(error.reason, detail)))
                if about.faulty is Faulty.DROP_IMAGE:
                    raise faults[0][1] from error
                continue
            if isinstance(mark, Box):
                boxes.append((label, mark))
            else:
                masks.append((label, mark))
        # A crowd is further objects of its name, so the marks of that name are not all there are.
        crowds = {name for name, fault in faults if fault.reason is Drop.CROWD_REGION}
        masks = [(label, mask) for label, mask in masks if label not in crowds]
        boxes = [(label, box) for label, box in boxes if label not in crowds]
        if faults and not (masks or boxes):
            raise faults[0][1]
        absent = self._absent(key, {name for name, _ in faults})
        return checked(candidate.info, photograph.pixels, masks, absent, boxes, about.faulty)

    def _absent(self, key: str, faulty: set[str | None]) -> list[str]:
        """The labels that no object of an image has; none if an object without a name was dropped."""
        if not self._about.exhaustive or None in faulty:
            return []
        present = {*self._coco.labels_of(key)}
        return [label for label in self._coco.labels if label not in present]

    def _mark(
        self, each: CocoObject, name: str | None, photograph: Photograph, marked_wh: tuple[int, int] | None
    ) -> tuple[str, np.ndarray | Box]:
        """The name and the mask or box of an object, on the upright pixels. Raises FaultyImageError."""
        if name is None:
            raise FaultyImageError(Drop.UNNAMED_CLASS)
        if each.crowd:
            raise FaultyImageError(Drop.CROWD_REGION)
        if not has_outline(each.segmentation):
            if each.bbox is None:
                raise FaultyImageError(Drop.UNREADABLE_MASK, "neither an outline nor a box")
            box = photograph.box(corners_of(each.bbox), marked_wh)
            check_box(box, photograph.frame.upright_wh)
            return name, box
        orientation = photograph.orientation_of(marked_wh)
        try:
            mask = mask_of(each.segmentation, photograph.marked_shape(orientation))
        except FaultyImageError:
            raise
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise FaultyImageError(Drop.UNREADABLE_MASK, " ".join(str(error).split())) from error
        if orientation is Orientation.STORED:
            mask = photograph.frame.upright(mask)
        check_mask(mask, photograph.pixels.shape)
        return name, mask
