"""The training set of the embedded checkpoint: augmented slices of the training volumes, and phantoms.

Image number i is drawn from the seed and i alone, so the set is the same whatever the number of workers, and a
render that was stopped goes on with the shards that are missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..folder.publish import image_cell, replace_folder, rows_of, write_card, write_shard
from ..masks import record_of
from ..phantoms import draw_phantom
from ..records import MaskedImage, Modality, Task
from ..teachers.templates import write_dialogue
from ..workers import in_workers
from .augment import SliceSampler
from .cases import EMBEDDED_CASES, load_case

IMAGES_PER_SHARD = 500
SIDE_PX = 192
MIN_AREA = 0.0015  # of the picture; smaller objects are not asked for

# Shares of the training images. The head has 116 names on three planes to teach; a phantom's list is short. Things
# lie anywhere in endoscopy, dermoscopy, fundus and ultrasound, and nearly always in one place in the others.
_ANYWHERE = (Modality.ENDOSCOPY, Modality.DERMOSCOPY, Modality.FUNDUS, Modality.ULTRASOUND)
_SHARES: dict[str, float] = {
    "colin27": 0.56,
    "brain1": 0.01,
    "lung1": 0.04,
    "breast1": 0.01,
    **{f"phantom_{modality.value}": 0.062 if modality in _ANYWHERE else 0.033 for modality in Modality},
}
# Phantoms of the training set are drawn with seeds from here on; smaller ones belong to the sample.
_FIRST_PHANTOM_SEED = 1_000_000

TURNS = {Task.VISUAL_GROUNDING: 10, Task.REFERRING_CLASSIFICATION: 2}

_CARD = (
    "# Training set of the embedded checkpoint\n\nAugmented slices and phantoms, rendered by `bird train`.\n"
)


def render_training_set(out: Path, images: int, seed: int, workers: int | None = None) -> None:
    """Render `images` images with their dialogues into the folder `out`, as the config `chat`.

    Stopped at any moment, it goes on from its finished shards when it is called again.
    """
    making = out.with_name(f".{out.name}.{images}-{seed}.making")
    folder = making / "data" / Task.CHAT.value
    folder.mkdir(parents=True, exist_ok=True)
    shards = -(-images // IMAGES_PER_SHARD)
    missing = [number for number in range(shards) if not _shard_path(folder, number, shards).exists()]
    render = partial(_render_shard, folder, shards, images, seed)
    with tqdm(total=shards, initial=shards - len(missing), desc="rendering", unit="shard") as bar:
        for _ in in_workers(render, missing, workers or os.cpu_count() or 1):
            bar.update()
    write_card(making, {Task.CHAT.value: {"train": images}}, _CARD)
    replace_folder(making, out)


def _shard_path(folder: Path, number: int, shards: int) -> Path:
    return folder / f"train-{number:05d}-of-{shards:05d}.parquet"


def _render_shard(folder: Path, shards: int, images: int, seed: int, number: int) -> None:
    indices = range(number * IMAGES_PER_SHARD, min((number + 1) * IMAGES_PER_SHARD, images))
    rows = [row for index in indices for row in training_rows(index, seed)]
    write_shard(rows, _shard_path(folder, number, shards))


def training_rows(index: int, seed: int) -> Iterator[dict[str, Any]]:
    """The `chat` row of training image `index`. An image about which there is nothing to say is drawn again."""
    rng = np.random.default_rng([seed, index])
    while True:
        image = _draw(index, rng)
        record = record_of(image, MIN_AREA)
        words = Task.REFERRING_CAPTION if rng.random() < 0.5 else Task.IMAGE_ANALYSIS
        absent, pairs = int(rng.integers(2, 5)), int(rng.random() < 0.2)
        dialogue = write_dialogue(record, rng, {**TURNS, words: 1}, absent, pairs)
        if dialogue.turns:
            yield from rows_of(dialogue, image_cell(image))[Task.CHAT]
            return


def _draw(index: int, rng: np.random.Generator) -> MaskedImage:
    source = rng.choice(list(_SHARES), p=list(_SHARES.values()))
    if source.startswith("phantom_"):
        modality = Modality(source.removeprefix("phantom_"))
        return draw_phantom(modality, _FIRST_PHANTOM_SEED + index, SIDE_PX)
    return _sampler(source).draw(rng, SIDE_PX, index, MIN_AREA)


@cache
def _sampler(name: str) -> SliceSampler:
    """A training volume, loaded once a process. Refuses test cases: they are never trained on."""
    case = next(case for case in EMBEDDED_CASES if case.name == name)
    if case.split != "train":
        raise ValueError(f"{name} is a test case; only training cases may be rendered for training")
    return SliceSampler(case, *load_case(case))
