"""What a collection says of itself by the names of its folder, its channels and its labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...records import Modality
from ...volumes import suited_ct_window
from ..description import DESCRIPTION, Description, described
from ..label_names import clean_label, exhaustive_labels

_TASK_NUMBER = re.compile(r"(?:Dataset|Task)_?\d+_", re.IGNORECASE)  # before nnU-Net's and Decathlon's names
_MR_SEQUENCE = re.compile(r"t1\w{0,4}|t2\w{0,4}|flair|adc|dwi|swi|pd|dce|hbv")
_WORDS = {
    "ct": Modality.CT,
    "cta": Modality.CT,
    "cbct": Modality.CT,
    "mr": Modality.MR,
    "mri": Modality.MR,
    "pet": Modality.PET,
    "us": Modality.ULTRASOUND,
    "ultrasound": Modality.ULTRASOUND,
    "xray": Modality.X_RAY,
    "fundus": Modality.FUNDUS,
    "dermoscopy": Modality.DERMOSCOPY,
    "endoscopy": Modality.ENDOSCOPY,
}


def dataset_name(name: str) -> str:
    """A name as image ids can have it: without a task number, special characters and `--`."""
    plain = re.sub(r"[^\w. +-]|_(?=_)", "_", _TASK_NUMBER.sub("", name.strip()))
    plain = re.sub(r"-{2,}", "-", plain).lstrip("_. +-")[:60].rstrip("- ")
    return plain or "volumes"


def modality_of(channel: str) -> tuple[Modality, str] | None:
    """The modality and its detail that a channel's name says: "T1w" -> (MR, "t1w"); None if it says none, or two."""
    words = re.findall("[a-z0-9]+", channel.lower().replace("x-ray", "xray"))
    sequences = [word for word in words if _MR_SEQUENCE.fullmatch(word)]
    found = {_WORDS[word] for word in words if word in _WORDS} | ({Modality.MR} if sequences else set())
    return (found.pop(), "".join(sequences)[:16] or "00") if len(found) == 1 else None


def description_of(
    folder: Path,
    known: Mapping[str, Any],
    added: Mapping[str, Any],
    channel: str | None,
    modality: Modality | None,
) -> Description:
    """The description of a collection.

    known: dataset and labels, as labels.yaml has them. added: the fields of a labels.yaml beside it, which count more.
    channel: the name of the channel that is read. modality: used if neither says one. Raises ValueError, in one line,
    if nothing says the modality or a field is invalid.
    """
    entries = {**known, **added}
    if "modality" not in entries:
        said = modality_of(channel) if channel is not None else None
        if said is None and modality is None:
            what = f"channel {channel!r} names" if channel is not None else "it names"
            raise ValueError(
                f"{folder}: {what} no modality; give --modality, or `modality` in a {DESCRIPTION} beside it"
            )
        said_modality, detail = said or (modality, "00")
        entries |= {"modality": said_modality, "detail": entries.get("detail", detail)}
    if "exhaustive" not in entries:
        dataset = str(entries["dataset"])
        names = [clean_label(dataset, str(name)) for name in dict(entries["labels"]).values()]
        entries["exhaustive"] = {*exhaustive_labels(dataset, names)} == {*names}
    about = described(folder, entries)
    if about.modality is Modality.CT and about.window is None:
        about = replace(about, window=suited_ct_window(about.region, about.labels.values()))
    return about
