"""Volumes with one label map each: in a folder `images` and a folder `masks`, or as another layout pairs them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..records import Axis, MaskedImage
from ..volumes import (
    SAME_GRID_VOXELS,
    VOXEL_AXIS,
    CaseInfo,
    Volume,
    absent_names,
    canonical,
    display_range,
    grid_distance,
    instances_of,
    label_slice_at,
    objects_of,
    slice_at,
    to_uint8,
)
from .archives import Place
from .base import Candidate, LeftOut, checked
from .description import Description
from .faults import Drop, FaultyImageError
from .label_maps import named_values
from .volume_files import StoredVolume, read_stored, read_volume
from .volume_headers import VOLUME_ENDINGS, ChannelUnknownError

_TRUST_SHAPE = "`trust_shape: true` in labels.yaml takes its voxels in the image's order"


@dataclass(frozen=True)
class VolumePair:
    """A volume and its label map; both are [folder, name] below the source.

    stem: the volume's name in image ids. case: the name that the patient is found in. channel: of an image with a
    fourth axis.
    """

    stem: str
    image: Place
    mask: Place
    case: str
    channel: int | None = None


class LabelledVolumes:
    """Volumes with one label map each on the same grid: `images/NAME.nii.gz` and `masks/NAME.nii.gz`, or .nrrd.

    pairs: the volumes of another layout. regions: name -> the values of its voxels, for names that share values;
    without it, each value has the name that `about` gives.
    """

    kind = "volumes and label maps"
    pixels_are_free = True

    def __init__(
        self,
        folder: Path,
        about: Description,
        *,
        kind: str | None = None,
        pairs: Callable[[], Iterable[VolumePair | LeftOut]] | None = None,
        regions: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        if not about.labels:
            raise ValueError(f"{folder}: the values of its label maps have no names; give `labels`")
        self._folder, self._about = folder, about
        self.kind = kind or self.kind
        self._pairs = pairs or (lambda: folder_pairs(folder, about))
        self._regions = regions
        values = {value: name for name, values in (regions or {}).items() for value in values}
        self._valued = replace(about, labels=values) if regions else about
        self._loaded: tuple[Place, Volume, Volume] | None = None
        self._range = (0.0, 1.0)

    def listed(self) -> Iterator[Candidate | LeftOut]:
        for pair in self._pairs():
            if isinstance(pair, LeftOut):
                yield pair
                continue
            try:
                yield from self._slices(pair)
            except FaultyImageError as error:
                yield LeftOut(pair.stem, error.reason, error.detail)

    def read(self, candidate: Candidate) -> MaskedImage:
        *places, stem = candidate.where
        info = candidate.info
        image, labels = self._volumes(places)
        assert info.slice_index is not None
        case, position = self._about.case_of(stem), (info.axis, info.slice_index)
        pixels = to_uint8(slice_at(image, *position), *self._range)
        values = label_slice_at(labels, *position)
        nameless = ~np.isin(values, [0, *self._valued.labels])
        if nameless.any():
            case, values = replace(case, exhaustive=False), np.where(nameless, 0, values)
        objects = (
            objects_of(case, values, info.axis, min_area=0)
            if self._regions is None
            else _objects_of_regions(case, self._regions, values, info.axis)
        )
        return checked(info, pixels, *objects)

    def _slices(self, pair: VolumePair) -> Iterator[Candidate]:
        """Yield the slices with a named value. Raises FaultyImageError if the pair has a fault, or no such slice."""
        empty = True
        where = [pair.image, pair.mask, pair.channel]
        _, labels = self._volumes(where)
        names = self._regions or {name: (value,) for value, name in self._about.labels.items()}
        case = self._about.case_of(pair.stem)
        for axis in self._about.axes:
            for index, plane in enumerate(np.moveaxis(labels.voxels, VOXEL_AXIS[axis], 0)):
                found = {*np.unique(plane).tolist()}
                shown = tuple(name for name, values in names.items() if not found.isdisjoint(values))
                if shown:
                    empty = False
                    info = replace(case.image_info(axis, index), case_id=self._about.case_id_of(pair.case))
                    yield Candidate(info, shown, [*where, pair.stem])
        if empty:
            raise FaultyImageError(Drop.EMPTY_MASK, "no voxel of the label map has a named value")

    def _volumes(self, where: Place) -> tuple[Volume, Volume]:
        """The image and its label map; the last pair is kept in memory because slices are read volume by volume."""
        if self._loaded is None or self._loaded[0] != where:
            self._loaded = None  # the last pair is released before the next is read
            (image_place, mask_place, channel) = where
            image = image_of(self._folder, image_place, channel, self._about)
            stored = label_map_of(self._folder, mask_place)
            whole, _ = named_values(stored.voxels, self._valued)
            # The slices of a DICOM series have no order in a file that a label map could share.
            is_series = (self._folder / image_place[0] / image_place[1]).is_dir()
            trust_shape = None if is_series else self._about.trust_shape
            voxels = on_grid(replace(stored, voxels=whole), image, trust_shape)
            self._loaded = (where, image, replace(image, voxels=voxels))
            self._range = display_range(self._about.case_of(""), image)
        return self._loaded[1], self._loaded[2]


def folder_pairs(folder: Path, about: Description) -> Iterator[VolumePair | LeftOut]:
    """The volumes of a folder `images`, which can be folders with a DICOM series, and the label maps of `masks`.

    A label map has the name of its image, with or without a suffix that all label maps share (`NAME_seg.nii.gz`).
    """
    images = volumes_in(folder, "images")
    for path in sorted((folder / "images").iterdir()):
        if path.is_dir():
            images[path.name].insert(0, ["images", path.name])
    masks = volumes_in(folder, "masks")
    suffix = "" if {*images} & {*masks} else suffix_of(masks)
    for stem, places in images.items():
        found = masks.get(stem + suffix, [])
        if len(places) > 1 or len(found) > 1:
            names = ", ".join("/".join(place) for place in (places if len(places) > 1 else found))
            yield LeftOut(stem, Drop.DUPLICATE_ID, names)
        elif not found:
            yield LeftOut(stem, Drop.NO_MASKS, f"no masks/{stem}{suffix}.nii.gz")
        else:
            yield VolumePair(stem, places[0], found[0], stem, about.channel)


SUFFIXES = ("seg", "segmentation", "label", "labels", "labelmap", "mask", "masks", "gt")


def suffix_of(stems: Iterable[str]) -> str:
    """The suffix that all stems end in, such as `_seg` or `-label`; "" if they end in none of the usual ones."""
    endings = {stem[max(stem.rfind("_"), stem.rfind("-")) :] for stem in stems}
    (only,) = endings if len(endings) == 1 else ("",)
    return only if only[1:].lower() in SUFFIXES and only[:1] in ("_", "-") else ""


def volumes_in(folder: Path, name: str) -> defaultdict[str, list[Place]]:
    """The volume files directly in a folder below another, by their names without an ending, sorted."""
    found: defaultdict[str, list[Place]] = defaultdict(list)
    for path in sorted((folder / name).iterdir()):
        ending = next((ending for ending in VOLUME_ENDINGS if path.name.lower().endswith(ending)), None)
        if ending is not None and not path.name.startswith(".") and path.is_file():
            found[path.name[: -len(ending)]].append([name, path.name])
    return found


def image_of(folder: Path, place: Place, channel: int | None, about: Description) -> Volume:
    """The volume at a place below a folder. Raises FaultyImageError if it cannot be read or displayed."""
    try:
        image = read_volume(folder / place[0] / place[1], channel)
        for axis in about.axes:
            slice_at(image, axis, 0)
    except FaultyImageError:
        raise
    except ValueError as error:
        known = isinstance(error, ChannelUnknownError)
        reason = Drop.CHANNEL_UNKNOWN if known else Drop.UNREADABLE_IMAGE
        raise FaultyImageError(reason, _below(folder, error)) from error
    return image


def label_map_of(folder: Path, place: Place) -> StoredVolume:
    """The label map at a place below a folder, in the order of its file. Raises FaultyImageError."""
    try:
        return read_stored(folder / place[0] / place[1])
    except ChannelUnknownError as error:
        detail = (
            f"{place[1]}: a label map with a fourth axis; save one with three axes and a value for each class"
        )
        raise FaultyImageError(Drop.UNREADABLE_MASK, detail) from error
    except ValueError as error:
        raise FaultyImageError(Drop.UNREADABLE_MASK, _below(folder, error)) from error


def on_grid(labels: StoredVolume, image: Volume, trust_shape: bool | None) -> np.ndarray:
    """The voxels of a label map in the order of the image's.

    trust_shape: the label map stores its voxels in the order of the image's file, whatever its header says; None if
    that cannot be. Raises FaultyImageError if the label map has another shape than the image or is at another place.
    """
    shape, file_affine, affine = image.voxels.shape, image.file_affine, labels.affine
    assert file_affine is not None
    remedy = f"; {_TRUST_SHAPE}" if trust_shape is not None else ""
    if (
        trust_shape
        or affine is None
        or grid_distance(file_affine, affine, labels.voxels.shape)[0] < SAME_GRID_VOXELS
    ):
        found, apart = canonical(labels.voxels, file_affine).voxels, (0.0, 0.0)
    else:
        try:
            turned = canonical(labels.voxels, affine, "label map")
        except ValueError as error:
            raise FaultyImageError(Drop.GRID_MISMATCH, f"{error}{remedy}") from error
        found, apart = turned.voxels, grid_distance(image.affine, turned.affine, shape)
    if found.shape != shape:
        raise FaultyImageError(Drop.SHAPE_MISMATCH, f"label map {found.shape}, image {shape} voxels")
    if affine is None and not trust_shape:
        raise FaultyImageError(Drop.GRID_MISMATCH, f"the label map has no orientation{remedy}")
    if affine is not None and not apart[0] < SAME_GRID_VOXELS:
        raise FaultyImageError(Drop.GRID_MISMATCH, _apart_line(affine, *apart) + remedy)
    return found


def _apart_line(affine: np.ndarray, voxels: float, mm: float) -> str:
    line = f"label map and image are up to {voxels:.3g} voxels ({mm:.3g} mm) apart"
    if np.array_equal(np.abs(affine[:3, :3]), np.eye(3)):
        line += ": the label map has the identity as affine, which may say nothing"
    return line


def _below(folder: Path, error: Exception) -> str:
    """A reader's message, with paths below the source."""
    return str(error).replace(f"{folder}/", "")


def _objects_of_regions(
    case: CaseInfo, regions: Mapping[str, tuple[int, ...]], values: np.ndarray, axis: Axis
) -> tuple[list[tuple[str, np.ndarray]], tuple[str, ...]]:
    """The masks and the absent names of a slice (H, W) of a label map whose names share values."""
    masks = {name: np.isin(values, of_name) for name, of_name in regions.items()}
    shown = {name: mask for name, mask in masks.items() if mask.any()}
    found = [(name, piece) for name, mask in shown.items() for piece in instances_of(case, name, mask)]
    return found, absent_names(case, {*shown}, axis)
