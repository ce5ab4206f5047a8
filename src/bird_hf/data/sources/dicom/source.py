"""A folder of DICOM files as a source: images (CT, MR, PET, X-ray, ...) and the segmentations that refer to them.

The names of files and folders are not used. Images are displayed in radiological convention in their own plane; their
modality and region come from the header, their objects from the segmentations (segments.py).

No name, number, date or other identifier of a patient is published: a case is named by a hash of the patient's id and
a study UID, which cannot be computed without the files. The labels of segments are published, so check them first.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...records import Axis, ImageInfo, ImageName, MaskedImage, Modality
from ...volumes import ct_window
from ..base import Candidate, LeftOut, checked, files_below
from ..faults import Drop, FaultyImageError
from ..label_names import region_of, region_of_body_part
from .files import is_dicom, read_header
from .images import Picture, grey_range, pixels_of, read_picture
from .segments import SEGMENTATION_CLASSES, Segmentation, SegmentMasks, matched, read_segmentation

_DATASET = "dicom"
_ENDINGS = (".dcm", ".dicom", ".ima")  # files with these endings that are not DICOM count as unreadable
_MAX_PROBED_FILES = 10_000  # when looking for a first DICOM file


class DicomFolder:
    """All DICOM images below a folder that have a segmentation."""

    kind = "DICOM"
    pixels_are_free = True

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._masks = SegmentMasks(folder)

    @staticmethod
    def has_dicom(folder: Path) -> bool:
        """Whether there are DICOM files in a folder or below it."""
        found = zip(range(_MAX_PROBED_FILES), files_below(folder), strict=False)
        return any(is_dicom(Path(entry.path)) for _, entry in found)

    def listed(self) -> Iterator[Candidate | LeftOut]:
        pictures: dict[str, Picture] = {}
        segmentations = []
        for path in sorted(Path(entry.path) for entry in files_below(self._root)):
            name = path.relative_to(self._root).as_posix()
            try:
                if not is_dicom(path):
                    if path.suffix.lower() in _ENDINGS:
                        raise FaultyImageError(Drop.UNREADABLE_IMAGE)
                elif self._class_of(path) in SEGMENTATION_CLASSES:
                    segmentations.append(read_segmentation(self._root, name, _DATASET))
                elif picture := read_picture(self._root, name):
                    if picture.uid in pictures:
                        raise FaultyImageError(Drop.DUPLICATE_ID)
                    pictures[picture.uid] = picture
            except FaultyImageError as error:
                yield LeftOut(_printable(name), error.reason)
        yield from self._candidates(pictures, segmentations)

    def read(self, candidate: Candidate) -> MaskedImage:
        where = candidate.where
        picture = read_picture(self._root, where["image"])
        if picture is None:
            raise FaultyImageError(Drop.UNREADABLE_IMAGE)
        grey = (where["range"][0], where["range"][1]) if where["range"] else None
        pixels = pixels_of(picture, self._root / where["image"], grey)
        masks = []
        for path, frame, segment, label in where["masks"]:
            mask = self._masks.mask(path, frame, segment)
            if mask.shape != picture.shape:
                raise FaultyImageError(Drop.SHAPE_MISMATCH, f"mask {mask.shape}, image {picture.shape}")
            if mask.any():  # an empty frame: the object is not in this image
                masks.append((label, picture.plane.displayed(mask, is_mask=True) if picture.plane else mask))
        return checked(candidate.info, pixels, masks, ())

    def _class_of(self, path: Path) -> str:
        return str(read_header(path, Drop.UNREADABLE_IMAGE, ("SOPClassUID",)).get("SOPClassUID") or "")

    def _candidates(
        self, pictures: dict[str, Picture], segmentations: Sequence[Segmentation]
    ) -> Iterator[Candidate | LeftOut]:
        series: dict[str, list[Picture]] = defaultdict(list)
        for picture in pictures.values():
            series[picture.series].append(picture)
        masks: dict[str, list[list[Any]]] = defaultdict(list)
        faults: dict[str, Drop] = {}
        for segmentation in segmentations:
            known = _pictures_of(segmentation, pictures, series)
            if not known:
                yield LeftOut(_printable(segmentation.path), Drop.MISSING_IMAGE)
                continue
            try:
                frames = matched(segmentation, known)
            except FaultyImageError as error:
                faults |= {picture.uid: error.reason for picture in known}
                continue
            for uid, of_image in frames.items():
                for path, number, segment, label in _masks_of(segmentation, of_image):
                    if isinstance(label, Drop):
                        faults.setdefault(uid, label)
                    masks[uid].append([path, number, segment, label])
        names = _HashedNames(pictures.values())
        for of_series in series.values():
            yield from self._of_series(of_series, names, masks, faults)

    def _of_series(
        self,
        pictures: Sequence[Picture],
        names: _HashedNames,
        masks: dict[str, list[list[Any]]],
        faults: dict[str, Drop],
    ) -> Iterator[Candidate | LeftOut]:
        usable = [picture for picture in pictures if picture.uid in masks and picture.uid not in faults]
        labels = [label for picture in usable for *_, label in masks[picture.uid]]
        region = region_of_body_part(pictures[0].body_part) or region_of(pictures[0].modality, labels)
        grey = self._grey(pictures, region, labels) if usable else None
        for picture, axis, index in _in_order(pictures):
            info = names.info_of(picture, region, axis, index)
            if picture.uid in faults or picture.uid not in masks:
                yield LeftOut(info.image_id, faults.get(picture.uid, Drop.NO_MASKS))
                continue
            of_image = masks[picture.uid]
            shown = tuple(dict.fromkeys(label for *_, label in of_image))
            yield Candidate(
                info, shown, {"image": picture.path, "range": grey and [*grey], "masks": of_image}
            )

    def _grey(
        self, pictures: Sequence[Picture], region: str, labels: Sequence[str]
    ) -> tuple[float, float] | None:
        """The values displayed as black and as white in a whole series, so that its slices are comparable."""
        if pictures[0].plane is None:
            return None
        if pictures[0].modality is Modality.CT:
            return ct_window(_window_of(region, labels))
        paths = [self._root / picture.path for picture, _, _ in _in_order(pictures)]
        return grey_range(paths)


class _HashedNames:
    """Names of images and cases, made of hashes that cannot be reversed without the files.

    A hash of a patient's number alone could be reversed by trying all numbers, so a study UID, which is never
    published, is hashed with it. Patients without a number are identified by their studies.
    """

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self._studies: dict[str, str] = {}
        for picture in pictures:
            key = _patient_of(picture)
            self._studies[key] = min(self._studies.get(key, picture.study), picture.study)

    def info_of(self, picture: Picture, region: str, axis: Axis, index: int | None) -> ImageInfo:
        key = _patient_of(picture)
        case = _hashed(key, self._studies[key])
        original = f"{case}_{_hashed(picture.series)[:8]}"
        if index is None:
            original = f"{original}_{_hashed(picture.uid)[:8]}"
        detail = "" if picture.modality is Modality.X_RAY else "00"
        return ImageInfo(
            image_id=ImageName(picture.modality.prefix(detail), _DATASET, original, axis, index).write(),
            modality=picture.modality,
            modality_detail=detail,
            region=region,
            axis=axis,
            slice_index=index,
            dataset=_DATASET,
            case_id=f"{_DATASET}/{case}",
            synthetic=False,
        )


def _patient_of(picture: Picture) -> str:
    return picture.patient.strip() or picture.study


def _hashed(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _pictures_of(
    segmentation: Segmentation, pictures: dict[str, Picture], series: dict[str, list[Picture]]
) -> list[Picture]:
    """The images of the series it refers to, itself or by single images; else those in its frame of reference."""
    named = {
        pictures[uid].series for frame in segmentation.frames for uid in frame.sources if uid in pictures
    }
    named |= {uid for uid in segmentation.series if uid in series}
    if not named and segmentation.frame_of_reference and not segmentation.series:
        reference = segmentation.frame_of_reference
        named = {picture.series for picture in pictures.values() if picture.frame_of_reference == reference}
    return [picture for uid in sorted(named) for picture in series[uid]]


def _masks_of(
    segmentation: Segmentation, frames: Sequence[Any]
) -> Iterator[tuple[str, int, int, str | Drop]]:
    """Yield (file, frame, segment, label or fault) of every segment that the frames can contain."""
    for frame in frames:
        for segment in segmentation.labels if frame.segment is None else (frame.segment,):
            yield segmentation.path, frame.number, segment, segmentation.labels[segment]


def _in_order(pictures: Sequence[Picture]) -> Iterator[tuple[Picture, Axis, int | None]]:
    """Yield slices by plane and position, numbered from the patient's left, back or feet; then all other images."""
    placed: dict[Axis, list[tuple[float, str, Picture]]] = defaultdict(list)
    for picture in pictures:
        if picture.plane is not None:
            axis, height = picture.plane.axis_and_height()
            placed[axis].append((height, picture.uid, picture))
    for axis in sorted(placed):
        for index, (_, _, picture) in enumerate(sorted(placed[axis], key=lambda item: item[:2])):
            yield picture, axis, index
    for picture in sorted(pictures, key=lambda picture: picture.uid):
        if picture.plane is None:
            yield picture, Axis.PLANAR, None


def _window_of(region: str, labels: Sequence[str]) -> str:
    """The CT window that suits the region and the labels."""
    if region in ("brain", "spine"):
        return {"brain": "brain", "spine": "bone"}[region]
    words = {word for label in labels for word in label.split()}
    return "lung" if words & {"lung", "lungs", "nodule", "lobe", "airway", "trachea"} else "soft tissue"


def _printable(name: str) -> str:
    """A file name that can be stored as UTF-8 text."""
    return name.encode("utf-8", "replace").decode()
