"""`bird data export --to TRAINER`: every export reads back to the boxes of its rows, with pictures and registration."""

from __future__ import annotations

import base64
import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from bird_hf import dialects
from bird_hf.data.export.folder import Choice, Exported, export_for
from bird_hf.data.export.registry import TRAINERS, open_trainer
from bird_hf.data.folder.left_out import LEFT_OUT
from bird_hf.data.records import Task
from bird_hf.hub.boxes import Box

from .example_folder import (
    EDGE,
    KIDNEY,
    LIVER,
    SECOND_KIDNEY,
    STEMS,
    WH,
    all_rows,
    pixels_of,
    row_of,
    write_folder,
)

ABSENT = "There is no spleen in this image."
BOXES = {
    "vg-train-0": (KIDNEY,),
    "vg-train-1": (KIDNEY, SECOND_KIDNEY),
    "vg-train-2": (KIDNEY, LIVER),
    "vg-train-3": (),
    "vg-train-4": (EDGE,),
    "roc-train-0": (),
    "rc-train-0": (),
    "mia-train-0": (),
}
PAIRS = [
    (trainer, dialect) for trainer, kind in TRAINERS.items() for dialect in kind.dialects or dialects.names()
]
# Pictures are made in one place: one trainer shows every dialect, and every trainer one that adds or cuts away.
SEEN = [
    *(("trl", name) for name in dialects.names()),
    ("vlmevalkit", "maira-2"),
    ("lmms-eval", "shikra"),
    ("ms-swift", "medgemma"),
    ("llama-factory", "qwen2.5-vl"),
    ("qwen", "qwen2.5-vl"),
    ("internvl", "internvl"),
    ("paligemma", "paligemma"),
    ("florence-2", "florence-2"),
    ("medgemma", "medgemma"),
]
csv.field_size_limit(10_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("rows") / "med-grit")


def export(folder: Path, out: Path, to: str, dialect: str | None = None, **choice: Any) -> Exported:
    return export_for(open_trainer(to, dialect), folder, out, Choice(**choice))


def lines_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".tsv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t"))
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def rows_of(out: Path, exported: Exported) -> list[dict[str, Any]]:
    return [row for name in exported.rows for row in lines_of(out / name)]


def texts_of(row: dict[str, Any]) -> tuple[str, str]:
    """The question and the answer of a row of any trainer, without the image's mark."""
    if "messages" in row:
        question, answer = (message["content"] for message in row["messages"])
    elif "conversations" in row:
        question, answer = (turn["value"] for turn in row["conversations"])
    elif "prompt" in row:
        question, answer = row["prompt"][0]["content"], row["completion"][0]["content"]
    elif "prefix" in row:
        question, answer = row["prefix"], row["suffix"]
    else:
        question, answer = row["question"], row["answer"]
    return question.removeprefix("<image>").lstrip("\n"), answer


def pictures_of(out: Path, exported: Exported) -> Iterator[tuple[str, Image.Image]]:
    """The picture of every row, by the row's id, from where the trainer looks for it."""
    for name in exported.rows:
        lines = lines_of(out / name)
        for row in lines:
            if name.endswith(".tsv"):
                cell = row["image"] if len(row["image"]) > 64 else lines[int(row["image"])]["image"]
                yield row["id"], Image.open(io.BytesIO(base64.b64decode(cell)))
            else:
                path = row.get("image") or row.get("file_name") or row["images"][0]
                yield row["id"], Image.open((out / name).parent / path)


