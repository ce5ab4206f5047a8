"""The last stage of a build: its rows as a Med-GRIT folder, with a card and a manifest that say how it was made."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...atomic_writes import move_folder
from ..folder.publish import write_card
from ..folder.shards import Rows, ShardWriter
from ..folder.subsets import ImageOrder, Subset, cut, stratified
from ..records import SCHEMA_VERSION, Task
from ..sources.faults import Drop
from .state import BuildState

MANIFEST = "manifest.json"
_IMAGES_PER_SHARD = 500  # with pixels a shard must fit memory a few times
_SPLITS = ("train", "test")
_OF_DICOM = """
Images and cases have names made of hashes: no name, number or date of a patient was taken from the DICOM headers.
Labels are those of the segments; fractional segmentations were cut at one half.
"""
# What the bytes of the shards depend on, besides source and settings.
_LIBRARIES = ("bird-hf", "datasets", "numpy", "pillow", "pyarrow", "scipy")


def published(out: Path) -> dict[str, Any] | None:
    """The manifest of a dataset that stands in a folder, if one does."""
    path = out / MANIFEST
    if not path.is_file() or not (out / "README.md").is_file() or not (out / "data").is_dir():
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def write_dataset(
    state: BuildState, kind: str, settings: Mapping[str, Any], out: Path, making: Path
) -> dict[str, Any]:
    """Write shards, card and manifest into `making` and move them to `out`; returns the manifest."""
    shutil.rmtree(making, ignore_errors=True)
    counts: dict[str, dict[str, int]] = {}
    subsets: list[Subset] = []
    with tqdm(total=state.count("words WHERE refused IS NULL"), desc="publishing", unit="image") as bar:
        for split in _SPLITS:
            images = _in_order(state, split)
            parts = cut(images, settings["subsets"]) if split == "train" else []
            _write_split(state, split, images, making / "data", counts, parts, bar)
            subsets += parts
    if not counts:
        raise ValueError("the teacher wrote no dialogue at all; nothing is published")
    order = [task.value for task in Task if task.value in counts]
    counts = {task: counts[task] for task in order}
    manifest = _manifest(state, kind, settings, counts, subsets, making)
    write_card(making, counts, _card(manifest), subsets)
    (making / MANIFEST).write_text(
        json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    move_folder(making, out)
    return manifest


def _in_order(state: BuildState, split: str) -> list[ImageOrder]:
    """The images of a split as they are published: by rank within a modality and a dataset, in even mixture."""
    found = state.database.execute(
        "SELECT image_id, modality, dataset, json_array_length(rows, '$.chat[0].messages') / 2 "
        "FROM chosen JOIN words USING (image_id) JOIN images USING (image_id) "
        "WHERE split = ? AND refused IS NULL ORDER BY rank",
        (split,),
    )
    return stratified([ImageOrder(name, (modality, dataset), n) for name, modality, dataset, n in found])


def _write_split(
    state: BuildState,
    split: str,
    images: Sequence[ImageOrder],
    data: Path,
    counts: dict[str, dict[str, int]],
    subsets: Sequence[Subset],
    bar: tqdm,
) -> None:
    """The shards of a split; each holds the rows of the same images in every config, and subsets end with one."""
    writers: dict[str, ShardWriter] = {}
    for start, stop in _batches(len(images), [subset.images for subset in subsets]):
        for task, rows in _rows_by_task(state, images[start:stop]).items():
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
    """(start, stop) of the images of each shard; one ends at every cut."""
    for start, stop in pairwise(sorted({0, *cuts, count})):
        for first in range(start, stop, _IMAGES_PER_SHARD):
            yield first, min(first + _IMAGES_PER_SHARD, stop)


def _rows_by_task(state: BuildState, images: Sequence[ImageOrder]) -> dict[str, Rows]:
    by_task: dict[str, Rows] = {}
    for image in images:
        text, png = state.database.execute(
            "SELECT rows, png FROM words JOIN reads USING (image_id) WHERE image_id = ?", (image.image_id,)
        ).fetchone()
        cell = None if png is None else {"bytes": png, "path": f"{image.image_id}.png"}
        for task, rows in json.loads(text).items():
            by_task.setdefault(task, []).extend(row | {"image": cell} for row in rows)
    return by_task


def _manifest(
    state: BuildState,
    kind: str,
    settings: Mapping[str, Any],
    rows: Mapping[str, Any],
    subsets: Sequence[Subset],
    making: Path,
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for line in state.database.execute("SELECT image_id, labels FROM images ORDER BY image_id"):
        digest.update("\0".join(line).encode())
    records = hashlib.sha256()
    for line in state.database.execute("SELECT record FROM chosen JOIN reads USING (image_id) ORDER BY rank"):
        records.update(line[0].encode())
    files = {
        str(path.relative_to(making)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(making.rglob("*.parquet"))
    }
    return {
        "schema": SCHEMA_VERSION,
        "versions": {name: version(name) for name in _LIBRARIES},
        "settings": dict(settings) | {"subsets": list(settings["subsets"])},
        "source": {"kind": kind, "images": _listed(state), "list_sha256": digest.hexdigest()},
        "records_sha256": records.hexdigest(),
        "images": _images(state),
        "dropped": dropped(state),
        "rejected_in_review": state.rejected(),
        "refused": _counts(
            state, "SELECT refused, COUNT(*) FROM words WHERE refused NOT NULL GROUP BY refused"
        ),
        "with_pixels": state.count("chosen JOIN reads USING (image_id) WHERE png NOT NULL"),
        "rows": rows,
        "subsets": {subset.name: asdict(subset) for subset in subsets},
        "files": files,
    }


def dropped(state: BuildState) -> dict[str, int]:
    """Images that are not in the dataset, by reason; with those that are, they are all that the source listed."""
    counts = _counts(
        state,
        "SELECT reason, COUNT(*) FROM (SELECT reason FROM left_out UNION ALL "
        "SELECT fault FROM reads WHERE fault NOT NULL UNION ALL "
        f"SELECT '{Drop.REFUSED_BY_TEACHER}' FROM words WHERE refused NOT NULL) GROUP BY reason",
    )
    rest = _listed(state) - sum(counts.values()) - state.count("words WHERE refused IS NULL")
    return counts | ({Drop.NOT_SAMPLED.value: rest} if rest else {})


def _listed(state: BuildState) -> int:
    return state.count("images") + state.count("left_out")


def _images(state: BuildState) -> dict[str, dict[str, dict[str, int]]]:
    """modality -> dataset -> split -> number of images."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for modality, dataset, split, count in state.database.execute(
        "SELECT modality, dataset, split, COUNT(*) FROM chosen JOIN images USING (image_id) "
        "JOIN words USING (image_id) WHERE refused IS NULL "
        "GROUP BY modality, dataset, split ORDER BY modality, dataset, split DESC"
    ):
        found.setdefault(modality, {}).setdefault(dataset, {})[split] = count
    return found


