"""The volumes that the package contains: seven real cases, three of which are never trained on.

Written by `tools/embed_volumes.py`; provenance and licences are in `assets/volumes/README.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ..phantoms import PHANTOM_LABELS
from ..records import Axis, Modality
from ..sources.volume_files import read_volume
from ..volumes import CaseInfo, Volume
from .atlas_names import AAL_LABELS

ALL_AXES = (Axis.AXIAL, Axis.CORONAL, Axis.SAGITTAL)
TUMOR = {1: "tumor"}
CHEST = {1: "tumor", 2: "left lung", 3: "right lung"}


@dataclass(frozen=True, kw_only=True)
class EmbeddedCase(CaseInfo):
    """A labelled volume in the package: its two files and its split."""

    name: str
    image_file: str
    label_file: str
    split: Literal["train", "test"]


def _head(name: str, split: Literal["train", "test"], skull: bool) -> EmbeddedCase:
    """A whole head in MNI space with the AAL atlas, T1 without contrast."""
    return EmbeddedCase(
        name=name,
        image_file=f"{name}.nii.gz",
        label_file=f"{name}_aal.nii.gz",
        split=split,
        dataset=name,
        original="head",
        labels=AAL_LABELS,
        modality=Modality.MR,
        modality_detail="t1",
        region="brain",
        axes=ALL_AXES,
        exhaustive=True,
        head_in_mni=skull,
    )


def _pyradiomics(name: str, split: Literal["train", "test"], region: str, exhaustive: bool) -> EmbeddedCase:
    """A test case of pyradiomics: a chest CT, or MR with contrast, with one tumour mask."""
    chest = region == "chest"
    return EmbeddedCase(
        name=name,
        image_file=f"{name}.nii.gz",
        label_file=f"{name}_labels.nii.gz",
        split=split,
        dataset="pyradiomics",
        original=name,
        labels=CHEST if chest else TUMOR,
        modality=Modality.CT if chest else Modality.MR,
        modality_detail="00" if chest else "t1c",
        region=region,
        axes=(Axis.AXIAL, Axis.CORONAL) if chest else (Axis.AXIAL,),  # the MR slices are up to 6.5 mm thick
        exhaustive=exhaustive,
        window="lung" if chest else None,
        lesions=("tumor",),
    )


EMBEDDED_CASES: tuple[EmbeddedCase, ...] = (
    _head("colin27", "train", skull=True),
    _pyradiomics("brain1", "train", "brain", exhaustive=True),
    _pyradiomics("lung1", "train", "chest", exhaustive=True),
    # A crop with more bright spots than the one that is labelled, so no object is known to be absent.
    _pyradiomics("breast1", "train", "breast", exhaustive=False),
    _head("mni152", "test", skull=False),
    _pyradiomics("brain2", "test", "brain", exhaustive=True),
    _pyradiomics("lung2", "test", "chest", exhaustive=True),
)


@cache
def embedded_names() -> dict[Modality, tuple[str, ...]]:
    """The names of the embedded volumes and phantoms by modality, each once."""
    return {
        modality: tuple(
            dict.fromkeys(
                [
                    *PHANTOM_LABELS[modality],
                    *(
                        name
                        for case in EMBEDDED_CASES
                        if case.modality is modality
                        for name in case.labels.values()
                    ),
                ]
            )
        )
        for modality in Modality
    }


def volumes_folder() -> Path:
    """The folder of the package that holds the volumes."""
    return Path(__file__).parents[2] / "assets" / "volumes"


def load_case(case: EmbeddedCase) -> tuple[Volume, Volume]:
    """Load the image (float32 HU for CT, uint8 for MR) and the label map (uint8) of a case, on the same grid."""
    folder = volumes_folder()
    return read_volume(folder / case.image_file), read_volume(folder / case.label_file)
