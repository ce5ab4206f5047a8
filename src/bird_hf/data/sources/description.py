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
  channel: 0                # of volumes with a fourth axis
  trust_shape: true         # of volumes: a label map of the image's shape is on its grid, whatever its header says
  orientation: stored       # marks of photographs with an EXIF orientation are on the stored pixels; or: upright
  ignore: [255]             # values of label maps that are nothing; nothing is absent in an image that has one
  faulty: drop_object       # a faulty object is dropped alone; by default: drop_image
  columns: {image: file, x1: left}    # of a CSV file of boxes: its own names for the columns
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ..frames import Orientation
from ..records import Axis, ImageInfo, ImageName, Modality
from ..volumes import CT_WINDOWS, VOXEL_AXIS, CaseInfo
from .label_names import clean_label, patient_of, region_of

DESCRIPTION = "labels.yaml"
MAX_LABEL_VALUE = 2**16 - 1  # values index an array of counts
_AS_THEY_ARE = ("exhaustive", "patient", "window", "trust_shape", "channel")
_TEXTS = ("dataset", "region", "detail", "annotations")
_Choice = TypeVar("_Choice", bound=StrEnum)
_PLAIN_NAME = re.compile(r"[^\W_][\w. +-]{0,60}")


class Faulty(StrEnum):
    """What is dropped for a faulty object: its image, or the object alone; then its name is not absent there either."""

    DROP_IMAGE = "drop_image"
    DROP_OBJECT = "drop_object"


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
    orientation: Orientation | None = None
    ignore: tuple[int, ...] = ()
    channel: int | None = None
    faulty: Faulty = Faulty.DROP_IMAGE
    trust_shape: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)

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


def read_description(path: Path) -> Description:
    """Read and check `labels.yaml`. Raises ValueError with the file, the field and its allowed values."""
    entries = _read_entries(path)
    if not {"dataset", "modality", "region"} <= {*entries}:
        raise ValueError(_fields_of(path))
    return described(path, entries)


def added_entries(folder: Path) -> dict[str, Any]:
    """The fields of a `labels.yaml` beside a dataset that describes itself; all are optional, as is the file.

    Raises ValueError as `read_description` does.
    """
    path = folder / DESCRIPTION
    return _read_entries(path) if path.is_file() else {}


def described(path: Path, entries: Mapping[str, Any]) -> Description:
    """The description with these fields; without `region`, it is inferred from the modality and the labels.

    Raises ValueError with the path, the field and its allowed values.
    """
    try:
        if "region" not in entries:
            names = [clean_label(str(entries["dataset"]), str(name)) for name in entries["labels"].values()]
            entries = {**entries, "region": region_of(Modality(entries["modality"]), names)}
        return _description(entries)
    except (ValueError, TypeError, re.error) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_entries(path: Path) -> dict[str, Any]:
    """The fields of `labels.yaml`, unchecked. Raises ValueError if one of them has an unknown name."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(entries, dict) or not {*entries} <= {field.name for field in fields(Description)}:
        raise ValueError(_fields_of(path))
    return entries


def _fields_of(path: Path) -> str:
    known = ", ".join(sorted(field.name for field in fields(Description)))
    return f"{path} must have dataset, modality and region; its fields can be {known}"


def _description(entries: Mapping[str, Any]) -> Description:
    """The description in checked fields. Raises ValueError, TypeError or re.error if a field is invalid."""
    for name in ("dataset", "region"):
        if not _PLAIN_NAME.fullmatch(str(entries[name])) or "--" in str(entries[name]):
            raise ValueError(f"{name} {entries[name]!r} must be a plain name of up to 60 letters")
    if not re.fullmatch("[A-Za-z0-9]*", str(entries.get("detail", ""))):
        raise ValueError(f"detail {entries['detail']!r} must be letters and digits, such as t1c")
    for name in ("exhaustive", "trust_shape"):
        if not isinstance(entries.get(name, False), bool):
            raise ValueError(f"{name} {entries[name]!r} must be true or false")
    if entries.get("window") not in (None, *CT_WINDOWS):
        raise ValueError(f"window must be one of {', '.join(CT_WINDOWS)}")
    channel = entries.get("channel")
    if channel is not None and (type(channel) is not int or channel < 0):
        raise ValueError(f"channel {channel!r} must be a whole number, 0 for the first")
    re.compile(entries.get("patient") or "()")
    given = {name: entries[name] for name in _AS_THEY_ARE if name in entries}
    given |= {name: str(entries[name]) for name in _TEXTS if name in entries}
    labels, lesions, ignore = _label_fields(entries)
    return Description(
        **given,
        modality=Modality(entries["modality"]),
        labels=labels,
        lesions=lesions,
        ignore=ignore,
        axes=_axes(entries),
        orientation=_choice(Orientation, entries, "orientation", None),
        faulty=_choice(Faulty, entries, "faulty", Faulty.DROP_IMAGE),
        columns={str(name): str(column) for name, column in dict(entries.get("columns", {})).items()},
    )


def _label_fields(entries: Mapping[str, Any]) -> tuple[dict[int, str], tuple[str, ...], tuple[int, ...]]:
    """The fields labels, lesions and ignore."""
    dataset = str(entries["dataset"])
    named = dict(entries.get("labels", {}))
    labels = {int(value): clean_label(dataset, str(name)) for value, name in named.items()}
    if len({*labels.values()}) < len(labels) or any(not 0 < value <= MAX_LABEL_VALUE for value in labels):
        raise ValueError(f"labels must be different names with values from 1 to {MAX_LABEL_VALUE:,}")
    lesions = tuple(clean_label(dataset, str(name)) for name in entries.get("lesions", ()))
    if not {*lesions} <= {*labels.values()}:
        raise ValueError("lesions must be among the labels")
    ignore = tuple(int(value) for value in entries.get("ignore", ()))
    if 0 in ignore or {*ignore} & {*labels}:
        raise ValueError(
            "ignore must be values other than 0, the background, and other than those of the labels"
        )
    return labels, lesions, ignore


def _axes(entries: Mapping[str, Any]) -> tuple[Axis, ...]:
    axes = tuple(Axis(axis) for axis in entries.get("axes", [Axis.AXIAL]))
    if not {*axes} <= {*VOXEL_AXIS}:
        raise ValueError(f"axes must be of {', '.join(VOXEL_AXIS)}")
    return axes


def _choice(kind: type[_Choice], entries: Mapping[str, Any], name: str, default: Any) -> Any:
    """A field with few values. Raises ValueError, with the values, if it has another one."""
    if name not in entries:
        return default
    if entries[name] not in [*kind]:
        raise ValueError(f"{name} {entries[name]!r} must be {' or '.join(kind)}")
    return kind(entries[name])