@pytest.mark.parametrize(("to", "name"), PAIRS)
def test_every_export_reads_back_to_the_boxes_of_its_rows(
    tmp_path: Path, folder: Path, to: str, name: str
) -> None:
    exported = export(folder, tmp_path / "out", to, name)
    dialect = dialects.read_dialect(tmp_path / "out")
    assert dialect == dialects.get(name)
    view = dialect.view(WH)
    rows = rows_of(tmp_path / "out", exported)
    for row in rows:
        answer = dialect.read(texts_of(row)[1], image_wh=WH)
        assert answer.issues == () and len(answer.boxes) == len(BOXES[row["id"]])
        for box, again in zip(BOXES[row["id"]], answer.boxes, strict=True):
            gap = np.abs(np.subtract(view.to_seen(box), view.to_seen(again)))
            assert (gap <= np.array(dialect.quantum(view) * 2) + 1e-9).all()
    left_out = {*BOXES} - {row["id"] for row in rows}
    assert {each for each in left_out if Task(each.split("-")[0]) in TRAINERS[to].tasks} == {
        each
        for each in BOXES
        if Task(each.split("-")[0]) in TRAINERS[to].tasks
        and (
            getattr(dialect.questions, each.split("-")[0]) is None
            or (name == "maira-2" and each == "vg-train-4")
        )
    }


@pytest.mark.parametrize(("to", "name"), SEEN)
def test_the_picture_of_every_row_is_what_the_model_sees(
    tmp_path: Path, folder: Path, to: str, name: str
) -> None:
    exported = export(folder, tmp_path / "out", to, name)
    view = dialects.get(name).view(WH)
    left, top, right, bottom = map(round, view.seen_px)
    stems = {row["id"]: row for row in rows_of(tmp_path / "out", exported)}
    found = dict(pictures_of(tmp_path / "out", exported))
    assert found.keys() == stems.keys()
    for id_, picture in found.items():
        number = 0 if id_ in ("vg-train-0", "vg-train-1") else 1 if id_ in ("vg-train-2", "vg-train-3") else 2
        if view.resized_wh is not None:
            assert picture.size == view.resized_wh
            assert (
                dialects.get(name).view(picture.size).resized_wh == picture.size
            )  # is kept by the same model
            continue
        assert picture.size == (right - left, bottom - top)
        whole = pixels_of(number)[max(top, 0) : bottom, max(left, 0) : right]
        inside = np.asarray(picture)[max(-top, 0) :, max(-left, 0) :][: whole.shape[0], : whole.shape[1]]
        assert np.array_equal(inside, whole)
        if top < 0:
            assert np.asarray(picture)[0, 0].tolist() == list(dialects.get(name).padding_rgb)


@pytest.mark.parametrize(
    ("to", "dialect", "says"),
    [
        ("qwen", None, "[]"),
        ("medgemma", None, "Final Answer: ```json[]```"),
        ("internvl", None, ABSENT),
        ("paligemma", None, ABSENT),
        ("florence-2", None, ABSENT),
        ("ms-swift", None, ABSENT),
        ("llama-factory", "qwen2-vl", ABSENT),
        ("trl", "kosmos-2", ABSENT),
    ],
)
def test_an_absent_object_is_said_in_the_dialects_way(
    tmp_path: Path, folder: Path, to: str, dialect: str | None, says: str
) -> None:
    rows = rows_of(
        tmp_path / "out", export(folder, tmp_path / "out", to, dialect, tasks=[Task.VISUAL_GROUNDING])
    )
    assert {row["id"]: texts_of(row)[1] for row in rows}["vg-train-3"] == says


def test_questions_are_asked_as_the_model_is_asked(tmp_path: Path, folder: Path) -> None:
    rows = rows_of(tmp_path / "out", export(folder, tmp_path / "out", "qwen"))
    asked = {row["id"]: texts_of(row)[0] for row in rows}
    assert asked["vg-train-2"] == (
        "Locate the left kidney and the liver in this image and output the bbox coordinates in JSON format."
    )
    assert asked["roc-train-0"] == "What is this [410, 100, 700, 400]?"


