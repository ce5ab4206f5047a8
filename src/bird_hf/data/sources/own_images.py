"""Your own images as a source: a folder with `images/`, masks, and `labels.yaml`, which describes them.

labels.yaml                 images/p01_a.png        masks/p01_a.png         label maps: a pixel's value is its class
  dataset: my_hospital      images/p01.nii.gz       masks/p01.nii.gz        the same for volumes (NIfTI, NRRD)
  modality: ct              images/p01_a.jpg        instances.json          COCO: polygons or run lengths
  region: chest             images/p01/*.dcm        masks/p01.nii.gz        the same for a folder with a DICOM series
  labels: {1: left lung, 2: right lung, 3: nodule}
  exhaustive: true          # this and all that follows is optional. Every visible object of these labels has a mask
  lesions: [nodule]         # each connected piece is an object of its own
  patient: "^(p[0-9]+)"     # its first group is the patient; without it, each image or volume is a case
  annotations: instances.json
  detail: t1c
  window: lung              # of CT volumes
  axes: [axial, coronal]    # of volumes
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..records import Axis, ImageInfo, ImageName, MaskedImage, Modality
from ..volumes import (
    CT_WINDOWS,
    VOXEL_AXIS,
    CaseInfo,
    Volume,
    display_range,
    label_slice_at,
    objects_of,
    slice_at,
    to_uint8,
)
from .archives import FolderFiles, Place
from .base import Candidate, LeftOut, Source, checked
from .coco import CocoFile
from .faults import Drop, FaultyImageError, read_pixels, read_values
from .label_names import clean_label, patient_of
from .volume_files import read_volume

DESCRIPTION = "labels.yaml"
_VOLUMES = (".nii.gz", ".nii", ".nrrd")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")
_MAX_VALUES = 2**16
_TEXTS = ("dataset", "region", "detail", "annotations")
_PLAIN_NAME = re.compile(r"[^\W_][\w. +-]{0,60}")


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `labels.yaml`; the module's docstring explains the fields."""

    dataset: str
    modality: Modality
    region: str
    labels: Mapping[int, str]
    exhaustive: bool = False
    lesions: tuple[str, ...] = ()
    patient: str | None = None
    annotations: str | None = None
    detail: str = "00"
    window: str | None = None
    axes: tuple[Axis, ...] = (Axis.AXIAL,)

    def case_of(self, original: str) -> CaseInfo:
        """What is known about the image or volume of that name."""
        return CaseInfo(
            dataset=self.dataset,
            original=original,
            labels=self.labels,
            modality=self.modality,
            modality_detail=self.detail,
            region=self.region,
            axes=self.axes,
            exhaustive=self.exhaustive,
            window=self.window,
            lesions=self.lesions,
        )

    def case_id_of(self, original: str) -> str:
        """The unit of a split that an image or a volume belongs to."""
        if self.patient is None:
            return f"{self.dataset}/{patient_of(self.dataset, original)}"
        found = re.search(self.patient, original)
        patient = found.group(1) if found and found.re.groups else None
        return f"{self.dataset}/{patient or original}"

    def image_info(self, original: str) -> ImageInfo:
        """The description of an image that is not a slice."""
        name = ImageName(self.modality.prefix(self.detail), self.dataset, original)
        return ImageInfo(
            image_id=name.write(),
            modality=self.modality,
            modality_detail=self.detail,
            region=self.region,
            axis=Axis.PLANAR,
            slice_index=None,
            dataset=self.dataset,
            case_id=self.case_id_of(original),
            synthetic=name.synthetic,
        )


def open_described(folder: Path) -> Source:
    """The source in a folder with `labels.yaml`. Raises ValueError, in one line, if something is missing."""
    about = read_description(folder / DESCRIPTION)
    if not (folder / "images").is_dir():
        raise ValueError(f"{folder} has no folder images; put the images there")
    if about.annotations is not None:
        return CocoImages(folder, about)
    if not (folder / "masks").is_dir():
        raise ValueError(f"{folder} has no folder masks, and {DESCRIPTION} no `annotations`; add one of them")
    images = [*(folder / "images").iterdir()]
    if any(path.name.lower().endswith(_VOLUMES) or path.is_dir() for path in images):
        return LabelledVolumes(folder, about)
    return LabelledImages(folder, about)


