"""DICOM segmentations: the names of their segments, and the image that each frame belongs to.

Binary and label-map segmentations are used as they are; fractional ones are thresholded at one half.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..faults import Drop, FaultyImageError
from ..label_names import clean_label
from .files import check_header_size, quiet, read_header, read_pixels
from .functional_groups import FrameGroups, first, groups_of
from .images import DicomImage
from .planes import Plane

SEGMENTATION_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # binary and fractional
    "1.2.840.10008.5.1.4.1.1.66.7",  # label map
)
_SIZES = ("Rows", "Columns", "NumberOfFrames", "BitsAllocated")
_SAME_PLACE_MM = 1e-3
_CACHED_VALUES = 2**28  # of decoded segmentations


@dataclass(frozen=True)
class Frame:
    """One frame of a segmentation, and the image it was drawn on.

    number: from 0. segment: None in a label map, whose frames contain all segments. sources: UIDs of image files, each
    with a frame from 0, or None if the whole file is meant.
    """

    number: int
    segment: int | None
    sources: tuple[tuple[str, int | None], ...]
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


@quiet()
def read_segmentation(root: Path, path: str, dataset: str) -> Segmentation:
    """Read the header of a segmentation. Raises FaultyImageError if it cannot be used."""
    sizes = read_header(root / path, Drop.UNREADABLE_MASK, _SIZES)
    try:
        check_header_size(root / path, sizes, Drop.UNREADABLE_MASK)
        header = read_header(root / path, Drop.UNREADABLE_MASK)
        shape = int(header.Rows), int(header.Columns)
        labels = {
            int(item.SegmentNumber): _label_of(item, dataset)
            for item in header.SegmentSequence
            if int(item.SegmentNumber) > 0  # 0 is the background of a label map
        }
        is_map = header.SegmentationType == "LABELMAP"
        frames = tuple(
            _frame_of(number, groups, shape, is_map)
            for number, groups in enumerate(groups_of(header, int(header.get("NumberOfFrames") or 1)))
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


def _label_of(segment: Any, dataset: str) -> str | Drop:
    """The clean name of a segment: of its label, or else of its property type; with its side if the name has none.

    The reason instead, if neither text is a usable name.
    """
    kind = first(segment, "SegmentedPropertyTypeCodeSequence")
    side = first(kind, "SegmentedPropertyTypeModifierCodeSequence") or first(
        first(segment, "AnatomicRegionSequence"), "AnatomicRegionModifierSequence"
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


def _frame_of(number: int, groups: FrameGroups, shape: tuple[int, int], is_map: bool) -> Frame:
    derivations = (groups.own.get("DerivationImageSequence") or ()) if groups.own else ()
    sources = tuple(
        (str(source.ReferencedSOPInstanceUID), frame)
        for derivation in derivations
        for source in derivation.get("SourceImageSequence") or ()
        for frame in referenced_frames(source)
    )
    segment = None if is_map else int(groups.first("SegmentIdentificationSequence").ReferencedSegmentNumber)
    return Frame(number, segment, sources, groups.plane(shape))


def referenced_frames(item: Any) -> list[int | None]:
    """The frames (from 0) of the file that an item refers to; [None] if it means the whole file."""
    numbers = item.get("ReferencedFrameNumber")
    if numbers is None:
        return [None]
    return [int(number) - 1 for number in np.atleast_1d(numbers)]


class ImageIndex:
    """Finds images by the UIDs of their files and by frames.

    A file with one image is meant whether its frame is named or not.
    """

    def __init__(self, images: Iterable[DicomImage]) -> None:
        self._of_file: dict[str, list[DicomImage]] = defaultdict(list)
        for image in images:
            self._of_file[image.uid].append(image)

    def named(self, sources: Iterable[tuple[str, int | None]]) -> list[DicomImage]:
        """The images that are referred to, each once."""
        found: dict[tuple[str, int], DicomImage] = {}
        for uid, frame in sources:
            for image in self._of_file.get(uid, ()):
                if frame is None or image.frame is None or image.frame == frame:
                    found[image.key] = image
        return [*found.values()]


def matched(segmentation: Segmentation, images: Sequence[DicomImage]) -> dict[tuple[str, int], list[Frame]]:
    """Image key -> the frames that were drawn on it, by the images they refer to, else by their planes.

    images: the images of the segmented series. Raises FaultyImageError if a frame matches none of them.
    """
    index = ImageIndex(images)
    placed = [image for image in images if image.plane is not None]
    corners = np.array([image.plane.corners for image in placed if image.plane]).reshape(-1, 9)
    found: dict[tuple[str, int], list[Frame]] = {}
    for frame in segmentation.frames:
        named = index.named(frame.sources)
        if len(named) == 1:
            image: DicomImage | None = named[0]
        elif frame.plane is not None and placed:
            image = _nearest(frame.plane, placed, corners, {each.key for each in named})
        else:
            image = None
        if image is not None and _fits(frame, image, segmentation.shape):
            found.setdefault(image.key, []).append(frame)
        elif named or not frame.sources:  # otherwise it refers to an image that is not in the folder
            raise FaultyImageError(Drop.OFF_GRID, _off_grid(frame, image, segmentation.shape))
    return found


def _nearest(
    plane: Plane, placed: Sequence[DicomImage], corners: np.ndarray, named: set[tuple[str, int]]
) -> DicomImage:
    """The image nearest to a plane, of frames of one file those that are named if there are any.

    Raises FaultyImageError if several frames of a file are in the same place, as the phases of a heart are.
    """
    apart = np.abs(corners - plane.corners).max(axis=1)
    if named and any(image.frame is not None and image.key in named for image in placed):
        apart = np.where([image.key in named for image in placed], apart, np.inf)
    nearest = int(apart.argmin())
    tied = np.flatnonzero(apart <= apart[nearest] + _SAME_PLACE_MM)
    if len(tied) > 1 and any(placed[int(i)].frame is not None for i in tied):
        raise FaultyImageError(
            Drop.OFF_GRID,
            f"{len(tied)} frames are in the place of a segmentation frame that names none of them",
        )
    return placed[nearest]


def _off_grid(frame: Frame, image: DicomImage | None, shape: tuple[int, int]) -> str:
    """Why a frame of a segmentation does not fit an image."""
    if image is None:
        return "a frame names no single image and has no place of its own"
    if shape != image.shape:
        return f"segmentation {shape[1]} x {shape[0]} pixels, image {image.shape[1]} x {image.shape[0]}"
    assert frame.plane is not None and image.plane is not None
    apart = float(np.abs(frame.plane.corners - image.plane.corners).max())
    return f"a frame is {apart:.2f} mm from its image, half a pixel is {image.plane.half_pixel:.2f} mm"


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