class TestMsSwift:
    def test_its_own_form_has_exact_boxes_in_the_order_of_the_marks(
        self, tmp_path: Path, folder: Path
    ) -> None:
        rows = {
            row["id"]: row for row in rows_of(tmp_path / "out", export(folder, tmp_path / "out", "ms-swift"))
        }
        assert not (tmp_path / "out" / "dialect.json").exists()
        row = rows["vg-train-2"]
        assert [message["content"] for message in row["messages"]] == [
            "<image>Locate the left kidney and the liver.",
            "Here are the <ref-object><bbox> and the <ref-object><bbox>.",
        ]
        assert row["objects"] == {
            "ref": ["left kidney", "liver"],
            "bbox": [list(KIDNEY.xyxy), list(LIVER.xyxy)],
            "bbox_type": "norm1",
        }
        assert texts_of(rows["vg-train-1"])[1] == "Here: <ref-object><bbox><bbox>."
        assert rows["roc-train-0"]["messages"][0]["content"] == "<image>What is <ref-object><bbox>?"
        for each in rows.values():  # the queues are used up
            text = "".join(message["content"] for message in each["messages"])
            assert text.count("<ref-object>") == len(each["objects"]["ref"])
            assert text.count("<bbox>") == len(each["objects"]["bbox"])

    def test_a_box_that_is_empty_in_thousandths_is_left_out(self, tmp_path: Path) -> None:
        thin = Box(0.5001, 0.2, 0.5004, 0.4)
        row = row_of("vg", STEMS[2], ["Where is x?"], [("x", [thin])], {"x": (thin,)})
        write_folder(tmp_path / "in", [row, all_rows()[0]])
        exported = export(tmp_path / "in", tmp_path / "out", "ms-swift")
        assert exported.left_out == {"not_writable": 1} and sum(exported.rows.values()) == 1


def test_a_phrase_that_florence_2_would_read_as_another_is_left_out(tmp_path: Path) -> None:
    rows = [
        row_of("vg", STEMS[2], ["Where is it?"], [(name, [KIDNEY])], {name: (KIDNEY,)})
        for name in ("Läsion", "lesion <5 mm", "lesion")
    ]
    write_folder(tmp_path / "in", rows)
    exported = export(tmp_path / "in", tmp_path / "out", "florence-2")
    assert exported.left_out == {"not_writable": 2}
    assert [texts_of(row)[1].partition("<")[0] for row in rows_of(tmp_path / "out", exported)] == ["lesion"]
    with (tmp_path / "out" / LEFT_OUT).open(encoding="utf-8", newline="") as file:
        reasons = [" ".join(row.values()) for row in csv.DictReader(file)]
    assert len(reasons) == 2 and "the phrase 'Läsion' holds 'ä'" in reasons[0]
    assert "'lesion <5 mm' holds '<', which florence-2's own processor does not read" in reasons[1]


