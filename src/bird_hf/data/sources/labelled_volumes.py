"""Volumes with one label map each on the same grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..records import Axis, ImageInfo, MaskedImage
from ..volumes import (
    VOXEL_AXIS,
    Volume,
    display_range,
    label_slice_at,
    objects_of,
    slice_at,
    to_uint8,
)
from .archives import FolderFiles, Place
from .base import Candidate, LeftOut, checked
from .description import Description
from .faults import Drop, FaultyImageError
from .label_maps import check_label_map, paired
from .volume_files import read_volume

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd")


class LabelledVolumes:
    """Volumes with one label map each on the same grid: `images/NAME.nii.gz` and `masks/NAME.nii.gz`, or .nrrd."""

    kind = "volumes and label maps"
    pixels_are_free = True

    def __init__(self, folder: Path, about: Description) -> None:
        self._folder, self._about = folder, about
        self._loaded: tuple[Place, Volume, Volume] | None = None
        self._range = (0.0, 1.0)

    def listed(self) -> Iterator[Candidate | LeftOut]:
        series = sorted(path.name for path in (self._folder / "images").iterdir() if path.is_dir())
        files = FolderFiles(self._folder, ("images", "masks"))
        for stem, image, mask in paired(files, VOLUME_ENDINGS, series):
            if mask is None:
                yield LeftOut(stem, Drop.NO_MASKS)
                continue
            try:
                _, labels = self._volumes([image, mask])
            except FaultyImageError as error:
                yield LeftOut(stem, error.reason)
                continue
            for axis in self._about.axes:
                planes = np.moveaxis(labels.voxels, VOXEL_AXIS[axis], 0)
                for index, plane in enumerate(planes):
                    values = {*np.unique(plane).tolist()}
                    names = tuple(name for value, name in self._about.labels.items() if value in values)
                    if names:
                        yield Candidate(self._info(stem, axis, index), names, [image, mask, stem])

    def read(self, candidate: Candidate) -> MaskedImage:
        image_place, mask_place, stem = candidate.where
        info = candidate.info
        image, labels = self._volumes([image_place, mask_place])
        assert info.slice_index is not None
        case, position = self._about.case_of(stem), (info.axis, info.slice_index)
        pixels = to_uint8(slice_at(image, *position), *self._range)
        objects = objects_of(case, label_slice_at(labels, *position), info.axis, min_area=0)
        return checked(info, pixels, *objects)

    def _info(self, stem: str, axis: Axis, index: int) -> ImageInfo:
        info = self._about.case_of(stem).image_info(axis, index)
        return replace(info, case_id=self._about.case_id_of(stem))

    def _volumes(self, places: Place) -> tuple[Volume, Volume]:
        """The image and its label map; the last pair is kept in memory because slices are read volume by volume."""
        if self._loaded is None or self._loaded[0] != places:
            try:
                image, labels = (read_volume(self._folder / folder / name) for folder, name in places)
            except ValueError as error:
                raise FaultyImageError(Drop.UNREADABLE_IMAGE, str(error)) from error
            if image.voxels.shape != labels.voxels.shape or not np.allclose(
                image.affine, labels.affine, atol=0.01
            ):
                raise FaultyImageError(Drop.SHAPE_MISMATCH, "image and labels are on different grids")
            check_label_map(labels.voxels)
            self._loaded = (places, image, labels)
            self._range = display_range(self._about.case_of(""), image)
        return self._loaded[1], self._loaded[2]
