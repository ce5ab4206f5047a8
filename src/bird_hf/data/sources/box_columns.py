"""The columns of a CSV file of boxes: which of them hold the image, the label, the corners and the patient.

Own files have the columns image, label and x1, y1, x2, y2 or x, y, w, h, or `columns` of labels.yaml says what these
are called. The files of VinDr-CXR, MS-CXR and the RSNA pneumonia challenge are recognised by their headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_CORNERS = ("x1", "y1", "x2", "y2")
_SIZES = ("x", "y", "w", "h")
_IMAGE_SIZE = ("image_width", "image_height")
_OPTIONAL = (*_IMAGE_SIZE, "patient")
_NAMES = ("image", "label", *_CORNERS, *_SIZES, *_OPTIONAL)
_PATIENT_NAMES = ("patient", "patient_id", "patientid", "subject_id", "study_id")  # the widest unit first
_MOST_NAMED = 20  # columns in a message


@dataclass(frozen=True)
class KnownTable:
    """A published file of boxes. columns: our name -> its own. labels: of a column of numbers."""

    name: str
    columns: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    patient: re.Pattern[str] | None = None  # its first group is the patient, in the column `patient`


KNOWN_TABLES = (
    KnownTable(
        "VinDr-CXR",
        {
            "image": "image_id",
            "label": "class_name",
            "x1": "x_min",
            "y1": "y_min",
            "x2": "x_max",
            "y2": "y_max",
        },
    ),
    KnownTable(
        "MS-CXR",
        {
            "image": "dicom_id",
            "label": "category_name",
            **{name: name for name in (*_SIZES, *_IMAGE_SIZE)},
            "patient": "path",
        },
        patient=re.compile(r"(?:^|/)p\d{2}/(p\d{8})/"),  # files/p10/p10000032/s50414267/NAME.jpg
    ),
    KnownTable(
        "RSNA pneumonia",
        {
            "image": "patientId",
            "label": "Target",
            "x": "x",
            "y": "y",
            "w": "width",
            "h": "height",
            "patient": "patientId",
        },
        labels={"1": "pneumonia"},
    ),
)


@dataclass(frozen=True)
class BoxColumns:
    """The numbers of columns.

    corners: x1, y1, x2, y2, or x, y, width, height if `are_sizes`. published: the file, if it is a known one.
    """

    image: int
    label: int
    corners: tuple[int, int, int, int]
    are_sizes: bool
    image_wh: tuple[int, int] | None
    patient: int | None
    published: KnownTable | None

    @classmethod
    def of_header(cls, header: Sequence[str], columns: Mapping[str, str]) -> BoxColumns:
        """The columns of a file. columns: our name -> the file's. Raises ValueError, in one line."""
        if unknown := [name for name in columns if name not in _NAMES]:
            raise ValueError(f"columns names {unknown[0]!r}, which can be {', '.join(_NAMES)}")
        if missing := [column for column in columns.values() if column not in header]:
            raise ValueError(f"there is no column {missing[0]!r} of `columns`; it has {_listed(header)}")
        if len({*header}) < len(header):
            raise ValueError(f"two columns have one name; it has {_listed(header)}")
        known = None
        if not columns:
            known = next((each for each in KNOWN_TABLES if {*each.columns.values()} <= {*header}), None)
        given = {**(known.columns if known else columns)}
        names = {name: name for name in _NAMES if name in header and known is None} | given
        are_sizes = cls._are_sizes(names, given, header)
        if are_sizes is None:
            raise ValueError(
                "its columns must be image, label and x1, y1, x2, y2 or x, y, w, h, or `columns` of labels.yaml "
                f"says which they are; it has {_listed(header)}"
            )
        sized = [*_IMAGE_SIZE] if {*_IMAGE_SIZE} <= {*names} else []
        if not sized and not are_sizes and {"width", "height"} <= {*header}:
            names |= {"image_width": "width", "image_height": "height"}
            sized = [*_IMAGE_SIZE]
        numbers = {name: list(header).index(column) for name, column in names.items()}
        corners = _SIZES if are_sizes else _CORNERS
        return cls(
            image=numbers["image"],
            label=numbers["label"],
            corners=(
                numbers[corners[0]],
                numbers[corners[1]],
                numbers[corners[2]],
                numbers[corners[3]],
            ),
            are_sizes=are_sizes,
            image_wh=(numbers[sized[0]], numbers[sized[1]]) if sized else None,
            patient=numbers.get("patient", _patient_column(header)),
            published=known,
        )

    @property
    def width(self) -> int:
        """The number of fields that a row needs."""
        optional = [number for number in (*(self.image_wh or ()), self.patient) if number is not None]
        return max(self.image, self.label, *self.corners, *optional) + 1

    @staticmethod
    def _are_sizes(names: Mapping[str, str], given: Mapping[str, str], header: Sequence[str]) -> bool | None:
        """Whether boxes are x, y, width, height; None if columns are missing. Raises ValueError if both forms are."""
        if not {"image", "label"} <= {*names}:
            return None
        forms = [{*form} <= {*names} for form in (_CORNERS, _SIZES)]
        if all(forms):
            named = [bool({*form} & {*given}) for form in (_CORNERS, _SIZES)]
            if named[0] == named[1]:
                raise ValueError(
                    "it has x1, y1, x2, y2 and x, y, w, h; name the columns of one of them in `columns`"
                )
            return named[1]
        return forms[1] if any(forms) else None


def _patient_column(header: Sequence[str]) -> int | None:
    lower = [name.lower() for name in header]
    return next((lower.index(name) for name in _PATIENT_NAMES if name in lower), None)


def _listed(header: Sequence[str]) -> str:
    names = ", ".join(repr(name[:40]) for name in header[:_MOST_NAMED])
    return f"{names}, ..." if len(header) > _MOST_NAMED else names or "none"
