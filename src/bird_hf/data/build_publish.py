"""The last stage of a build: its rows as a Med-GRIT folder, with a card and a manifest that say how it was made."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .build_state import BuildState
from .faults import Drop
from .publish import Rows, replace_folder, write_card, write_shard
from .records import SCHEMA_VERSION, Task

MANIFEST = "manifest.json"
_IMAGES_PER_SHARD = 500  # with pixels a shard must fit memory a few times
_SPLITS = ("train", "test")
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
    with tqdm(total=state.count("chosen"), desc="publishing", unit="image") as bar:
        for split in _SPLITS:
            _write_split(state, split, making / "data", counts, bar)
    if not counts:
        raise ValueError("the teacher wrote no dialogue at all; nothing is published")
    order = [task.value for task in Task if task.value in counts]
    counts = {task: counts[task] for task in order}
    manifest = _manifest(state, kind, settings, counts, making)
    write_card(making, counts, _card(manifest))
    (making / MANIFEST).write_text(
        json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    replace_folder(making, out)
    return manifest


def _write_split(
    state: BuildState, split: str, data: Path, counts: dict[str, dict[str, int]], bar: tqdm
) -> None:
    """The shards of a split, by rank; each holds the rows of the same images in every config."""
    images = state.database.execute(
        "SELECT image_id, rows, png FROM chosen JOIN words USING (image_id) JOIN reads USING (image_id) "
        "WHERE split = ? ORDER BY rank",
        (split,),
    )
    while batch := images.fetchmany(_IMAGES_PER_SHARD):
        by_task: dict[str, Rows] = {}
        for image_id, text, png in batch:
            cell = None if png is None else {"bytes": png, "path": f"{image_id}.png"}
            for task, rows in json.loads(text or "{}").items():
                by_task.setdefault(task, []).extend(row | {"image": cell} for row in rows)
        for task, rows in by_task.items():
            folder = data / task
            folder.mkdir(parents=True, exist_ok=True)
            write_shard(rows, folder / f"{split}-{len([*folder.glob(f'{split}-*')]):05d}.parquet")
            of_task = counts.setdefault(task, {})
            of_task[split] = of_task.get(split, 0) + len(rows)
        bar.update(len(batch))
    for folder in data.glob("*"):
        shards = sorted(folder.glob(f"{split}-*.parquet"))
        for shard in shards:
            shard.rename(folder / f"{shard.stem}-of-{len(shards):05d}.parquet")


def _manifest(
    state: BuildState, kind: str, settings: Mapping[str, Any], rows: Mapping[str, Any], making: Path
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
        "settings": dict(settings),
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
"""
