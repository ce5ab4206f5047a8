"""Contours of structure sets as masks of images: the image of each contour, and the pixels inside.

A contour belongs to the image that it refers to, else to the one image of its frame of reference in whose plane it
lies. Contours of one region of interest on one image are combined by the even-odd rule, so one inside another is a
hole, and a hole that is joined to its outline by a channel stays a hole.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ...records import Axis
from ..coco import fill_polygon
from ..faults import Drop, FaultyImageError
from .images import DicomImage
from .planes import Plane
from .segments import ImageIndex
from .structures import Contour, StructureSet, read_structures

_Key = tuple[str, int]  # of an image: the UID of its file, and its frame
_SAME_PLACE_MM = 1e-3
_PIXEL_DECIMALS = 3  # corners that were drawn at the centres of pixels stay there
_MAX_FILLED = 2**31  # pixels of all polygons of one mask
_KEPT_FILES = 4
_NAMES = 3  # in a message


@dataclass
class Placed:
    """Where the contours of a structure set belong.

    contours: image -> region of interest -> numbers of its contours. faults: images with a contour that cannot be used.
    lost: what is wrong -> the contours that belong to no image.
    """

    contours: dict[_Key, dict[int, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    faults: dict[_Key, tuple[Drop, str]] = field(default_factory=dict)
    lost: dict[tuple[Drop, str], list[Contour]] = field(default_factory=lambda: defaultdict(list))


def place_contours(structures: StructureSet, images: Sequence[DicomImage]) -> Placed:
    """Find the image of each contour among all images of a folder."""
    placed = Placed()
    index = ImageIndex(images)
    groups: dict[str, _Slices] = {}
    for each in images:
        groups.setdefault(each.series, _Slices()).add(each)
    for contour in structures.contours:
        named = index.named(contour.sources)
        image = named[0] if len(named) == 1 else None
        try:
            if contour.points is None:
                raise FaultyImageError(Drop.UNREADABLE_MASK, "a contour has fewer than 3 readable points")
            if image is not None:
                groups[image.series].check(image, contour.points)
            found = image or _slices_of(contour, named, structures, groups).nearest(contour.points)
        except FaultyImageError as error:
            if image is None:
                placed.lost[error.reason, error.detail].append(contour)
            else:
                detail = f"{structures.name_of(contour.roi)}: {error.detail}"
                placed.faults.setdefault(image.key, (error.reason, detail))
            continue
        placed.contours[found.key][contour.roi].append(contour.number)
    return placed


def lost_in_words(structures: StructureSet, placed: Placed) -> list[tuple[Drop, str]]:
    """(reason, detail) for all contours that cannot be masks of an image, for each kind of fault once."""
    found = [
        (reason, f"{_counted(len(contours))} of {_names(structures, (c.roi for c in contours))}: {detail}")
        for (reason, detail), contours in placed.lost.items()
    ]
    kinds: dict[str, list[int]] = defaultdict(list)
    for kind, roi in structures.others:
        kinds[kind].append(roi)
    for kind, rois in kinds.items():
        number = sum(structures.others[kind, roi] for roi in rois)
        names = _names(structures, rois)
        found.append((Drop.UNREADABLE_MASK, f"{_counted(number)} of {names}: {kind}, not closed"))
    return found


def _counted(number: int) -> str:
    return f"{number} contour{'s' if number > 1 else ''}"


def _names(structures: StructureSet, rois: Iterable[int]) -> str:
    names = [*dict.fromkeys(structures.name_of(roi) for roi in rois)]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _slices_of(
    contour: Contour, named: Sequence[DicomImage], structures: StructureSet, groups: dict[str, _Slices]
) -> _Slices:
    """The slices among which a contour lies that does not name one. Raises FaultyImageError if there are none.

    named: the images of the files that it refers to.
    """
    if named:
        return _Slices(named)
    if contour.sources:
        raise FaultyImageError(Drop.MISSING_IMAGE, "their images are not in the folder")
    reference = structures.frames_of_reference.get(contour.roi)
    found = [groups[uid] for uid in dict.fromkeys(structures.series) if uid in groups]
    if not structures.series:
        found = [*groups.values()]
    if not structures.series or len(found) > 1:
        found = [slices for slices in found if reference and slices.frame_of_reference == reference]
    if not found:
        raise FaultyImageError(Drop.MISSING_IMAGE, "no series of their frame of reference is in the folder")
    if len(found) > 1:
        raise FaultyImageError(Drop.OFF_GRID, f"{len(found)} series are in their place, and they name none")
    return found[0]


class _Slices:
    """The images of a series by the place of their planes."""

    def __init__(self, images: Iterable[DicomImage] = ()) -> None:
        self._images: list[tuple[DicomImage, Plane]] = []
        self.frame_of_reference = ""
        for image in images:
            self.add(image)

    def add(self, image: DicomImage) -> None:
        self.frame_of_reference = image.frame_of_reference
        if image.plane is not None:
            self._images.append((image, image.plane))

    @cached_property
    def _across(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) unit vectors across the planes, and (N, 3) points in them."""
        normals = np.array([plane.normal for _, plane in self._images])
        return normals, np.array([plane.origin for _, plane in self._images])

    @cached_property
    def _half_slices(self) -> dict[_Key, float]:
        """Half of the smallest distance of two slices of an orientation in mm; of a single slice, half a pixel."""
        found: dict[Axis, list[tuple[float, DicomImage, Plane]]] = defaultdict(list)
        for image, plane in self._images:
            axis, height = plane.axis_and_height()
            found[axis].append((height, image, plane))
        halves = {}
        for slices in found.values():
            gaps = np.diff(np.sort([height for height, _, _ in slices]))
            gaps = gaps[gaps > _SAME_PLACE_MM]
            for _, image, plane in slices:
                halves[image.key] = float(gaps.min()) / 2 if gaps.size else plane.half_pixel
        return halves

    def check(self, image: DicomImage, points: np.ndarray) -> None:
        """Raises FaultyImageError if points are not in the plane of an image, within half a slice."""
        if image.plane is None:
            raise FaultyImageError(Drop.OFF_GRID, "the image has no position in the patient")
        apart, half = _apart(image.plane, points), self._half_slices[image.key]
        if apart > half:
            raise FaultyImageError(
                Drop.OFF_GRID, f"{apart:.2f} mm from the plane of its image, half a slice is {half:.2f} mm"
            )

    def nearest(self, points: np.ndarray) -> DicomImage:
        """The image in whose plane points are, within half a slice. Raises FaultyImageError if there is not one."""
        if not self._images:
            raise FaultyImageError(Drop.OFF_GRID, "the images have no position in the patient")
        normals, origins = self._across
        apart = np.abs(((points.mean(axis=0) - origins) * normals).sum(axis=1))
        tied = np.flatnonzero(apart <= apart.min() + _SAME_PLACE_MM)
        near = [self._images[int(i)] for i in tied]
        fitting = [image for image, plane in near if _apart(plane, points) <= self._half_slices[image.key]]
        if len(fitting) > 1:
            raise FaultyImageError(
                Drop.OFF_GRID, f"{len(fitting)} images are in their plane, and they name none"
            )
        if not fitting:
            half = self._half_slices[near[0][0].key]
            raise FaultyImageError(Drop.OFF_GRID, f"not within {half:.2f} mm, half a slice, of an image")
        return fitting[0]


