"""`bird data export --to coco`: a Med-GRIT folder -> images and one COCO instance file per split.

    OUT/images/IMAGE_ID.png
    OUT/instances_train.json        boxes in pixels of these images, half-open, not rounded

The objects of an image are those of its row in `chat`: what its questions mention. Absent objects are no annotations.
An outline is written if the rows have the column `masks`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from ...atomic_writes import check_new_folder, replacing_folder
from ...hub.boxes import Box
from ...progress import progress_bar
from ..folder.mask_column import MASKS
from ..folder.shards import Row, shards_of, stream_rows
from ..records import Task
from .pictures import check_stem, upright_png

_COLUMNS = ("image_id", "image_wh", "modality", "dataset", "case_id", "objects", "synthetic")


def export_coco(
    folder: Path, out: Path, images: bool = True, wanted: Sequence[str] | None = None
) -> dict[str, int]:
    """Write a Med-GRIT folder as COCO into the new folder `out`; returns the number of annotations of each file.

    images: also write the images of the rows, as images/ID.png. wanted: the splits; by default all. Raises ValueError
    if `out` is not empty, or the folder has no `chat` rows, no such split, or a row that cannot be trusted.
    """
    check_new_folder(out)
    of_folder = shards_of(folder, Task.CHAT)
    if not of_folder:
        raise ValueError(f"{folder} has no rows of {Task.CHAT}, which hold all objects of an image")
    splits = {split: paths for split, paths in of_folder.items() if wanted is None or split in wanted}
    if not splits:
        raise ValueError(f"{folder} has no split {', '.join(wanted or ())}; it has {', '.join(of_folder)}")
    categories = {name: number for number, name in enumerate(_labels(of_folder), 1)}
    counts = {}
    with replacing_folder(out) as making:
        if images:
            (making / "images").mkdir()
        for split, paths in splits.items():
            name = f"instances_{split}.json"
            writer = _InstanceFile(making / name, folder.name, split, categories)
            rows = progress_bar(_rows(paths, images), desc=name, unit="image")
            counts[name] = writer.write(rows, making / "images" if images else None)
    return counts


def _labels(splits: Mapping[str, Sequence[Path]]) -> list[str]:
    """The labels of all present objects, sorted, so that a category has the same id in every split."""
    rows = (row for paths in splits.values() for row in stream_rows(paths, ["objects"]))
    return sorted({item["label"] for row in rows for item in row["objects"] if item["present"]})


def _rows(paths: Sequence[Path], images: bool) -> Iterator[Row]:
    """Yield one row per image, with the objects of all its rows, which stand next to each other."""
    columns = [*_COLUMNS, *(["image"] if images else []), *([MASKS] if _has_masks(paths[0]) else [])]
    for _, found in groupby(stream_rows(paths, columns), key=lambda row: row["image_id"]):
        row, *others = found
        for other in others:
            for name in ("objects", MASKS):
                known = {item["instance_id"] for item in row.get(name, ())}
                row.get(name, []).extend(
                    item for item in other.get(name, ()) if item["instance_id"] not in known
                )
        yield row


def _has_masks(path: Path) -> bool:
    import pyarrow.parquet as pq

    return MASKS in pq.read_schema(path).names


class _InstanceFile:
    """Writes a COCO instance file while rows arrive; annotations wait in a file of their own, so memory stays flat."""

    def __init__(self, path: Path, source: str, split: str, categories: Mapping[str, int]) -> None:
        self._path, self._categories = path, categories
        self._info = {"description": f"Med-GRIT, {split}", "source": source}
        self._images = self._synthetic = self._annotations = 0

    def write(self, rows: Iterator[Row], images: Path | None) -> int:
        """Write the file and, if a folder for them is given, the images; returns the number of annotations."""
        waiting = self._path.with_suffix(".annotations")
        with self._path.open("w", encoding="utf-8") as file:
            file.write('{"images": [')
            with waiting.open("w", encoding="utf-8") as annotations:
                for row in rows:
                    self._add(row, file, annotations, images)
            file.write('\n],\n"annotations": [')
            with waiting.open(encoding="utf-8") as annotations:
                file.writelines(annotations)
            categories = [{"id": number, "name": name} for name, number in self._categories.items()]
            about = f"{self._synthetic} of {self._images} images are synthetic: drawn by a program"
            file.write(f'\n],\n"categories": {json.dumps(categories)},\n')
            file.write(f'"info": {json.dumps(self._info | {"synthetic": about})}}}\n')
        waiting.unlink()
        return self._annotations

    def _add(self, row: Row, file: IO[str], annotations: IO[str], images: Path | None) -> None:
        name = row["image_id"]
        check_stem(name)
        self._images += 1
        self._synthetic += row["synthetic"]
        width, height = row["image_wh"]
        image = {"id": self._images, "file_name": f"{name}.png", "width": width, "height": height}
        image |= {key: row[key] for key in ("modality", "dataset", "case_id", "synthetic")}
        _write_item(file, image, first=self._images == 1)
        outlines = {item["instance_id"]: item for item in row.get(MASKS, ()) if item["counts"] is not None}
        for item in row["objects"]:
            if item["present"]:
                self._annotations += 1
                entry = self._annotation(name, item, (width, height), outlines.get(item["instance_id"]))
                _write_item(annotations, entry, first=self._annotations == 1)
        if images and row["image"] and row["image"]["bytes"]:
            (images / f"{name}.png").write_bytes(upright_png(row["image"]["bytes"], (width, height), name))

    def _annotation(
        self, name: str, item: Row, image_wh: tuple[int, int], outline: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """An annotation; with an outline, its area is the number of the mask's pixels."""
        try:
            x1, y1, x2, y2 = Box(*item["box"]).to_pixels(image_wh)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: the box of {item['instance_id']!r} is malformed ({error})") from error
        area = item["area"] * image_wh[0] * image_wh[1]
        entry = {
            "id": self._annotations,
            "image_id": self._images,
            "category_id": self._categories[item["label"]],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": area if outline is None else round(area),
            "iscrowd": 0,
        }
        if outline is not None:
            entry["segmentation"] = {"size": outline["size"], "counts": outline["counts"]}
        return entry


def _write_item(file: IO[str], item: Mapping[str, Any], first: bool) -> None:
    file.write(f"{'' if first else ','}\n{json.dumps(item)}")
