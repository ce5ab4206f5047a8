"""The doctor on files: what it finds in each kind, with folders of pictures and masks, and in hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bird_hf.data.doctor.dialect_evidence import AnswerText, try_dialects
from bird_hf.data.doctor.examine import examine
from bird_hf.data.doctor.marks import boxes_in, content_of, size_of
from bird_hf.data.doctor.pictures import MaskFolder, mask_boxes, stem_of
from bird_hf.data.phantoms.sa_med2d_folder import write_phantoms
from bird_hf.data.sources.coco import pack_runs, runs_of
from bird_hf.dialects import get
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import GroundedText, Span

WH = (80, 60)
# Exact boxes of pictures of 80x60; some touch an edge.
PIXELS = [(20, 9, 50, 33), (0, 0, 41, 60), (3, 40, 80, 60), (7, 5, 9, 31), (30, 20, 80, 22), (11, 0, 70, 13)]


def unit(box: tuple[int, int, int, int]) -> list[float]:
    return [value / side for value, side in zip(box, (*WH, *WH), strict=True)]


def mask_of_box(box: tuple[int, int, int, int]) -> np.ndarray:
    x1, y1, x2, y2 = box
    mask = np.zeros(WH[::-1], bool)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """images/pN.png and masks/pN_mask.png of every box."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number, box in enumerate(PIXELS):
        Image.new("L", WH).save(tmp_path / "images" / f"p{number}.png")
        Image.fromarray(mask_of_box(box).astype(np.uint8) * 255).save(
            tmp_path / "masks" / f"p{number}_mask.png"
        )
    return tmp_path


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def scales(path: Path, **folders: Path) -> dict[str, list[str]]:
    """The possible scales of each field."""
    return {each.source: each.possible["scale"] for each in examine(path, **folders).diagnoses}


def test_masks_decide_everything(folders):
    rows = [{"image": f"p{number}.png", "bbox": box} for number, box in enumerate(PIXELS)]
    found = examine(write_lines(folders / "rows.jsonl", rows), folders / "images", folders / "masks")
    assert found.notes == () and found.kind == "JSON lines"
    assert found.diagnoses[0].verdict == [
        "scale: pixels of the picture",
        "order: x1, y1, x2, y2",
        "origin: upper left",
        "far corner: outside the object (half-open)",
        "frame: the picture",
    ]


@pytest.mark.parametrize(
    "dialect", ["medgemma", "qwen3-vl", "paligemma", "internvl", "medrega", "florence-2"]
)
def test_answers_of_phantoms_are_told_apart_by_masks(dialect, tmp_path):
    write_phantoms(tmp_path / "phantoms", 1, 0, 96)
    writer, rows = get(dialect), []
    for path in sorted((tmp_path / "phantoms" / "masks").iterdir()):
        mask = np.asarray(Image.open(path)) > 0
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        size = mask.shape[::-1]
        box = Box.from_pixels((xs[0], ys[0], xs[-1] + 1, ys[-1] + 1), size)
        answer = GroundedText("liver", (Span("liver", 0, 5, (box,)),))
        image = "--".join(path.stem.split("--")[:-1]) + ".png"
        rows.append({"image": image, "response": writer.write(answer, image_wh=size)})
    file = write_lines(tmp_path / "answers.jsonl", rows)
    (found,) = examine(file, tmp_path / "phantoms" / "images", tmp_path / "phantoms" / "masks").diagnoses
    assert found.masked == len(rows) > 20
    y_first = dialect in ("medgemma", "paligemma")
    assert found.possible["order"] == ["y1, x1, y2, x2" if y_first else "x1, y1, x2, y2"]
    assert found.possible["origin"] == ["upper left"]
    frame = "the picture padded to a square" if dialect == "medgemma" else "the picture"
    assert found.possible["frame"] == [frame]
    scale = {"paligemma": "0 to 1023 of 1024", "medrega": "0 to 999"}.get(dialect, "thousandths, 0 to 1000")
    assert scale in found.possible["scale"] and dialect in found.possible["dialect"]