def _apart(plane: Plane, points: np.ndarray) -> float:
    return float(np.abs(plane.coordinates(points)[1]).max())


class ContourMasks:
    """Fills the contours of structure sets; the last files are kept in memory, as images are read series by series."""

    def __init__(self, root: Path, dataset: str) -> None:
        self._root, self._dataset = root, dataset
        self._files: OrderedDict[str, dict[int, Contour]] = OrderedDict()

    def mask(self, path: str, numbers: Sequence[int], plane: Plane) -> np.ndarray:
        """The pixels (rows, columns) bool inside contours, as stored. Raises FaultyImageError."""
        if path not in self._files:
            structures = read_structures(self._root, path, self._dataset)
            self._files[path] = {contour.number: contour for contour in structures.contours}
            while len(self._files) > _KEPT_FILES:
                self._files.popitem(last=False)
        contours = self._files[path]
        drawn = [contours[number].points for number in numbers if number in contours]
        if len(drawn) < len(numbers):
            raise FaultyImageError(Drop.UNREADABLE_MASK, "contours are missing")
        return fill_contours([points for points in drawn if points is not None], plane)


def fill_contours(contours: Sequence[np.ndarray], plane: Plane) -> np.ndarray:
    """The pixels (rows, columns) bool whose centres are inside contours (N, 3) in LPS mm, by the even-odd rule.

    Raises FaultyImageError if the contours are too many for the size of the image.
    """
    mask = np.zeros(plane.shape, bool)
    filled = 0
    for points in contours:
        # `fill_polygon` has the centres of pixels at halves.
        corners = np.round(plane.coordinates(points)[0], _PIXEL_DECIMALS) + 0.5
        left, top = np.clip(np.floor(corners.min(axis=0)), 0, plane.shape[::-1]).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, plane.shape[::-1]).astype(int)
        filled += (right - left) * (bottom - top)
        if filled > _MAX_FILLED:
            raise FaultyImageError(
                Drop.UNREADABLE_MASK, f"{len(contours):,} contours on one image are too many"
            )
        if right > left and bottom > top:
            try:
                inside = fill_polygon((corners - (left, top)).ravel().tolist(), (bottom - top, right - left))
            except ValueError as error:
                raise FaultyImageError(Drop.UNREADABLE_MASK, str(error)) from error
            mask[top:bottom, left:right] ^= inside
    return mask
