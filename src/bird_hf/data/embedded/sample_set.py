"""The embedded sample: a small Med-GRIT dataset made from the embedded volumes and phantoms.

Training and test images come from different cases: different heads, different chests, phantoms of different seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...progress import progress_bar
from ..folder.publish import image_cell, publish
from ..masks import record_of
from ..phantoms import draw_phantom
from ..records import Dialogue, ImageRecord, MaskedImage, Modality, Task
from ..teachers.style import Style
from ..teachers.templates import write_dialogue
from ..teachers.wordings import Wordings
from ..volumes import masked_slices
from .cases import EMBEDDED_CASES, EmbeddedCase, embedded_names, load_case

Split = Literal["train", "test"]

SEED = 0
SAMPLE_MIN_AREA = 0.003  # share of the image; smaller objects are hard to find by eye and are not asked for
PHANTOMS_PER_MODALITY = {"train": 12, "test": 12}
SLICES_PER_PLANE = {"train": 8, "test": 8}
# The training set of bird-nano uses seeds from 1,000,000 on, so it shares no phantom with the sample.
FIRST_PHANTOM_SEED = {"train": 0, "test": 500_000}
_TURNS = {
    Task.VISUAL_GROUNDING: 4,
    Task.REFERRING_CLASSIFICATION: 2,
    Task.REFERRING_CAPTION: 1,
    Task.IMAGE_ANALYSIS: 2,
}

_CARD = """\
# Med-GRIT, embedded sample

Grounded questions and answers about biomedical images, in the format of Med-GRIT-270k (BiRD, MICCAI 2024).
It is a small sample, not the dataset of the paper.

- Real: MR of the head (Colin27 and MNI152, AAL atlas), brain MR and chest CT with tumours (pyradiomics),
  breast MR. Their licences are in the package's `assets/volumes/README.md`.
- Phantoms (`synthetic` is true): images of all eight modalities, drawn by a program. They are not medical evidence.

Training and test images come from different cases. The text is from templates; boxes are computed from masks.
For research only, never for clinical use.
"""


def write_sample(out: Path, wordings: Literal["plain", "varied"] = "varied") -> dict[str, dict[str, int]]:
    """Render the sample into the folder `out`; returns the number of rows by config and split.

    wordings: of the training split; the test split has the plain ones.
    """
    splits = {"train": sample_dialogues("train", Wordings(wordings)), "test": sample_dialogues("test")}
    return publish(splits, out, _CARD)


def sample_dialogues(
    split: Split,
    wordings: Wordings = Wordings.PLAIN,
    phantoms: int | None = None,
    slices: int | None = None,
) -> Iterator[tuple[Dialogue, dict[str, Any]]]:
    """Yields the dialogues of a split, each with the `image` cell of its rows.

    phantoms: of each modality. slices: of each axis of each volume. By default those of the sample.
    """
    style = Style(wordings, vocabulary=embedded_names())
    rng = np.random.default_rng([SEED, split == "test"])
    phantoms = PHANTOMS_PER_MODALITY[split] if phantoms is None else phantoms
    images = sample_images(split, phantoms, SLICES_PER_PLANE[split] if slices is None else slices)
    for image, record in progress_bar(images, desc=f"{split} images", unit="image"):
        dialogue = write_dialogue(record, rng, _TURNS, absent=1, pairs=int(rng.random() < 0.3), style=style)
        yield dialogue, image_cell(image)


def sample_images(split: Split, phantoms: int, slices: int) -> Iterator[tuple[MaskedImage, ImageRecord]]:
    """Yields phantoms of each modality and evenly spaced slices of each axis of each volume, with their records."""
    yield from sample_phantoms(split, phantoms)
    for case in EMBEDDED_CASES:
        if case.split == split:
            yield from spaced_slices(case, slices)


def sample_phantoms(split: Split, count: int) -> Iterator[tuple[MaskedImage, ImageRecord]]:
    """Yields the first `count` phantoms of each modality."""
    for modality in Modality:
        for number in range(count):
            yield with_record(draw_phantom(modality, FIRST_PHANTOM_SEED[split] + number))


def spaced_slices(case: EmbeddedCase, slices: int) -> Iterator[tuple[MaskedImage, ImageRecord]]:
    """Yields up to `slices` slices of each axis of a volume, evenly spaced among those that show an object."""
    volumes = load_case(case)
    for axis in case.axes:
        shown = [
            pair for pair in map(with_record, masked_slices(case, *volumes, axes=(axis,))) if pair[1].present
        ]
        places = np.linspace(0, len(shown) - 1, min(slices, len(shown))).round().astype(int)
        yield from (shown[place] for place in places)


def with_record(image: MaskedImage) -> tuple[MaskedImage, ImageRecord]:
    """An image and its record; objects smaller than `SAMPLE_MIN_AREA` are left out of the record."""
    return image, record_of(image, SAMPLE_MIN_AREA)
