"""A folder of DICOM files as a source: images (CT, MR, PET, X-ray, ...) and the objects that are drawn on them.

The names of files and folders are not used. Images are displayed in radiological convention in their own plane; each
frame of a file with several is an image. Their modality and region come from the header, their objects from
segmentations (segments.py) and structure sets (structures.py, contours.py).

No name, number, date or other identifier of a patient is published: a case is named by a hash of the patient's id and
a study UID, which cannot be computed without the files. The labels of segments and of regions of interest are
published, so check them first.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...records import Axis, ImageInfo, ImageName, MaskedImage, Modality
from ...volumes import ct_window, suited_ct_window
from ..base import Candidate, LeftOut, checked, files_below
from ..faults import Drop, FaultyImageError
from ..label_names import region_of, region_of_body_part
from .contours import ContourMasks, lost_in_words, place_contours
from .display import grey_range, pixels_of
from .files import is_dicom, read_header, require_pydicom
from .images import DicomImage, read_images
from .segments import SEGMENTATION_CLASSES, Segmentation, SegmentMasks, matched, read_segmentation
from .structures import STRUCTURE_CLASS, read_structures

_DATASET = "dicom"
_ENDINGS = (".dcm", ".dicom", ".ima")  # files with these endings that are not DICOM count as unreadable
_MAX_PROBED_FILES = 10_000  # when looking for a first DICOM file


_Key = tuple[str, int]  # of an image: the UID of its file, and its frame


class _Drawn:
    """What is drawn on each image.

    masks: [file, frame, segment, label], or with the numbers of contours in place of the frame. faults: why an image is
    left out.
    """

    def __init__(self) -> None:
        self.masks: dict[_Key, list[list[Any]]] = defaultdict(list)
        self.faults: dict[_Key, tuple[Drop, str]] = {}

    def add(self, key: _Key, mask: list[Any], name: str) -> None:
        """Add a mask. name: of the object in messages, for one that has a fault in place of a label."""
        if isinstance(mask[-1], Drop):
            self.faults.setdefault(key, (mask[-1], name))
        self.masks[key].append(mask)


class DicomFolder:
    """All DICOM images below a folder that have a segmentation or contours.

    modality: of images whose header has none of the imaging modalities, such as secondary captures. Raises ValueError
    if pydicom is not installed.
    """

    kind = "DICOM"
    pixels_are_free = True

    def __init__(self, folder: Path, modality: Modality | None = None) -> None:
        require_pydicom(folder)
        self._root, self._modality = folder, modality
        self._masks, self._contours = SegmentMasks(folder), ContourMasks(folder, _DATASET)
        self._opened: tuple[str, tuple[DicomImage, ...]] = ("", ())

    @staticmethod
    def has_dicom(folder: Path) -> bool:
        """Whether there are DICOM files in a folder or below it."""
        found = zip(range(_MAX_PROBED_FILES), files_below(folder), strict=False)
        return any(is_dicom(Path(entry.path)) for _, entry in found)

    def listed(self) -> Iterator[Candidate | LeftOut]:
        images: dict[_Key, DicomImage] = {}
        segmentations, structures = [], []
        for path in sorted(Path(entry.path) for entry in files_below(self._root)):
            name = path.relative_to(self._root).as_posix()
            try:
                if not is_dicom(path):
                    if path.suffix.lower() in _ENDINGS:
                        raise FaultyImageError(Drop.UNREADABLE_IMAGE, "not a DICOM file")
                elif (kind := self._class_of(path)) in SEGMENTATION_CLASSES:
                    segmentations.append(read_segmentation(self._root, name, _DATASET))
                elif kind == STRUCTURE_CLASS:
                    structures.append(name)
                else:
                    found = {image.key: image for image in read_images(self._root, name, self._modality)}
                    if found.keys() & images.keys():
                        raise FaultyImageError(Drop.DUPLICATE_ID, "another file has the same instance UID")
                    images |= found
            except FaultyImageError as error:
                yield LeftOut(_printable(name), error.reason, error.detail)
        drawn = _Drawn()
        yield from self._add_segments(drawn, images, segmentations)
        yield from self._add_contours(drawn, images, structures)
        names = _HashedNames(images.values())
        for of_series in _by_series(images).values():
            yield from self._of_series(of_series, names, drawn)

    def read(self, candidate: Candidate) -> MaskedImage:
        where = candidate.where
        image = self._image(where["image"], where.get("frame"))
        grey = (where["range"][0], where["range"][1]) if where["range"] else None
        pixels = pixels_of(image, self._root / where["image"], grey)
        masks = []
        for path, numbers, segment, label in where["masks"]:
            mask = self._mask(image, path, numbers, segment)
            if mask.shape != image.shape:
                raise FaultyImageError(Drop.SHAPE_MISMATCH, f"mask {mask.shape}, image {image.shape}")
            if mask.any():  # an empty frame: the object is not in this image
                masks.append((label, image.plane.displayed(mask, is_mask=True) if image.plane else mask))
        return checked(candidate.info, pixels, masks, ())

    def _mask(self, image: DicomImage, path: str, numbers: int | list[int], segment: int) -> np.ndarray:
        """The mask of a segment in one frame of a file, or of contours of a structure set."""
        if isinstance(numbers, int):
            return self._masks.mask(path, numbers, segment)
        if image.plane is None:
            raise FaultyImageError(Drop.OFF_GRID, "the image has no position in the patient")
        return self._contours.mask(path, numbers, image.plane)

    def _image(self, path: str, frame: int | None) -> DicomImage:
        """An image of a file; the last headers are kept, as the frames of a file are read one after the other."""
        if self._opened[0] != path:
            self._opened = path, read_images(self._root, path, self._modality)
        found = next((image for image in self._opened[1] if image.frame == frame), None)
        if found is None:
            raise FaultyImageError(Drop.UNREADABLE_IMAGE, "the file has changed")
        return found

    def _class_of(self, path: Path) -> str:
        return str(read_header(path, Drop.UNREADABLE_IMAGE, ("SOPClassUID",)).get("SOPClassUID") or "")

    def _add_segments(
        self, drawn: _Drawn, images: dict[_Key, DicomImage], segmentations: Sequence[Segmentation]
    ) -> Iterator[LeftOut]:
        """Add the segments of each image; yield the segmentations without images."""
        series = _by_series(images)
        for segmentation in segmentations:
            known = _images_of(segmentation, images, series)
            if not known:
                detail = "a segmentation of images that are not in the folder"
                yield LeftOut(_printable(segmentation.path), Drop.MISSING_IMAGE, detail)
                continue
            try:
                frames = matched(segmentation, known)
            except FaultyImageError as error:
                drawn.faults |= {image.key: (error.reason, error.detail) for image in known}
                continue
            for key, of_image in frames.items():
                for path, number, segment, label in _masks_of(segmentation, of_image):
                    drawn.add(key, [path, number, segment, label], f"segment {segment}")

    def _add_contours(
        self, drawn: _Drawn, images: dict[_Key, DicomImage], structures: Sequence[str]
    ) -> Iterator[LeftOut]:
        """Add the contours of each image; yield what of the structure sets belongs to no image."""
        for path in structures:
            try:
                found = read_structures(self._root, path, _DATASET)
            except FaultyImageError as error:
                yield LeftOut(_printable(path), error.reason, error.detail)
                continue
            placed = place_contours(found, [*images.values()])
            for reason, detail in lost_in_words(found, placed):
                yield LeftOut(_printable(path), reason, detail)
            for key, fault in placed.faults.items():
                drawn.faults.setdefault(key, fault)
            for key, of_image in placed.contours.items():
                for roi, numbers in of_image.items():
                    label = found.labels.get(roi, Drop.UNNAMED_CLASS)
                    drawn.add(key, [path, numbers, roi, label], f"ROI {roi}")

    def _of_series(
        self,
        images: Sequence[DicomImage],
        names: _HashedNames,
        drawn: _Drawn,
    ) -> Iterator[Candidate | LeftOut]:
        masks, faults = drawn.masks, drawn.faults
        usable = [image for image in images if image.key in masks and image.key not in faults]
        labels = [label for image in usable for *_, label in masks[image.key]]
        region = region_of_body_part(images[0].body_part) or region_of(images[0].modality, labels)
        grey = self._grey(images, region, labels) if usable else None
        for image, axis, index in _in_order(images):
            info = names.info_of(image, region, axis, index)
            if image.key in faults or image.key not in masks:
                yield LeftOut(info.image_id, *faults.get(image.key, (Drop.NO_MASKS, "")))
                continue
            of_image = masks[image.key]
            shown = tuple(dict.fromkeys(label for *_, label in of_image))
            where = {"image": image.path, "range": grey and [*grey], "masks": of_image}
            yield Candidate(info, shown, where if image.frame is None else where | {"frame": image.frame})

    def _grey(
        self, images: Sequence[DicomImage], region: str, labels: Sequence[str]
    ) -> tuple[float, float] | None:
        """The values displayed as black and as white in a whole series, so that its slices are comparable."""
        if images[0].plane is None:
            return None
        if images[0].modality is Modality.CT:
            return ct_window(suited_ct_window(region, labels))
        return grey_range(self._root, [image for image, _, _ in _in_order(images)])


class _HashedNames:
    """Names of images and cases, made of hashes that cannot be reversed without the files.

    A hash of a patient's number alone could be reversed by trying all numbers, so a study UID, which is never
    published, is hashed with it. Patients without a number are identified by their studies.
    """

    def __init__(self, images: Iterable[DicomImage]) -> None:
        self._studies: dict[str, str] = {}
        for image in images:
            key = _patient_of(image)
            self._studies[key] = min(self._studies.get(key, image.study), image.study)

    def info_of(self, image: DicomImage, region: str, axis: Axis, index: int | None) -> ImageInfo:
        key = _patient_of(image)
        case = _hashed(key, self._studies[key])
        original = f"{case}_{_hashed(image.series)[:8]}"
        if index is None:
            original = f"{original}_{_hashed(image.uid)[:8]}"
            if image.frame is not None:
                original = f"{original}_f{image.frame:04d}"
        detail = "" if image.modality is Modality.X_RAY else "00"
        return ImageInfo(
            image_id=ImageName(image.modality.prefix(detail), _DATASET, original, axis, index).write(),
            modality=image.modality,
            modality_detail=detail,
            region=region,
            axis=axis,
            slice_index=index,
            dataset=_DATASET,
            case_id=f"{_DATASET}/{case}",
            synthetic=False,
        )


def _patient_of(image: DicomImage) -> str:
    return image.patient.strip() or image.study


def _hashed(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _by_series(images: dict[_Key, DicomImage]) -> dict[str, list[DicomImage]]:
    series: dict[str, list[DicomImage]] = defaultdict(list)
    for image in images.values():
        series[image.series].append(image)
    return series


def _images_of(
    segmentation: Segmentation, images: dict[_Key, DicomImage], series: dict[str, list[DicomImage]]
) -> list[DicomImage]:
    """The images of the series it refers to, itself or by single images; else those in its frame of reference."""
    series_of = {image.uid: image.series for image in images.values()}
    named = {series_of[uid] for frame in segmentation.frames for uid, _ in frame.sources if uid in series_of}
    named |= {uid for uid in segmentation.series if uid in series}
    if not named and segmentation.frame_of_reference and not segmentation.series:
        reference = segmentation.frame_of_reference
        named = {image.series for image in images.values() if image.frame_of_reference == reference}
    return [image for uid in sorted(named) for image in series[uid]]


def _masks_of(
    segmentation: Segmentation, frames: Sequence[Any]
) -> Iterator[tuple[str, int, int, str | Drop]]:
    """Yield (file, frame, segment, label or fault) of every segment that the frames can contain."""
    for frame in frames:
        for segment in segmentation.labels if frame.segment is None else (frame.segment,):
            yield segmentation.path, frame.number, segment, segmentation.labels[segment]


def _in_order(images: Sequence[DicomImage]) -> Iterator[tuple[DicomImage, Axis, int | None]]:
    """Yield slices by plane and position, numbered from the patient's left, back or feet; then all other images."""
    placed: dict[Axis, list[tuple[float, _Key, DicomImage]]] = defaultdict(list)
    for image in images:
        if image.plane is not None:
            axis, height = image.plane.axis_and_height()
            placed[axis].append((height, image.key, image))
    for axis in sorted(placed):
        for index, (_, _, image) in enumerate(sorted(placed[axis], key=lambda item: item[:2])):
            yield image, axis, index
    for image in sorted(images, key=lambda image: image.key):
        if image.plane is None:
            yield image, Axis.PLANAR, None


def _printable(name: str) -> str:
    """A file name that can be stored as UTF-8 text."""
    return name.encode("utf-8", "replace").decode()
