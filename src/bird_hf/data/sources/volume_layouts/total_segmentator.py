"""TotalSegmentator's dataset: one binary mask a structure, named by its file.

s0000/ct.nii.gz                            or mri.nii.gz, which says the modality
s0000/segmentations/kidney_left.nii.gz     masks may overlap, and stay apart
s0000/segmentations/liver.nii.gz

A case has a hundred masks, so they are read one after another, and only the box of each that has voxels is kept,
a bit a voxel, up to a limit.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from ...records import Axis, MaskedImage, Modality
from ...volumes import (
    VOXEL_AXIS,
    Volume,
    absent_names,
    ct_window,
    instances_of,
    label_slice_at,
    mr_window,
    slice_at,
    suited_ct_window,
    to_uint8,
)
from ..archives import Place
from ..base import Candidate, LeftOut, checked
from ..description import DESCRIPTION, Description, added_entries
from ..faults import Drop, FaultyImageError
from ..label_names import clean_label, region_of
from ..labelled_volumes import image_of, label_map_of, on_grid, volumes_in
from .known import dataset_name, description_of

MASKS = "segmentations"
_IMAGES = {"ct": Modality.CT, "mri": Modality.MR}
_MOST_PROBED = 1000  # folders, when looking for a first case
_KEPT_BYTES = 2**28  # of packed masks
# The side of a rib stands inside its name.
_INNER_SIDE = re.compile(r"(.+)_(left|right)_(\d+)")


def has_total_segmentator(path: Path) -> bool:
    """Whether a folder has a folder with `segmentations` and `ct.nii.gz` or `mri.nii.gz`."""
    if not path.is_dir():
        return False
    with os.scandir(path) as entries:
        names = islice((entry.name for entry in entries if entry.is_dir()), _MOST_PROBED)
        return any((path / name / MASKS).is_dir() and _images_in(path, name) for name in names)


def open_total_segmentator(path: Path, modality: Modality | None = None) -> TotalSegmentator:
    """Open a dataset of TotalSegmentator.

    modality: ignored, because the names of the files say it. Raises ValueError, in one line, if a labels.yaml beside
    the cases is invalid, or a mask has no meaningful name.
    """
    return TotalSegmentator(path)


@dataclass(frozen=True)
class _PackedMask:
    """The box of a mask (X, Y, Z) that has voxels: its first corner, its shape, and a bit for each of its voxels."""

    corner: tuple[int, ...]
    shape: tuple[int, ...]
    bits: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> _PackedMask:
        spans = []
        for axis in range(3):
            others = tuple(i for i in range(3) if i != axis)
            at = np.flatnonzero(mask.any(axis=others))
            spans.append(slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0))
        box = mask[tuple(spans)]
        return cls(tuple(span.start for span in spans), box.shape, np.packbits(box))

    def slices(self, axis: Axis) -> list[int]:
        """The slices of a plane that have voxels."""
        box = np.moveaxis(self._box(), VOXEL_AXIS[axis], 0)
        return [self.corner[VOXEL_AXIS[axis]] + int(i) for i in np.flatnonzero(box.any(axis=(1, 2)))]

    def displayed(self, image: Volume, axis: Axis, index: int) -> np.ndarray:
        """The mask (H, W) bool in one displayed slice of its image."""
        normal = VOXEL_AXIS[axis]
        sizes = [1 if i == normal else size for i, size in enumerate(image.voxels.shape)]
        plane = np.zeros(sizes, np.bool_)
        inside = index - self.corner[normal]
        if 0 <= inside < self.shape[normal]:
            corner = [0 if i == normal else start for i, start in enumerate(self.corner)]
            layer = np.take(self._box(), [inside], axis=normal)
            ends = [start + size for start, size in zip(corner, layer.shape, strict=True)]
            plane[tuple(map(slice, corner, ends))] = layer
        return label_slice_at(replace(image, voxels=plane), axis, 0)

    def _box(self) -> np.ndarray:
        count = int(np.prod(self.shape))
        return np.unpackbits(self.bits, count=count).reshape(self.shape).view(np.bool_)


class TotalSegmentator:
    """All cases of a dataset of TotalSegmentator."""

    kind = "TotalSegmentator"
    pixels_are_free = True

    def __init__(self, folder: Path) -> None:
        self._folder, self._added = folder, added_entries(folder)
        if unfit := {"labels", "channel"} & {*self._added}:
            raise ValueError(f"{folder / DESCRIPTION}: `{unfit.pop()}` has no meaning in TotalSegmentator")
        self._image: tuple[str, Volume] | None = None
        self._range: tuple[float, float] | None = (
            None  # of the image; None for CT, whose window suits each slice
        )
        self._masks: OrderedDict[tuple[str, str], _PackedMask] = OrderedDict()
        self._kept_bytes = 0
        self._abouts: dict[tuple[Modality, tuple[str, ...]], Description] = {}

    def listed(self) -> Iterator[Candidate | LeftOut]:
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith(".") or not (path / MASKS).is_dir():
                continue
            try:
                yield from self._slices(path.name)
            except FaultyImageError as error:
                yield LeftOut(path.name, error.reason, error.detail)

    def read(self, candidate: Candidate) -> MaskedImage:
        case, info = candidate.where["case"], candidate.info
        assert info.slice_index is not None
        files, modality = self._files(case)
        about = self._about(modality, tuple(files))
        image = self._image_of(case, about)
        position = (info.axis, info.slice_index)
        low, high = self._range or self._window(info.region, candidate.labels)
        described = about.case_of(case)
        masks = []
        for name in candidate.labels:
            mask = self._mask(case, name, files[name], about).displayed(image, *position)
            masks += [(name, piece) for piece in instances_of(described, name, mask)]
        pixels = to_uint8(slice_at(image, *position), low, high)
        return checked(info, pixels, masks, absent_names(described, {*candidate.labels}, info.axis))

    def _window(self, region: str, labels: Sequence[str]) -> tuple[float, float]:
        return ct_window(self._added.get("window") or suited_ct_window(region, labels))

    def _slices(self, case: str) -> Iterator[Candidate]:
        """Yield the slices of a case that have an object. Raises FaultyImageError if the case has a fault."""
        files, modality = self._files(case)
        about = self._about(modality, tuple(files))
        shown: dict[tuple[Axis, int], list[str]] = {}
        for name, place in files.items():
            mask = self._mask(case, name, place, about)
            for axis in about.axes:
                for index in mask.slices(axis):
                    shown.setdefault((axis, index), []).append(name)
        if not shown:
            raise FaultyImageError(Drop.EMPTY_MASK, "no mask has a voxel")
        for (axis, index), names in sorted(shown.items(), key=lambda item: (item[0][0].value, item[0][1])):
            region = about.region if "region" in self._added else _region_of(modality, tuple(names))
            info = about.case_of(case).image_info(axis, index)
            info = replace(info, region=region, case_id=about.case_id_of(case))
            yield Candidate(info, tuple(names), {"case": case})

    def _files(self, case: str) -> tuple[dict[str, Place], Modality]:
        """The clean names of a case's masks, with their files, and its modality. Raises FaultyImageError."""
        images = _images_in(self._folder, case)
        if len(images) != 1:
            found = " and ".join(images) or "neither ct.nii.gz nor mri.nii.gz"
            raise FaultyImageError(Drop.CHANNEL_UNKNOWN if images else Drop.MISSING_IMAGE, found)
        dataset = str(self._added.get("dataset", dataset_name(self._folder.resolve().name)))
        files: dict[str, Place] = {}
        for stem, places in volumes_in(self._folder, f"{case}/{MASKS}").items():
            name = clean_label(dataset, _INNER_SIDE.sub(r"\2_\1_\3", stem))
            if len(places) > 1 or name in files:
                raise FaultyImageError(Drop.DUPLICATE_ID, f"two masks are named {name!r}")
            files[name] = places[0]
        if not files:
            raise FaultyImageError(Drop.NO_MASKS, f"no mask in {MASKS}")
        return files, _IMAGES[images[0]]

    def _about(self, modality: Modality, names: tuple[str, ...]) -> Description:
        """The description of the cases of one modality with masks of these names."""
        if (modality, names) not in self._abouts:
            known = {
                "dataset": dataset_name(self._folder.resolve().name),
                "labels": dict(enumerate(names, 1)),
                "modality": modality,
            }
            lesions = [name for name in self._added.get("lesions", ()) if clean_label("", name) in names]
            added = {**self._added, "modality": modality, "lesions": lesions}
            self._abouts[modality, names] = description_of(self._folder, known, added, None, modality)
        return self._abouts[modality, names]

    def _image_of(self, case: str, about: Description) -> Volume:
        """The image of a case; the last one is kept because slices are read case by case."""
        if self._image is None or self._image[0] != case:
            self._image = None
            (name,) = _images_in(self._folder, case)
            place = volumes_in(self._folder, case)[name][0]
            self._image = (case, image_of(self._folder, place, None, about))
            is_ct = about.modality is Modality.CT
            self._range = None if is_ct else mr_window(self._image[1].voxels)
        return self._image[1]

    def _mask(self, case: str, name: str, place: Place, about: Description) -> _PackedMask:
        """A mask of a case; the last ones used are kept. Raises FaultyImageError if it has a fault."""
        if (case, name) in self._masks:
            self._masks.move_to_end((case, name))
            return self._masks[case, name]
        image = self._image_of(case, about)
        stored = label_map_of(self._folder, place)
        try:
            mask = _PackedMask.of(
                on_grid(replace(stored, voxels=_binary(stored.voxels)), image, about.trust_shape)
            )
        except FaultyImageError as error:
            raise FaultyImageError(error.reason, f"{place[1]}: {error.detail}") from error
        self._masks[case, name] = mask
        self._kept_bytes += mask.bits.nbytes
        while self._kept_bytes > _KEPT_BYTES and len(self._masks) > 1:
            self._kept_bytes -= self._masks.popitem(last=False)[1].bits.nbytes
        return mask


@lru_cache(maxsize=1000)  # slices beside each other show the same
def _region_of(modality: Modality, names: tuple[str, ...]) -> str:
    return region_of(modality, names)


def _binary(voxels: np.ndarray) -> np.ndarray:
    """A mask of two values as bool. Raises FaultyImageError if it has a third."""
    high = voxels.max()
    mask = voxels != 0
    if not ((voxels == high) | ~mask).all() or high < 0:
        some = ", ".join(f"{value:g}" for value in np.unique(voxels[mask])[:4])
        raise FaultyImageError(Drop.NOT_BINARY, f"values 0, {some}")
    return mask


def _images_in(folder: Path, case: str) -> list[str]:
    """Which of `ct` and `mri` a case has."""
    return [name for name in _IMAGES if (folder / case / f"{name}.nii.gz").is_file()]