def _counts(state: BuildState, query: str) -> dict[str, int]:
    return dict(sorted(state.database.execute(query)))


def image_table(manifest: Mapping[str, Any]) -> str:
    """The numbers of images by modality, dataset and split, as Markdown."""
    lines = ["| modality | dataset | train | test |", "| --- | --- | --- | --- |"]
    for modality, datasets in manifest["images"].items():
        for dataset, splits in datasets.items():
            numbers = " | ".join(f"{splits.get(split, 0):,}" for split in _SPLITS)
            lines.append(f"| {modality} | {dataset} | {numbers} |")
    return "\n".join(lines)


def drop_table(manifest: Mapping[str, Any]) -> str:
    """What was left out and why, as Markdown."""
    counts = manifest["dropped"] or {"nothing": 0}
    lines = [f"| {reason} | {count:,} |" for reason, count in counts.items()]
    return "\n".join(["| left out | images |", "| --- | --- |", *lines])


def _card(manifest: Mapping[str, Any]) -> str:
    """What the README says of this dataset."""
    settings, source = manifest["settings"], manifest["source"]
    held = (
        "Rows hold their images."
        if manifest["with_pixels"]
        else "Rows hold no pixels: the loading script joins your own copy of the images by `image_id`."
    )
    taught = "from templates" if settings["teacher"] == "templates" else f"by {settings['teacher']}"
    return f"""\
# Med-GRIT

Grounded questions and answers about biomedical images, in the format of Med-GRIT-270k (BiRD, MICCAI 2024), built by
`bird data build` from {source["images"]:,} images of {source["kind"]}. Boxes are computed from masks, the words are
{taught}. {held} `manifest.json` holds versions, settings, counts and hashes.

## Images

{image_table(manifest)}

Training and test images come from different patients or cases; pictures that look the same are in it once.

## Left out

{drop_table(manifest)}

## Known errors

Masks are taken as they are, but for the faults above. An object that its source did not draw is in no question; it is
called absent only in datasets whose labels are exhaustive, and there one that was too small to be drawn may be called
so. The plane of a slice is that of its file's name.
{_OF_DICOM if source["kind"] == "DICOM" else ""}"""
