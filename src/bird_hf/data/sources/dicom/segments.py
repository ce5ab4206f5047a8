"""DICOM segmentations: the names of their segments, and the image that each frame belongs to.

Binary and label-map segmentations are used as they are; fractional ones are thresholded at one half.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..faults import Drop, FaultyImageError
from ..label_names import clean_label
from .files import check_header_size, read_header, read_pixels
from .images import DicomImage, Plane

SEGMENTATION_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # binary and fractional
    "1.2.840.10008.5.1.4.1.1.66.7",  # label map
)
_SIZES = ("Rows", "Columns", "NumberOfFrames", "BitsAllocated")
_CACHED_VALUES = 2**28  # of decoded segmentations


@dataclass(frozen=True)
class Frame:
    """One frame of a segmentation, and the image it was drawn on.

    number: from 0. segment: None in a label map, whose frames contain all segments. sources: UIDs of images.
    """

    number: int
    segment: int | None
    sources: tuple[str, ...]
    plane: Plane | None


@dataclass(frozen=True)
class Segmentation:
    """The header of a segmentation. labels: segment number -> clean name, or the reason why it has none."""

    path: str
    labels: dict[int, str | Drop]
    frames: tuple[Frame, ...]
    series: tuple[str, ...]
    frame_of_reference: str
    shape: tuple[int, int]


def read_segmentation(root: Path, path: str, dataset: str) -> Segmentation:
    """Read the header of a segmentation. Raises FaultyImageError if it cannot be used."""
    sizes = read_header(root / path, Drop.UNREADABLE_MASK, _SIZES)
    try:
        check_header_size(root / path, sizes)
        header = read_header(root / path, Drop.UNREADABLE_MASK)
        shape = int(header.Rows), int(header.Columns)
        labels = {
            int(item.SegmentNumber): _label_of(item, dataset)
            for item in header.SegmentSequence
            if int(item.SegmentNumber) > 0  # 0 is the background of a label map
        }
        is_map = header.SegmentationType == "LABELMAP"
        shared = _first(header, "SharedFunctionalGroupsSequence")
        frames = tuple(
            _frame_of(number, groups, shared, shape, is_map)
            for number, groups in enumerate(header.PerFrameFunctionalGroupsSequence)
        )
        if not labels or not all(frame.segment is None or frame.segment in labels for frame in frames):
            raise ValueError("segments are missing")
        series = tuple(str(item.SeriesInstanceUID) for item in header.get("ReferencedSeriesSequence") or ())
        reference = str(header.get("FrameOfReferenceUID") or "")
        return Segmentation(path, labels, frames, series, reference, shape)
    except FaultyImageError:
        raise
    except Exception as error:  # elements are decoded when they are accessed
        raise FaultyImageError(Drop.UNREADABLE_MASK, type(error).__name__) from error


def _first(item: Any, tag: str) -> Any:
    """The first item of a sequence element; None if it is missing or empty."""
    found = item.get(tag) if item is not None else None
    return found[0] if found else None


def _label_of(segment: Any, dataset: str) -> str | Drop:
    """The clean name of a segment: of its label, or else of its property type; with its side if the name has none.

    The reason instead, if neither text is a usable name.
    """
    kind = _first(segment, "SegmentedPropertyTypeCodeSequence")
    side = _first(kind, "SegmentedPropertyTypeModifierCodeSequence") or _first(
        _first(segment, "AnatomicRegionSequence"), "AnatomicRegionModifierSequence"
    )
    names = [str(segment.get("SegmentLabel") or ""), str(kind.get("CodeMeaning") or "") if kind else ""]
    word = str(side.get("CodeMeaning") or "").lower() if side is not None else ""
    fault = Drop.UNNAMED_CLASS
    for name in names:
        try:
            label = clean_label(dataset, name)
        except FaultyImageError as error:
            fault = error.reason
            if fault is Drop.UNION_CLASS:
                return fault
            continue
        has_side = {"left", "right"} & {*label.split()} or word not in ("left", "right")
        return label if has_side else f"{word} {label}"
    return fault


def _frame_of(number: int, groups: Any, shared: Any, shape: tuple[int, int], is_map: bool) -> Frame:
    def of(tag: str) -> Any:
        return _first(groups, tag) or _first(shared, tag)

    derivations = groups.get("DerivationImageSequence") or ()
    sources = tuple(
        str(source.ReferencedSOPInstanceUID)
        for derivation in derivations
        for source in derivation.get("SourceImageSequence") or ()
    )
    position, orientation = of("PlanePositionSequence"), of("PlaneOrientationSequence")
    measures = of("PixelMeasuresSequence")
    plane = None
    if position is not None and orientation is not None and measures is not None:
        plane = Plane.of(
            position.ImagePositionPatient,
            orientation.ImageOrientationPatient,
            measures.PixelSpacing,
            shape,
        )
    segment = None if is_map else int(of("SegmentIdentificationSequence").ReferencedSegmentNumber)
    return Frame(number, segment, sources, plane)


def matched(segmentation: Segmentation, images: Sequence[DicomImage]) -> dict[str, list[Frame]]:
    """image UID -> the frames that were drawn on it, by the images they refer to, else by their planes.

    images: the images of the segmented series. Raises FaultyImageError if a frame matches none of them.
    """
    by_uid = {image.uid: image for image in images}
    placed = [image for image in images if image.plane is not None]
    corners = np.array([image.plane.corners for image in placed if image.plane]).reshape(-1, 9)
    found: dict[str, list[Frame]] = {}
    for frame in segmentation.frames:
        named = [by_uid[uid] for uid in frame.sources if uid in by_uid]
        if len(named) == 1:
            image: DicomImage | None = named[0]
        elif frame.plane is not None and placed:
            image = placed[int(np.abs(corners - frame.plane.corners).max(axis=1).argmin())]
        else:
            image = None
        if image is not None and _fits(frame, image, segmentation.shape):
            found.setdefault(image.uid, []).append(frame)
        elif named or not frame.sources:  # otherwise it refers to an image that is not in the folder
            raise FaultyImageError(Drop.OFF_GRID, "a frame is not in the plane of its image")
    return found


def _fits(frame: Frame, image: DicomImage, shape: tuple[int, int]) -> bool:
    """Whether a frame and an image have the same pixel grid, within half a pixel."""
    if shape != image.shape:
        return False
    if frame.plane is None or image.plane is None:
        return True
    apart = np.abs(frame.plane.corners - image.plane.corners).max()
    return bool(apart <= image.plane.half_pixel)


class SegmentMasks:
    """Reads masks from segmentation files; the last decoded ones are cached, as images are read series by series."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._decoded: OrderedDict[str, tuple[np.ndarray, bool]] = OrderedDict()

    def mask(self, path: str, frame: int, segment: int) -> np.ndarray:
        """The mask (rows, columns) bool of a segment in a frame, as stored. Raises FaultyImageError."""
        values, is_map = self._values(path)
        if frame >= len(values):
            raise FaultyImageError(Drop.UNREADABLE_MASK, "frames are missing")
        return values[frame] == segment if is_map else values[frame] > 0

    def _values(self, path: str) -> tuple[np.ndarray, bool]:
        """The values (N, rows, columns) of a file, and whether they are segment numbers, as in a label map."""
        if path not in self._decoded:
            header, values = read_pixels(self._root / path, Drop.UNREADABLE_MASK)
            values = values[None] if values.ndim == 2 else values
            kind = header.get("SegmentationType")
            if values.ndim != 3 or kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
                raise FaultyImageError(Drop.UNREADABLE_MASK, "unknown segmentation type or shape")
            if kind == "FRACTIONAL":
                values = values >= np.float32(header.get("MaximumFractionalValue") or 255) / 2
            self._decoded[path] = values, kind == "LABELMAP"
            while len(self._decoded) > 1 and self._size() > _CACHED_VALUES:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(path)
        return self._decoded[path]

    def _size(self) -> int:
        return sum(values.size for values, _ in self._decoded.values())
