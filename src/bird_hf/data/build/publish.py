"""The last stage of a build: write a Med-GRIT folder, with a card and a manifest of how it was built."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...atomic_writes import move_folder
from ...markdown import Markup, table
from ...progress import progress_bar
from ..folder.mask_column import MASKS, mask_cells
from ..folder.publish import write_card
from ..folder.shards import Rows, ShardWriter
from ..folder.subsets import ImageOrder, Subset, cut, stratified
from ..records import SCHEMA_VERSION, Task
from ..sources.faults import Drop
from .state import BuildState

MANIFEST = "manifest.json"
_IMAGES_PER_SHARD = 500  # with pixels, a shard must fit into memory a few times
_SPLITS = ("train", "test")
_DICOM_NOTE = """
Images and cases have names made of hashes: no name, number or date of a patient was taken from the DICOM headers.
Labels are those of the segments; fractional segmentations were cut at one half.
"""
# The bytes of the shards depend on these versions, besides source and settings.
_LIBRARIES = ("bird-hf", "datasets", "numpy", "pillow", "pyarrow", "scipy")


def published(out: Path) -> dict[str, Any] | None:
    """Return the manifest of the dataset in a folder, or None if there is no whole dataset."""
    path = out / MANIFEST
    if not path.is_file() or not (out / "README.md").is_file() or not (out / "data").is_dir():
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def write_dataset(
    state: BuildState, kind: str, settings: Mapping[str, Any], out: Path, making: Path
) -> dict[str, Any]:
    """Write shards, card and manifest into `making` and move them to `out`; returns the manifest.

    Raises ValueError if no image has a dialogue.
    """
    shutil.rmtree(making, ignore_errors=True)
    counts: dict[str, dict[str, int]] = {}
    subsets: list[Subset] = []
    masks = settings.get("masks", False)
    with progress_bar(total=state.published_count(), desc="publishing", unit="image") as bar:
        for split in _SPLITS:
            images = stratified(state.images_of_split(split))
            parts = cut(images, settings["subsets"]) if split == "train" else []
            _write_split(state, split, images, making / "data", counts, parts, bar, masks)
            subsets += parts
    if not counts:
        raise ValueError("the teacher wrote no dialogue at all; nothing is published")
    order = [task.value for task in Task if task.value in counts]
    counts = {task: counts[task] for task in order}
    manifest = _manifest(state, kind, settings, counts, subsets, making)
    write_card(making, counts, _card(manifest), subsets, masks)
    (making / MANIFEST).write_text(
        json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    move_folder(making, out)
    return manifest


def _write_split(
    state: BuildState,
    split: str,
    images: Sequence[ImageOrder],
    data: Path,
    counts: dict[str, dict[str, int]],
    subsets: Sequence[Subset],
    bar: tqdm,
    masks: bool,
) -> None:
    """Write the shards of a split; shard i holds the same images in every config, and subsets end with a shard.

    Adds the numbers of rows to `counts`, and sets the shards and rows of the subsets.
    """
    writers: dict[str, ShardWriter] = {}
    for start, stop in _batches(len(images), [subset.images for subset in subsets]):
        for task, rows in _rows_by_task(state, images[start:stop], masks).items():
            if task not in writers:
                writers[task] = ShardWriter(data / task, split)
            writers[task].write(rows)
        for subset in subsets:
            if subset.images == stop:
                subset.shards = {task: writer.shards for task, writer in writers.items()}
                subset.rows = {task: writer.rows for task, writer in writers.items()}
        bar.update(stop - start)
    for task, writer in writers.items():
        writer.close()
        counts.setdefault(task, {})[split] = writer.rows


def _batches(count: int, cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the images of each shard; a shard ends at every cut."""
    for start, stop in pairwise(sorted({0, *cuts, count})):
        for first in range(start, stop, _IMAGES_PER_SHARD):
            yield first, min(first + _IMAGES_PER_SHARD, stop)


def _rows_by_task(state: BuildState, images: Sequence[ImageOrder], masks: bool) -> dict[str, Rows]:
    by_task: dict[str, Rows] = {}
    for image in images:
        dialogue, png = state.dialogue_of(image.image_id)
        runs = state.runs_of(image.image_id) if masks else {}
        cell = None if png is None else {"bytes": png, "path": f"{image.image_id}.png"}
        for task, rows in dialogue.items():
            rows = [row | {"image": cell} for row in rows]
            if masks:
                rows = [row | {MASKS: mask_cells(row["objects"], row["image_wh"], runs)} for row in rows]
            by_task.setdefault(task, []).extend(rows)
    return by_task