# file name, its content, the source of the boxes, how many, a possible scale, one that is excluded
FILES = [
    # a trainer's messages, with boxes as text
    (
        "messages.json",
        [
            {"messages": [{"role": "assistant", "content": "<box>(250,150),(625,550)</box>"}], "images": ["p0.png"]},
            {"messages": [{"role": "assistant", "content": "<box>(0,0),(1000,990)</box>"}], "images": ["p1.png"]},
        ],
        ("in the text of messages[].content", 2, "thousandths, 0 to 1000", "unit, 0 to 1"),
    ),
    # ms-swift
    (
        "swift.json",
        [{"objects": {"ref": ["a", "b"], "bbox": [[200, 90, 500, 330], [1, 2, 3, 4]]}, "images": ["x.png"]}],
        ("objects.bbox[]", 2, "pixels of the picture", "unit, 0 to 1"),
    ),
    # objects of rows here; an absent one has no box
    (
        "rows.json",
        [{"image_wh": [8, 6], "objects": [{"box": [0.1, 0.2, 0.3, 0.95]}, {"box": None}, {"box": [0.1, 0.2, 0.3, 1]}]}],
        ("objects[].box", 2, "unit, 0 to 1", "pixels of the picture"),
    ),
    # COCO results
    (
        "results.json",
        [{"image_id": 1, "bbox": [10, 20, 70, 40], "score": 0.5}],
        ("bbox", 1, "pixels of the picture", "unit, 0 to 1"),
    ),
    # Label Studio: percent
    (
        "studio.json",
        [
            {"image_wh": [800, 600], "value": {"x": 40.5, "y": 10, "width": 50.25, "height": 30, "rotation": 0}},
            {"image_wh": [800, 600], "value": {"x": 0.5, "y": 10, "width": 99.5, "height": 80, "rotation": 0}},
        ],
        ("value (x, y, width, height)", 2, "percent, 0 to 100", "thousandths, 0 to 1000"),
    ),
    # a single object
    (
        "one.json",
        {"image_wh": [80, 60], "box_2d": [100, 200, 300, 400]},
        ("box_2d", 1, "thousandths, 0 to 1000", "pixels of the picture"),
    ),
    # a list in a cell, and columns
    (
        "cells.csv",
        'image,bbox\np0.png,"[10, 20, 70, 40]"\np1.png,"[1, 2, 3, 4]"\n',
        ("bbox", 2, "pixels of the picture", "unit, 0 to 1"),
    ),
    (
        "columns.tsv",
        "image_id\tx_min\ty_min\tx_max\ty_max\np0\t691.0\t1375.5\t1653.0\t1831.0\np1\t\t\t\t\n",
        ("(x_min, y_min, x_max, y_max)", 1, "pixels of the picture", "thousandths, 0 to 1000"),
    ),
    # headers as people write them
    (
        "spaces.csv",
        "Image Name;X Min;Y Min;X Max;Y Max\np0.png;691;1375;1653;1831\n",
        ("(X Min, Y Min, X Max, Y Max)", 1, "pixels of the picture", "thousandths, 0 to 1000"),
    ),
    (
        "prefix.tsv",
        "file,bbox_x1,bbox_y1,bbox_x2,bbox_y2\np0.png,691,1375,1653,1831\n",
        ("(bbox_x1, bbox_y1, bbox_x2, bbox_y2)", 1, "pixels of the picture", "thousandths, 0 to 1000"),
    ),
    (
        "corner_and_size.csv",
        "image,xmin,ymin,Width,Height\np0.png,691,1375,962,456\n",
        ("(xmin, ymin, Width, Height)", 1, "pixels of the picture", "thousandths, 0 to 1000"),
    ),
    # the size of the picture is none of the box
    (
        "voc.csv",
        "filename,width,height,class,xmin,ymin,xmax,ymax\np0.png,2000,2000,a,691,1375,1653,1831\n",
        ("(xmin, ymin, xmax, ymax)", 1, "pixels of the picture", "thousandths, 0 to 1000"),
    ),
    # the answer of a model that says nothing but numbers
    (
        "bare.jsonl",
        '{"response": "0.250, 0.450, 0.625, 0.850"}\n{"response": "none"}\n',
        ("in the text of response", 1, "unit, 0 to 1", "thousandths, 0 to 1000"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), FILES, ids=[each[0] for each in FILES])
def test_boxes_are_found_in_files_of_all_kinds(name, content, expected, tmp_path):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    source, count, possible, excluded = expected
    (found,) = examine(path).diagnoses
    assert (found.source, found.boxes) == (source, count)
    assert possible in found.possible["scale"] and excluded not in found.possible["scale"]


def test_rows_of_parquet_with_masks_need_no_folder(tmp_path):
    def row(box: tuple[int, int, int, int]) -> dict:
        masks = [{"instance_id": "a", "size": [*WH[::-1]], "counts": pack_runs(runs_of(mask_of_box(box)))}]
        return {
            "image_id": "p",
            "image": {"bytes": b"no image"},
            "image_wh": [*WH],
            "objects": [{"box": unit(box)}],
            "masks": masks,
        }

    pq.write_table(pa.Table.from_pylist([row(box) for box in PIXELS]), tmp_path / "rows.parquet")
    (found,) = examine(tmp_path / "rows.parquet").diagnoses
    assert (found.source, found.sized, found.masked) == ("objects[].box", 6, 6)
    assert all(len(values) == 1 for values in found.possible.values()), found.possible


@pytest.mark.parametrize("far", [0, 1])
def test_outlines_of_coco_decide_the_far_corner(far, tmp_path):
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "bbox": [x1, y1, x2 - x1 - far, y2 - y1 - far],
            "segmentation": {"size": [*WH[::-1]], "counts": runs_of(mask_of_box((x1, y1, x2, y2)))},
        }
        for number, (x1, y1, x2, y2) in enumerate(PIXELS)
    ]
    images = [{"id": 1, "file_name": "p.png", "width": WH[0], "height": WH[1]}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    (found,) = examine(path).diagnoses
    assert found.possible["order"] == ["x, y, width, height"]
    assert found.possible["far corner"] == [
        ("outside the object (half-open)", "the last pixel of the object")[far]
    ]


def test_two_fields_have_two_verdicts(tmp_path):
    rows = [
        {"image_wh": [*WH], "objects": [{"box": unit(box)}], "answer": f"<box>({x1},{y1}),({x2},{y2})</box>"}
        for box in PIXELS
        for x1, y1, x2, y2 in [Box(*unit(box)).to_thousandths()]
    ]
    found = scales(write_lines(tmp_path / "rows.jsonl", rows))
    assert found["objects[].box"] == ["unit, 0 to 1"]
    assert "thousandths, 0 to 1000" in found["in the text of answer"]


def test_a_picture_of_another_size_than_its_row_says_is_noted(folders):
    rows = [
        {"image": "p0.png", "image_wh": [160, 120], "bbox": [1, 2, 3, 4]},
        {"image": "gone.png", "bbox": [1, 2, 3, 4]},
    ]
    notes = examine(write_lines(folders / "rows.jsonl", rows), images=folders / "images").notes
    assert notes == (
        "--images has the picture of 1 of 2 rows with boxes",
        "1 pictures are of another size than their rows say, first p0.png is 80x60, and the row says 160x120",
    )  # fmt: skip


HOSTILE = [
    # numbers that are none, or too large for a float
    (
        '{"bbox": [NaN, 1, 2, 3]}\n{"bbox": [1e999, 1, 2, 3]}\n'
        '{"bbox": [' + "9" * 400 + ', 1, 2, 3]}\n{"bbox": [1, 2, 3, 4]}\n',
        1,
    ),
    # digits beyond what Python reads, JSON that is cut, no object, nothing, deep nesting
    ('{"bbox": [1, 2, 3, 4]}\n{"bbox": [' + "9" * 5000 + ', 1]}\n{"bbox": [1,\n7\n\n' + "[" * 100_000 + "\n", 1),
    # a row that nests below what is looked at
    ('{"bbox": [1, 2, 3, 4]}\n' + '{"a": ' * 50 + '{"bbox": [5, 6, 7, 8]}' + "}" * 50 + "\n", 1),
    # true and words are no numbers
    ('{"bbox": [true, 1, 2, 3]}\n{"bbox": ["a", 1, 2, 3]}\n{"bbox": ["1", "2", "3", "4"]}\n', 1),
    # a text of 10 MB that is nearly a box at every place
    ('{"bbox": [1, 2, 3, 4], "text": "' + "(1,2),(" * 1_400_000 + '"}\n{}\n', 1),
]  # fmt: skip


@pytest.mark.parametrize(("content", "boxes"), HOSTILE, ids=["no numbers", "cut", "deep", "types", "10 MB"])
def test_hostile_rows_are_counted_and_do_no_harm(content, boxes, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    assert examine(path).diagnoses[0].boxes == boxes


REFUSED = [
    ("none.jsonl", None, "no such file"),
    ("empty.json", "", "empty.json is empty"),
    ("empty.csv", "", "empty.csv is empty"),
    ("empty.parquet", "", "empty.parquet is empty"),
    ("blank.json", " \n", "is not Parquet, JSON, JSON lines, CSV, TSV or COCO"),
    ("none.csv", "a.png,1,2,3,4\nb.png,1,2,3,4\n", "in 1 rows (the first has 'a.png', '1', '2', '3', '4')"),
    ("text.txt", "Where is the liver?", "is not Parquet, JSON"),
    ("rows.jsonl", '{"a": 1}\n{"b": 2}\n', "has no boxes in 2 rows"),
    ("rows.parquet", "PAR1", "is not a whole Parquet file"),
    ("rows.json", '[{"a": 1}, {"b"', "entry 2: not JSON"),
    ("coco.json", '{"images": 3, "annotations": 4}', "is not a COCO instance file"),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED)
def test_what_cannot_be_examined_is_refused_in_one_line(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError) as error:
        examine(tmp_path / name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    for option in ("images", "masks"):
        with pytest.raises(ValueError, match=f"--{option} .*: no such folder"):
            examine(tmp_path / "rows.jsonl", **{option: tmp_path / "none"})


TEXTS = [
    ("[[250, 150, 625, 550]]", [(250, 150, 625, 550)]),
    ("(250,150),(625,550) and ( 1 , 2 ) , ( 3 , 4 )", [(250, 150, 625, 550), (1, 2, 3, 4)]),
    ("<loc_1><loc_2><loc_3><loc_4>", [(1, 2, 3, 4)]),
    ("<loc0001><loc0002><loc0003><loc1023> liver", [(1, 2, 3, 1023)]),
    ("[0.25, 0.15, 0.62, 0.55]", [(0.25, 0.15, 0.62, 0.55)]),
    ("0.1, 0.2, 0.3, 0.4", [(0.1, 0.2, 0.3, 0.4)]),
    ("a mass of 1, 2, 3, 4 cm", []),
    ("[1, 2, 3]", []),
    ("[1, 2, 3, 4, 5]", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "boxes"), TEXTS)
def test_boxes_in_texts(text, boxes):
    assert boxes_in(text) == boxes


def test_the_size_of_a_box_is_not_that_of_its_picture():
    assert size_of({"x": 1, "y": 2, "width": 30, "height": 40}) is None
    assert size_of({"x": 1, "y": 2, "width": 30, "height": 40, "image_width": 300, "image_height": 400}) == (
        300,
        400,
    )
    assert size_of({"image_wh": [0, 5]}) is None
    assert content_of({"x": 1, "y": 2, "width": 30, "height": 40}).boxes == [
        ("(x, y, width, height)", (1, 2, 30, 40))
    ]


def test_dialects_that_read_no_box_are_excluded():
    texts = [
        AnswerText(f"row {number}", '[{"bbox_2d": [1, 2, 30, 40], "label": "a"}]', None)
        for number in range(5)
    ]
    possible = [each.dialect for each in try_dialects(texts) if not each.excluded]
    assert possible == ["qwen2.5-vl", "qwen3-vl"]


def test_masks_belong_to_pictures_by_their_names(tmp_path):
    labels = np.zeros((60, 80), np.uint8)
    labels[5:10, 10:20], labels[30:40, 50:60] = 1, 2
    (tmp_path / "scan.7").mkdir()
    for name in ("scan_1.png", "scan_1-liver.png", "scan.7/liver.png", "other.png"):
        Image.fromarray(labels).save(tmp_path / name)
    (tmp_path / "scan_2.png").write_bytes(b"no image")
    folder = MaskFolder(tmp_path)
    expected = [(10, 5, 20, 10), (50, 30, 60, 40), (10, 5, 60, 40)]
    for name in ("scan_1.png", "folder\\scan_1.jpg", "scan.7"):
        assert folder.boxes(name) == (WH, expected), name
    assert folder.boxes("scan_2.png") is None and folder.unreadable == 1
    assert folder.boxes("scan_9.png") is None
    assert stem_of("a/b.c.png") == "b.c" and mask_boxes(np.zeros((4, 4))) == []


@pytest.mark.parametrize("kind", ["RGB", "LA", "P", "1", "I"])
def test_masks_of_every_mode_have_the_box_of_what_is_not_black(kind, tmp_path):
    mask = Image.fromarray(mask_of_box(PIXELS[0]).astype(np.uint8) * 255)
    mask.convert(kind).save(tmp_path / "p.png")
    assert MaskFolder(tmp_path).boxes("p") == (WH, [PIXELS[0]])


def test_a_mask_with_an_orientation_has_boxes_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side, shown turned to the right
    stored = np.rot90(mask_of_box(PIXELS[0]))
    Image.fromarray(stored.astype(np.uint8) * 255).save(tmp_path / "p.png", exif=exif)
    assert stored.shape == WH
    assert MaskFolder(tmp_path).boxes("p") == (WH, [PIXELS[0]])


def test_the_colours_of_a_mask_are_objects(tmp_path):
    colours = np.zeros((60, 80, 3), np.uint8)
    colours[5:10, 10:20], colours[30:40, 50:60] = (255, 0, 0), (0, 0, 9)
    Image.fromarray(colours).save(tmp_path / "p.png")
    _, boxes = MaskFolder(tmp_path).boxes("p")
    assert {*boxes} == {(10, 5, 20, 10), (50, 30, 60, 40), (10, 5, 60, 40)}