def read_description(path: Path) -> Description:
    """Read and check `labels.yaml`. Raises ValueError with the file, the field and its allowed values."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from error
    known = {field.name for field in fields(Description)}
    if not isinstance(entries, dict) or not {"dataset", "modality", "region"} <= {*entries} <= known:
        raise ValueError(
            f"{path} must have dataset, modality and region; its fields can be {', '.join(sorted(known))}"
        )
    try:
        return _description(entries)
    except (ValueError, TypeError, re.error) as error:
        raise ValueError(f"{path}: {error}") from error


def _description(entries: Mapping[str, Any]) -> Description:
    """The description in checked fields. Raises ValueError, TypeError or re.error if a field is invalid."""
    for name in ("dataset", "region"):
        if not _PLAIN_NAME.fullmatch(str(entries[name])) or "--" in str(entries[name]):
            raise ValueError(f"{name} {entries[name]!r} must be a plain name of up to 60 letters")
    if not re.fullmatch("[A-Za-z0-9]*", str(entries.get("detail", ""))):
        raise ValueError(f"detail {entries['detail']!r} must be letters and digits, such as t1c")
    if not isinstance(entries.get("exhaustive", False), bool):
        raise ValueError(f"exhaustive {entries['exhaustive']!r} must be true or false")
    dataset = str(entries["dataset"])
    named = dict(entries.get("labels", {}))
    labels = {int(value): clean_label(dataset, str(name)) for value, name in named.items()}
    if len({*labels.values()}) < len(labels) or any(not 0 < value < _MAX_VALUES for value in labels):
        raise ValueError(f"labels must be different names with values from 1 to {_MAX_VALUES - 1:,}")
    lesions = tuple(clean_label(dataset, str(name)) for name in entries.get("lesions", ()))
    if not {*lesions} <= {*labels.values()}:
        raise ValueError("lesions must be among the labels")
    if entries.get("window") not in (None, *CT_WINDOWS):
        raise ValueError(f"window must be one of {', '.join(CT_WINDOWS)}")
    axes = tuple(Axis(axis) for axis in entries.get("axes", [Axis.AXIAL]))
    if not {*axes} <= {*VOXEL_AXIS}:
        raise ValueError(f"axes must be of {', '.join(VOXEL_AXIS)}")
    re.compile(entries.get("patient") or "()")
    modality = Modality(entries["modality"])
    given = {name: entries[name] for name in ("exhaustive", "patient", "window") if name in entries}
    given |= {name: str(entries[name]) for name in _TEXTS if name in entries}
    return Description(**given, modality=modality, labels=labels, lesions=lesions, axes=axes)


class LabelledImages:
    """Images with one label map each: `images/NAME.*` and `masks/NAME.png`."""

    kind = "images and label maps"
    pixels_are_free = True

    def __init__(self, folder: Path, about: Description) -> None:
        self._about = about
        self._files = FolderFiles(folder, ("images", "masks"))

    def listed(self) -> Iterator[Candidate | LeftOut]:
        for stem, image, mask in paired(self._files, _IMAGES):
            if mask is None:
                yield LeftOut(stem, Drop.NO_MASKS)
            else:
                yield Candidate(self._about.image_info(stem), (), [image, mask])

    def read(self, candidate: Candidate) -> MaskedImage:
        image, mask = candidate.where
        pixels = read_pixels(_read_bytes(self._files, image, Drop.UNREADABLE_IMAGE))
        values = read_values(_read_bytes(self._files, mask, Drop.UNREADABLE_MASK))
        if values.shape != pixels.shape[:2]:
            raise FaultyImageError(Drop.SHAPE_MISMATCH, f"mask {values.shape}, image {pixels.shape[:2]}")
        _check_label_map(values)
        case = self._about.case_of(candidate.info.image_id)
        return checked(candidate.info, pixels, *objects_of(case, values, candidate.info.axis, min_area=0))


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
        for stem, image, mask in paired(files, _VOLUMES, series):
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
            _check_label_map(labels.voxels)
            self._loaded = (places, image, labels)
            self._range = display_range(self._about.case_of(""), image)
        return self._loaded[1], self._loaded[2]


class CocoImages:
    """Images with the objects of a COCO instance file."""

    kind = "COCO instances"
    pixels_are_free = True

    def __init__(self, folder: Path, about: Description) -> None:
        self._about = about
        self._files = FolderFiles(folder, ("images",))
        self._coco = CocoFile.read(folder, about.annotations or "", about.dataset)

    def listed(self) -> Iterator[Candidate | LeftOut]:
        places = dict(self._files.files())
        for image_id, name in self._coco.images.items():
            place = places.get(f"images/{name}")  # a name in the COCO file is never opened as a path
            labels = self._coco.labels_of(image_id)
            if place is None:
                yield LeftOut(name, Drop.MISSING_IMAGE)
            elif not labels and not self._about.exhaustive:
                yield LeftOut(name, Drop.NO_MASKS)
            else:
                yield Candidate(self._about.image_info(Path(name).stem), labels, [place, image_id])

    def read(self, candidate: Candidate) -> MaskedImage:
        place, image_id = candidate.where
        pixels = read_pixels(_read_bytes(self._files, place, Drop.UNREADABLE_IMAGE))
        masks = self._coco.masks_of(image_id, pixels.shape[:2])
        shown = {label for label, _ in masks}
        known = self._coco.labels if self._about.exhaustive else ()
        return checked(candidate.info, pixels, masks, [label for label in known if label not in shown])


def paired(
    files: FolderFiles, endings: tuple[str, ...], series: Sequence[str] = ()
) -> Iterator[tuple[str, Place, Place | None]]:
    """Yield (name without ending, image, mask or None), sorted by name; a mask has the name of its image.

    series: names of folders that count as images, for DICOM series.
    """
    images: dict[str, Place] = {name: ["images", name] for name in series}
    masks: dict[str, Place] = {}
    for name, place in sorted(files.files()):
        ending = next((ending for ending in endings if name.lower().endswith(ending)), None)
        if ending is not None:
            (images if place[0] == "images" else masks)[place[1][: -len(ending)]] = place
    for stem, place in images.items():
        yield stem, place, masks.get(stem)


def _check_label_map(values: np.ndarray) -> None:
    """Raises FaultyImageError unless all values are whole numbers below the limit, as they index an array of counts."""
    if values.min() < 0 or values.max() >= _MAX_VALUES or (values != np.rint(values)).any():
        raise FaultyImageError(Drop.UNREADABLE_MASK, f"values must be whole numbers below {_MAX_VALUES:,}")


def _read_bytes(files: FolderFiles, place: Place, reason: Drop) -> bytes:
    try:
        return files.read(place)
    except ValueError as error:
        raise FaultyImageError(reason, str(error)) from error
