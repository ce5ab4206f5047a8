"""The training set of the embedded checkpoint: augmented slices of the training volumes, and phantoms.

Image i depends only on the seed and on i. The set is therefore the same for any number of workers, and an interrupted
render continues with the missing shards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...atomic_writes import move_folder
from ...progress import progress_bar
from ..folder.publish import image_cell, rows_of, write_card
from ..folder.shards import shard_path, write_shard
from ..masks import record_of
from ..phantoms import draw_phantom
from ..records import MaskedImage, Modality, Task
from ..teachers.style import Style
from ..teachers.templates import write_dialogue
from ..teachers.wordings import Wordings, invented_words, unknown_words
from ..workers import in_workers
from .augment import SliceSampler
from .cases import EMBEDDED_CASES, embedded_names, load_case

IMAGES_PER_SHARD = 500
SIDE_PX = 192
TRAINING_MIN_AREA = 0.0015  # share of the image; smaller objects are not asked for

# Shares of the training images. The head has the largest: 116 structures on three axes, while a phantom has few labels.
# Phantoms with objects at any position get more than those whose objects are nearly always in the same place.
_ANY_POSITION = (Modality.ENDOSCOPY, Modality.DERMOSCOPY, Modality.FUNDUS, Modality.ULTRASOUND)
_SHARES: dict[str, float] = {
    "colin27": 0.56,
    "brain1": 0.01,
    "lung1": 0.04,
    "breast1": 0.01,
    **{f"phantom_{modality.value}": 0.062 if modality in _ANY_POSITION else 0.033 for modality in Modality},
}
# The first seed of the training phantoms; the seeds of the sample are smaller.
_FIRST_PHANTOM_SEED = 1_000_000

# Turns per image; a training step draws some of them.
TURNS = {
    Task.VISUAL_GROUNDING: 10,
    Task.REFERRING_CLASSIFICATION: 4,
    Task.REFERRING_CAPTION: 1,
    Task.IMAGE_ANALYSIS: 2,
}
# Numbers of VG turns per image, on average, about a name of another modality and about an unknown word.
_FOREIGN, _UNKNOWN = 0.8, 1.4
_INVENTED_WORDS = 3000  # beside the real ones

_CARD = (
    "# Training set of the embedded checkpoint\n\nAugmented slices and phantoms, rendered by `bird train`.\n"
)


def render_training_set(out: Path, images: int, seed: int, workers: int | None = None) -> None:
    """Render images with their dialogues into the Med-GRIT folder `out`, as the config `chat`.

    images: how many. An interrupted call continues from its finished shards when it is repeated.
    """
    making = out.with_name(f".{out.name}.{images}-{seed}.making")
    folder = making / "data" / Task.CHAT.value
    folder.mkdir(parents=True, exist_ok=True)
    shards = -(-images // IMAGES_PER_SHARD)
    missing = [number for number in range(shards) if not shard_path(folder, "train", number, shards).exists()]
    render = partial(_render_shard, folder, shards, images, seed)
    with progress_bar(total=shards, initial=shards - len(missing), desc="rendering", unit="shard") as bar:
        for _ in in_workers(render, missing, workers or os.cpu_count() or 1):
            bar.update()
    write_card(making, {Task.CHAT.value: {"train": images}}, _CARD)
    move_folder(making, out)


def _render_shard(folder: Path, shards: int, images: int, seed: int, number: int) -> None:
    indices = range(number * IMAGES_PER_SHARD, min((number + 1) * IMAGES_PER_SHARD, images))
    rows = [row for index in indices for row in training_rows(index, seed)]
    write_shard(rows, shard_path(folder, "train", number, shards))


def training_rows(index: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yields the `chat` row of training image `index`. Half of the images without any label are redrawn."""
    rng = np.random.default_rng([seed, index])
    while True:
        image = _draw(index, rng)
        record = record_of(image, TRAINING_MIN_AREA)
        if not record.instances and rng.random() < 0.5:
            continue
        absent, pairs = int(rng.integers(1, 4)), int(rng.random() < 0.2)
        foreign, unknown = (int(number + rng.random()) for number in (_FOREIGN, _UNKNOWN))
        dialogue = write_dialogue(record, rng, TURNS, absent, pairs, training_style(), foreign, unknown)
        yield from rows_of(dialogue, image_cell(image))[Task.CHAT]
        return


@cache
def training_style() -> Style:
    """The wordings of the training set: forms that are trained on, all names of the embedded data, unknown words."""
    rates = yaml.safe_load(Path(__file__).with_name("presence_rates.yaml").read_text(encoding="utf-8"))
    return Style(
        Wordings.VARIED,
        vocabulary=embedded_names(),
        unknown_words=unknown_words("train") + invented_words(_INVENTED_WORDS),
        presence_share=0.6,
        presence_rates={Modality(modality): of_label for modality, of_label in rates.items()},
    )


def _draw(index: int, rng: np.random.Generator) -> MaskedImage:
    source = rng.choice(list(_SHARES), p=list(_SHARES.values()))
    if source.startswith("phantom_"):
        modality = Modality(source.removeprefix("phantom_"))
        return draw_phantom(modality, _FIRST_PHANTOM_SEED + index, SIDE_PX)
    return _sampler(source).draw(rng, SIDE_PX, index, TRAINING_MIN_AREA)


@cache
def _sampler(name: str) -> SliceSampler:
    """A training volume, loaded once per process. Raises ValueError for a test case, which is never trained on."""
    case = next(case for case in EMBEDDED_CASES if case.name == name)
    if case.split != "train":
        raise ValueError(f"{name} is a test case; only training cases may be rendered for training")
    return SliceSampler(case, *load_case(case))
