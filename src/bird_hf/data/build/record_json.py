"""Image records as JSON text, as the state of a build stores them; floats are restored exactly."""

from __future__ import annotations

import json

from ...hub.boxes import Box
from ..records import Axis, ImageInfo, ImageRecord, Instance, Modality

_INFO_FIELDS = (
    "image_id",
    "modality",
    "modality_detail",
    "region",
    "axis",
    "slice_index",
    "dataset",
    "case_id",
    "synthetic",
)


def info_to_json(info: ImageInfo) -> str:
    """Return the values of an ImageInfo as a JSON list."""
    return json.dumps([getattr(info, field) for field in _INFO_FIELDS])


def info_from_json(text: str) -> ImageInfo:
    """Return the ImageInfo that `info_to_json` wrote."""
    values = dict(zip(_INFO_FIELDS, json.loads(text), strict=True))
    return ImageInfo(**values | {"modality": Modality(values["modality"]), "axis": Axis(values["axis"])})


def record_to_json(record: ImageRecord) -> str:
    """Return a record as a JSON list."""
    instances = [
        (item.instance_id, item.label, item.box.xyxy if item.box else None, item.area)
        for item in record.instances
    ]
    return json.dumps([info_to_json(record.info), record.image_wh, instances, record.caption])


def record_from_json(text: str) -> ImageRecord:
    """Return the record that `record_to_json` wrote."""
    info, (width, height), instances, caption = json.loads(text)
    return ImageRecord(
        info_from_json(info),
        (width, height),
        tuple(Instance(i, label, Box(*box) if box else None, area) for i, label, box, area in instances),
        caption,
    )
