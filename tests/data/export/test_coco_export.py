"""`bird data export --to coco`: boxes, outlines and images as the rows have them."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.export.coco import export_coco
from bird_hf.data.folder.mask_column import mask_cells
from bird_hf.data.folder.publish import image_cell, rows_of
from bird_hf.data.folder.shards import write_shards
from bird_hf.data.masks import outlines_of, record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task
from bird_hf.data.sources.coco import pack_runs, runs_of
from bird_hf.data.sources.open import open_source
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.hub.boxes import Box

ALL = {Task.VISUAL_GROUNDING: 99, Task.REFERRING_CLASSIFICATION: 99}
IMAGES = [
    draw_phantom(modality, seed, 96)
    for seed, modality in enumerate((Modality.ENDOSCOPY, Modality.PET, Modality.ENDOSCOPY))
]


def chat_rows(masks: bool, pixels: bool = True) -> list[dict[str, Any]]:
    """One row per phantom with all its objects, one of them absent."""
    rows = []
    for image in IMAGES:
        record = record_of(image)
        dialogue = write_dialogue(record, np.random.default_rng(0), ALL, absent=1)
        [row] = rows_of(dialogue, image_cell(image) if pixels else None)[Task.CHAT]
        if masks:
            runs = {name: pack_runs(runs_of(mask)) for name, mask in outlines_of(image).items()}
            row["masks"] = mask_cells(row["objects"], row["image_wh"], runs)
        rows.append(row)
    return rows


def folder_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """A Med-GRIT folder of `chat` rows, the last of them in the test split."""
    folder = tmp_path / "med-grit"
    write_shards(rows[:-1], folder / "data" / "chat", "train", 1)
    write_shards(rows[-1:], folder / "data" / "chat", "test", 1)
    return folder


def exported(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_source_of_a_build_reads_the_same_boxes_and_masks(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_coco(folder_of(tmp_path, chat_rows(masks=True)[::2]), out)  # both of endoscopy
    (out / "labels.yaml").write_text(
        "dataset: x\nmodality: endoscopy\nregion: colon\nannotations: instances_train.json\n"
    )
    source = open_source(out)
    [candidate] = source.listed()
    image = source.read(candidate)
    assert np.array_equal(image.pixels, IMAGES[0].pixels)
    again, first = record_of(image), record_of(IMAGES[0])
    assert sorted((item.label, item.box.xyxy, item.area) for item in again.present) == sorted(
        (item.label, item.box.xyxy, item.area) for item in first.present
    )


@pytest.mark.parametrize("masks", [False, True])
def test_annotations_are_the_present_objects(tmp_path: Path, masks: bool) -> None:
    rows = chat_rows(masks)
    counts = export_coco(folder_of(tmp_path, rows), tmp_path / "out")
    assert {*counts} == {"instances_train.json", "instances_test.json"}
    parts = [exported(tmp_path / "out" / name) for name in counts]
    assert parts[0]["categories"] == parts[1]["categories"]
    names = {category["id"]: category["name"] for category in parts[0]["categories"]}
    assert list(names.values()) == sorted(names.values()) and list(names) == [*range(1, len(names) + 1)]
    for part, of_split, count in zip(parts, (rows[:-1], rows[-1:]), counts.values(), strict=True):
        found = [
            (part["images"][item["image_id"] - 1]["file_name"], names[item["category_id"]], *item["bbox"])
            for item in part["annotations"]
        ]
        expected = [
            (f"{row['image_id']}.png", item["label"], x1 * w, y1 * h, x2 * w - x1 * w, y2 * h - y1 * h)
            for row in of_split
            for item in row["objects"]
            if item["present"]
            for (w, h), (x1, y1, x2, y2) in [(row["image_wh"], item["box"])]
        ]
        assert found == expected and len(found) == count
        assert [item["id"] for item in part["annotations"]] == [*range(1, count + 1)]
        assert all(item["iscrowd"] == 0 and ("segmentation" in item) == masks for item in part["annotations"])


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    export_coco(folder_of(tmp_path, chat_rows(masks=True)), tmp_path / "out")
    data = coco.COCO(tmp_path / "out" / "instances_train.json")
    for entry in data.loadAnns(data.getAnnIds()):
        mask = data.annToMask(entry)
        assert mask.sum() == entry["area"]
        x, y, w, h = entry["bbox"]
        assert Box.from_pixels((x, y, x + w, y + h), mask.shape[::-1]).xyxy == pytest.approx(
            Box.from_pixels(_corners(mask), mask.shape[::-1]).xyxy
        )


def _corners(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_what_is_synthetic_says_so(tmp_path: Path) -> None:
    export_coco(folder_of(tmp_path, chat_rows(masks=False)), tmp_path / "out")
    part = exported(tmp_path / "out" / "instances_train.json")
    assert part["info"]["synthetic"] == "2 of 2 images are synthetic: drawn by a program"
    assert all(image["synthetic"] and image["dataset"].startswith("phantom_") for image in part["images"])
    assert [(image["width"], image["height"]) for image in part["images"]] == [
        (image.pixels.shape[1], image.pixels.shape[0]) for image in IMAGES[:2]
    ]


@pytest.mark.parametrize(("pixels", "wanted"), [(True, True), (True, False), (False, True)])
def test_images_are_written_if_they_are_wanted_and_there(tmp_path: Path, pixels: bool, wanted: bool) -> None:
    export_coco(folder_of(tmp_path, chat_rows(False, pixels)), tmp_path / "out", wanted)
    written = sorted(path.stem for path in tmp_path.glob("out/images/*"))
    assert written == (sorted(image.info.image_id for image in IMAGES) if pixels and wanted else [])
    assert len(exported(tmp_path / "out" / "instances_train.json")["images"]) == 2


def turned(pixels: np.ndarray, orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize(("orientation", "kind"), [(6, "PNG"), (1, "PNG"), (6, "JPEG"), (1, "JPEG")])
def test_the_pixels_that_are_written_are_those_that_the_boxes_are_on(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    rows = chat_rows(masks=False)
    stored = np.rot90(IMAGES[0].pixels) if orientation == 6 else IMAGES[0].pixels
    rows[0]["image"]["bytes"] = turned(np.ascontiguousarray(stored), orientation, kind)
    export_coco(folder_of(tmp_path, rows), tmp_path / "out")
    picture = Image.open(tmp_path / "out" / "images" / f"{IMAGES[0].info.image_id}.png")
    assert picture.format == "PNG" and picture.getexif().get(0x0112, 1) == 1
    difference = np.asarray(picture).astype(int) - IMAGES[0].pixels
    assert np.abs(difference).mean() < (10 if kind == "JPEG" else 1e-9)


def test_objects_of_several_rows_of_an_image_are_put_together(tmp_path: Path) -> None:
    [row, *_] = chat_rows(masks=True)
    parts = [
        row | {"objects": row["objects"][:2], "masks": row["masks"][:2]},
        row | {"objects": row["objects"][1:], "masks": row["masks"][1:]},
    ]
    write_shards(parts, tmp_path / "med-grit" / "data" / "chat", "train", 1)
    export_coco(tmp_path / "med-grit", tmp_path / "out", images=False)
    part = exported(tmp_path / "out" / "instances_train.json")
    assert len(part["images"]) == 1
    assert len(part["annotations"]) == sum(item["present"] for item in row["objects"])
    assert all("segmentation" in item for item in part["annotations"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"image_id": "../../etc/passwd"}, "is not a plain file name"),
        ({"image_id": "a\nb"}, "is not a plain file name"),
        ({"image_wh": [9, 9]}, "and its row says"),
    ],
)
def test_a_row_that_cannot_be_trusted_is_refused(tmp_path: Path, changed: dict, says: str) -> None:
    rows = chat_rows(masks=False)
    rows[0] |= changed
    with pytest.raises(ValueError, match=says):
        export_coco(folder_of(tmp_path, rows), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_malformed_box_is_refused_by_name(tmp_path: Path) -> None:
    rows = chat_rows(masks=False)
    rows[0]["objects"][0] |= {"box": [0.5, 0.5, 0.1, 0.9], "present": True}
    with pytest.raises(ValueError, match=r"the box of .* is malformed"):
        export_coco(folder_of(tmp_path, rows), tmp_path / "out", images=False)


def test_a_folder_without_chat_is_refused(tmp_path: Path) -> None:
    (tmp_path / "med-grit" / "data").mkdir(parents=True)
    with pytest.raises(ValueError, match="has no rows of chat"):
        export_coco(tmp_path / "med-grit", tmp_path / "out")


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    [row, *_] = chat_rows(masks=True, pixels=False)
    peaks = []
    for count in (64, 640, 2560):  # the first run imports modules
        folder = tmp_path / f"of_{count}"
        rows = [row | {"image_id": f"image{number}"} for number in range(count)]
        write_shards(rows, folder / "data" / "chat", "train", 1)
        tracemalloc.start()
        export_coco(folder, tmp_path / f"out_{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]
