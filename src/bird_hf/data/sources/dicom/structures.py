"""DICOM structure sets (RTSTRUCT): the names of their regions of interest, and the contours as they are drawn.

Only closed contours enclose pixels; points and open lines are counted by kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..faults import Drop, FaultyImageError
from ..label_names import clean_label
from .files import quiet, read_header
from .segments import referenced_frames

STRUCTURE_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_MAX_FILE_BYTES = 2**27
_MAX_ITEMS = 2**18  # of all sequences of a file: a contour takes two
_MAX_CONTOUR_POINTS = 100_000
_MAX_POINTS = 5_000_000  # of all contours of a file
_ITEM = b"\xfe\xff\x00\xe0"  # the tag of an item of a sequence
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_OTHER = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")


@dataclass(frozen=True)
class Contour:
    """A closed contour. number: in the file, from 0. sources: UIDs of image files, each with a frame from 0 or None.

    points: (N, 3) LPS millimetres; None if they cannot be read or are fewer than three.
    """

    number: int
    roi: int
    sources: tuple[tuple[str, int | None], ...]
    points: np.ndarray | None


@dataclass(frozen=True)
class StructureSet:
    """labels: number of a region of interest -> clean name, or the reason why it has none.

    frames_of_reference: of each region of interest. others: (kind, region of interest) -> number of contours that are
    not closed. series: UIDs of the series it was drawn on.
    """

    path: str
    labels: dict[int, str | Drop]
    frames_of_reference: dict[int, str]
    contours: tuple[Contour, ...]
    others: Counter[tuple[str, int]]
    series: tuple[str, ...]

    def name_of(self, roi: int) -> str:
        """The name of a region of interest for messages."""
        label = self.labels.get(roi)
        return f"ROI {roi}" if label is None or isinstance(label, Drop) else label


@quiet()
def read_structures(root: Path, path: str, dataset: str) -> StructureSet:
    """Read a structure set. Raises FaultyImageError if it cannot be used."""
    _check_size(root / path)
    header = read_header(root / path, Drop.UNREADABLE_MASK)
    try:
        rois = header.StructureSetROISequence
        labels = {int(item.ROINumber): _label_of(item, dataset) for item in rois}
        references = {
            int(item.ROINumber): str(item.get("ReferencedFrameOfReferenceUID") or "") for item in rois
        }
        others: Counter[tuple[str, int]] = Counter()
        contours = []
        points_left = _MAX_POINTS
        for number, (roi, item) in enumerate(_contours_of(header)):
            kind = str(item.get("ContourGeometricType") or "")
            if kind not in _CLOSED:
                others[kind if kind in _OTHER else "unknown", roi] += 1
                continue
            points = _points_of(item)
            points_left -= 0 if points is None else len(points)
            if points_left < 0:
                raise FaultyImageError(Drop.UNREADABLE_MASK, f"more than {_MAX_POINTS:,} points")
            contours.append(Contour(number, roi, _sources_of(item), points))
        return StructureSet(path, labels, references, tuple(contours), others, tuple(_series_of(header)))
    except FaultyImageError:
        raise
    except Exception as error:  # elements are decoded when they are accessed
        raise FaultyImageError(Drop.UNREADABLE_MASK, type(error).__name__) from error


def _check_size(path: Path) -> None:
    """Raises FaultyImageError if a file is too large, or has too many items of sequences to be held as objects."""
    try:
        size = path.stat().st_size
        items = path.read_bytes().count(_ITEM) if size <= _MAX_FILE_BYTES else 0
    except OSError as error:
        raise FaultyImageError(Drop.UNREADABLE_MASK, type(error).__name__) from error
    if size > _MAX_FILE_BYTES:
        raise FaultyImageError(Drop.UNREADABLE_MASK, f"{size:,} bytes, the limit is {_MAX_FILE_BYTES:,}")
    if items > _MAX_ITEMS:
        raise FaultyImageError(Drop.UNREADABLE_MASK, f"{items:,} items, the limit is {_MAX_ITEMS:,}")


def _label_of(item: Any, dataset: str) -> str | Drop:
    try:
        return clean_label(dataset, str(item.get("ROIName") or ""))
    except FaultyImageError as error:
        return error.reason


def _contours_of(header: Any) -> Iterator[tuple[int, Any]]:
    """Yield (region of interest, contour) in the order of the file."""
    for item in header.get("ROIContourSequence") or ():
        for contour in item.get("ContourSequence") or ():
            yield int(item.ReferencedROINumber), contour


def _points_of(contour: Any) -> np.ndarray | None:
    """(N, 3) in millimetres; None if they cannot be read or are fewer than three."""
    # The stored text is split here: as pydicom's decimal objects a million numbers would take seconds.
    value = contour.get_item("ContourData").value if "ContourData" in contour else b""
    texts = value.strip(b" \0").split(b"\\") if isinstance(value, bytes) else value
    try:
        if len(texts) > 3 * _MAX_CONTOUR_POINTS:
            return None
        points = np.array([float(text) for text in texts]).reshape(-1, 3)
    except (TypeError, ValueError):
        return None
    return points if len(points) >= 3 and np.isfinite(points).all() else None


def _sources_of(contour: Any) -> tuple[tuple[str, int | None], ...]:
    return tuple(
        (str(image.ReferencedSOPInstanceUID), frame)
        for image in contour.get("ContourImageSequence") or ()
        for frame in referenced_frames(image)
    )


def _series_of(header: Any) -> Iterator[str]:
    for reference in header.get("ReferencedFrameOfReferenceSequence") or ():
        for study in reference.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                if uid := str(series.get("SeriesInstanceUID") or ""):
                    yield uid