@pytest.mark.parametrize(
    ("to", "dialect", "file", "expected"),
    [
        (
            "ms-swift", None, "dataset_info.json",
            [{"dataset_path": "med_grit_train.jsonl", "dataset_name": "med_grit_train"}],
        ),
        (
            "qwen", None, "data_dict.json",
            {"med_grit_train": {"annotation_path": "OUT/med_grit_train.jsonl", "data_path": "OUT"}},
        ),
        (
            "internvl", None, "meta.json",
            {"med_grit_train": {"root": "OUT", "annotation": "OUT/med_grit_train.jsonl", "data_augment": False,
                                "max_dynamic_patch": 12, "repeat_time": 1, "length": 8}},
        ),
        (
            "llama-factory", "qwen3-vl", "dataset_info.json",
            {"med_grit_train": {"file_name": "med_grit_train.jsonl", "formatting": "sharegpt",
                                "columns": {"messages": "messages", "images": "images"},
                                "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                                         "assistant_tag": "assistant"}}},
        ),
    ],
)  # fmt: skip
def test_the_registration_file_is_the_trainers(
    tmp_path: Path, folder: Path, to: str, dialect: str | None, file: str, expected: Any
) -> None:
    out = tmp_path / "out"
    export(folder, out, to, dialect)
    assert json.loads((out / file).read_text()) == json.loads(json.dumps(expected).replace("OUT", str(out)))


def test_a_table_of_vlmevalkit_has_the_box_of_an_answer_that_has_one(tmp_path: Path, folder: Path) -> None:
    exported = export(folder, tmp_path / "out", "vlmevalkit", "qwen3-vl")
    assert exported.rows.keys() == {f"med_grit_{task}_train.tsv" for task in ("vg", "roc", "rc", "mia")}
    first, second, *_ = lines_of(tmp_path / "out" / "med_grit_vg_train.tsv")
    assert [float(first[f"bbox_{name}"]) for name in ("x1", "y1", "x2", "y2")] == pytest.approx(
        [24, 15, 50, 33]
    )
    assert float(first["bbox_x2_norm"]) == 0.625 and (first["width"], first["height"]) == ("80", "60")
    assert second["bbox_x1"] == "" and second["image"] == "0"  # two boxes; the picture of row 0


def test_a_task_of_lmms_eval_names_its_rows_and_metrics(tmp_path: Path, folder: Path) -> None:
    export(folder, tmp_path / "out", "lmms-eval", "qwen3-vl")
    text = (tmp_path / "out" / "med_grit_vg_train.yaml").read_text()
    task = yaml.safe_load(text.replace("!function ", ""))
    assert (task["dataset_path"], task["test_split"]) == ("json", "train")
    assert (tmp_path / "out" / task["dataset_kwargs"]["data_files"]["train"]).is_file()
    names = [metric["metric"] for metric in task["metric_list"]]
    assert names[:2] == ["recall@0.5_paper", "recall@0.5_strict"] and "ACC@0.5" in names
    assert not (tmp_path / "out" / "med_grit_mia_train.yaml").exists()


def test_load_dataset_opens_the_export_for_trl(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_folder(tmp_path / "in")
    write_folder(tmp_path / "in", [all_rows()[7]], "test")
    out = tmp_path / "out"
    export(tmp_path / "in", out, "trl", "qwen3-vl")
    found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 8, "test": 1}
    row = found["train"][2]
    assert np.array_equal(np.asarray(row["image"]), pixels_of(1))
    assert row["prompt"][0]["role"] == "user" and row["completion"][0]["content"].startswith('[{"bbox_2d"')


class TestLeftOut:
    def test_a_row_that_cannot_be_said_is_left_out_by_name(self, tmp_path: Path, folder: Path) -> None:
        exported = export(folder, tmp_path / "out", "trl", "maira-2")
        assert exported.left_out == {"box_not_visible": 1, "task_not_asked": 3}
        with (tmp_path / "out" / LEFT_OUT).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows[0]["image"] == f"{STEMS[2]}, vg-train-4" and "not wholly inside" in rows[0]["detail"]
        assert all(row["what_to_do"] for row in rows) and len(rows) == 4
        assert not list((tmp_path / "out").glob(".*"))

    @pytest.mark.parametrize(
        ("question", "answer", "reason"),
        [
            (["Where is <image>?"], [("x", [KIDNEY])], "not_writable"),  # the trainer replaces it
            (["Where is x?"], ['"bbox_2d" is ', ("x", [KIDNEY])], "not_writable"),  # the dialect's own mark
            (["Where is x?"], ["[]"], "not_writable"),  # would be read as an absent object
        ],
    )
    def test_text_that_would_be_read_otherwise_is_left_out(
        self, tmp_path: Path, question: list, answer: list, reason: str
    ) -> None:
        row = row_of("vg", STEMS[2], question, answer, {"x": (KIDNEY,)})
        row["objects"][0]["label"] = "<image>" if "<image>" in question[0] else "x"
        write_folder(tmp_path / "in", [row, all_rows()[0]])
        assert export(tmp_path / "in", tmp_path / "out", "qwen").left_out == {reason: 1}

    def test_broken_tags_are_left_out(self, tmp_path: Path) -> None:
        row = all_rows()[0]
        row["messages"][1]["content"] = "<ref>left kidney</ref><box>(1,2),(3</box>"
        write_folder(tmp_path / "in", [row, all_rows()[1]])
        assert export(tmp_path / "in", tmp_path / "out", "qwen").left_out == {"broken_text": 1}

    def test_an_export_of_which_nothing_is_left_is_refused(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "in", [all_rows()[4]])
        with pytest.raises(ValueError, match=r"none of the 1 rows .* box_not_visible 1"):
            export(tmp_path / "in", tmp_path / "out", "trl", "maira-2")
        assert not (tmp_path / "out").exists()


class TestOwnImages:
    @pytest.fixture
    def bare(self, tmp_path: Path) -> Path:
        """A folder whose rows have no pixels, and `own` beside it with the pictures."""
        rows = [row | {"image": None} for row in all_rows()]
        (tmp_path / "own").mkdir()
        for number, stem in enumerate(STEMS):
            Image.fromarray(pixels_of(number)).save(tmp_path / "own" / f"{stem}.png")
        return write_folder(tmp_path / "bare", rows)

    @pytest.mark.parametrize(("link", "to"), [(False, "qwen"), (True, "qwen"), (True, "medgemma")])
    def test_they_are_linked_or_copied(self, tmp_path: Path, bare: Path, link: bool, to: str) -> None:
        out = tmp_path / "out"
        exported = export(bare, out, to, images_dir=tmp_path / "own", link=link)
        assert len(dict(pictures_of(out, exported))) == len(BOXES)
        files = list(out.rglob("*.png"))
        assert len(files) == len(STEMS)
        assert all(
            file.is_symlink() == (link and to == "qwen") for file in files
        )  # a padded picture is a new file

    def test_a_turned_picture_is_written_upright(self, tmp_path: Path, bare: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        stored = np.ascontiguousarray(np.rot90(pixels_of(2)))
        Image.fromarray(stored).save(tmp_path / "own" / f"{STEMS[2]}.png", exif=exif)
        export(bare, tmp_path / "out", "qwen", images_dir=tmp_path / "own", link=True)
        picture = tmp_path / "out" / "images" / f"{STEMS[2]}.png"
        assert not picture.is_symlink() and np.array_equal(np.asarray(Image.open(picture)), pixels_of(2))

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("missing", "must hold every picture"),
            ("size", r"the image has \(8, 8\) pixels, and its row says \(80, 60\)"),
            ("broken", "is not a readable image|cannot be read"),
            ("none", "the row has no pixels; give --images-dir"),
        ],
    )
    def test_pictures_that_do_not_fit_are_refused(
        self, tmp_path: Path, bare: Path, change: str, says: str
    ) -> None:
        file = tmp_path / "own" / f"{STEMS[0]}.png"
        if change == "missing":
            file.unlink()
        elif change == "size":
            Image.fromarray(pixels_of(0, (8, 8))).save(file)
        elif change == "broken":
            file.write_bytes(b"\x89PNG\r\n\x1a\nno")
        own = None if change == "none" else tmp_path / "own"
        with pytest.raises(ValueError, match=says):
            export(bare, tmp_path / "out", "qwen", images_dir=own)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / ".out.making").exists()

    def test_rows_alone_need_no_pictures(self, tmp_path: Path, bare: Path) -> None:
        exported = export(bare, tmp_path / "out", "qwen", images=False)
        assert sum(exported.rows.values()) == len(BOXES) and not (tmp_path / "out" / "images").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"image_id": "../../etc/passwd"}, "train, row 0: image_id .* is not a plain file name"),
        ({"image_wh": [0, 60]}, "is no size of a picture"),
        ({"image_wh": [60, 80]}, "and its row says"),
        ({"messages": [{"role": "user", "content": "?"}]}, "not one question and one answer"),
        (
            {
                "objects": [
                    {"instance_id": "a", "label": "a", "box": [1, 0, 0, 1], "area": 0.1, "present": True}
                ]
            },
            "the box of 'a' is malformed",
        ),
    ],
)
def test_a_row_that_cannot_be_trusted_is_refused(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    write_folder(tmp_path / "in", [all_rows()[0] | changed])
    with pytest.raises(ValueError, match=says):
        export(tmp_path / "in", tmp_path / "out", "qwen")
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    row = all_rows()[0] | {"image": None}
    peaks = []
    for count in (64, 256, 1024):  # the first run imports modules
        write_folder(tmp_path / f"in_{count}", [row] * count)
        tracemalloc.start()
        export(tmp_path / f"in_{count}", tmp_path / f"out_{count}", "trl", "maira-2", images=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1]