def _manifest(
    state: BuildState,
    kind: str,
    settings: Mapping[str, Any],
    rows: Mapping[str, Any],
    subsets: Sequence[Subset],
    making: Path,
) -> dict[str, Any]:
    files = {str(path.relative_to(making)): _sha256(path) for path in sorted(making.rglob("*.parquet"))}
    return {
        "schema": SCHEMA_VERSION,
        "versions": {name: version(name) for name in _LIBRARIES},
        "settings": dict(settings) | {"subsets": list(settings["subsets"])},
        "source": {"kind": kind, "images": _listed(state), "list_sha256": state.source_sha256()},
        "records_sha256": state.records_sha256(),
        "images": _images(state),
        "dropped": dropped(state),
        "rejected_in_review": state.rejected_counts(),
        "refused": state.refusal_counts(),
        "with_pixels": state.with_pixels_count(),
        "rows": rows,
        "subsets": {subset.name: asdict(subset) for subset in subsets},
        "files": files,
    }


def dropped(state: BuildState, taken: int | None = None) -> dict[str, int]:
    """Return the number of images that are not in the dataset, by reason.

    Together with the images of the dataset they are all that the source lists. taken: number of images of the dataset;
    by default of those that have a dialogue.
    """
    counts = Counter(state.left_out_counts()) + Counter(state.fault_counts())
    counts[Drop.REFUSED_BY_TEACHER.value] += sum(state.refusal_counts().values())
    rest = _listed(state) - counts.total() - (state.published_count() if taken is None else taken)
    return dict(sorted((+counts).items())) | ({Drop.NOT_SAMPLED.value: rest} if rest else {})


def _listed(state: BuildState) -> int:
    return state.count("images") + state.count("left_out")


def _images(state: BuildState) -> dict[str, dict[str, dict[str, int]]]:
    """Return modality -> dataset -> split -> number of images."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for modality, dataset, split, count in state.published_counts():
        found.setdefault(modality, {}).setdefault(dataset, {})[split] = count
    return found


def image_table(manifest: Mapping[str, Any]) -> str:
    """Return the numbers of images by modality, dataset and split as a Markdown table."""
    rows = [
        (Markup(modality), dataset, *(splits.get(split, 0) for split in _SPLITS))
        for modality, datasets in manifest["images"].items()
        for dataset, splits in datasets.items()
    ]
    return table(("modality", "dataset", *_SPLITS), rows)


def drop_table(manifest: Mapping[str, Any]) -> str:
    """Return the numbers of images that were left out, by reason, as a Markdown table."""
    counts = manifest["dropped"] or {"nothing": 0}
    return table(("left out", "images"), ((Markup(reason), count) for reason, count in counts.items()))


def left_out_count(counts: Mapping[str, int]) -> int:
    """Return the number of rows of left_out.csv: all that were left out but those that were not sampled."""
    return sum(count for reason, count in counts.items() if reason != Drop.NOT_SAMPLED)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card(manifest: Mapping[str, Any]) -> str:
    """Return the part of the README that describes this dataset."""
    settings, source = manifest["settings"], manifest["source"]
    held = (
        "Rows hold their images."
        if manifest["with_pixels"]
        else "Rows hold no pixels: the loading script joins your own copy of the images by `image_id`."
    )
    # A CSV file has boxes and no masks.
    marks, boxes = (
        ("Boxes", "those of the source")
        if source["kind"] == "CSV of boxes"
        else ("Masks", "computed from masks")
    )
    taught = "from templates" if settings["teacher"] == "templates" else f"by {settings['teacher']}"
    return f"""\
# Med-GRIT

Grounded questions and answers about biomedical images, in the format of Med-GRIT-270k (BiRD, MICCAI 2024), built by
`bird data build` from {source["images"]:,} images of {source["kind"]}. Boxes are {boxes}, the words are
{taught}. {held} `manifest.json` holds versions, settings, counts and hashes.

## Images

{image_table(manifest)}

Training and test images come from different patients or cases; pictures that look the same are in it once.

## Left out

{drop_table(manifest)}

## Known errors

{marks} are taken as they are, but for the faults above. An object that its source did not draw is in no question; it is
called absent only in datasets whose labels are exhaustive, and there one that was too small to be drawn may be called
so. The plane of a slice is that of its file's name.
{_DICOM_NOTE if source["kind"] == "DICOM" else ""}"""
