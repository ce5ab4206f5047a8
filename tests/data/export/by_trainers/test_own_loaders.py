"""Other trainers' own loaders, in environments of their own, read an export as bird-hf meant it.

They install gigabytes, so that they run only when asked for: `pytest -m trainers`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bird_hf.data.export.folder import Choice, export_for
from bird_hf.data.export.registry import open_trainer
from bird_hf.data.export.rows import ExportRow, read_row
from bird_hf.data.records import SINGLE_TASKS, Task
from bird_hf.dialects import get
from bird_hf.hub.boxes import Box

from ..example_folder import STEMS, all_rows, pixels_of, write_folder
from .environments import ask, python_of
from .tiny_qwen_vl import write_tiny

pytestmark = pytest.mark.trainers

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
OUT = "for a trainer é漢 50%20 #1"  # spaces, letters beyond ASCII, a percent sign, the mark of ms-swift's samples
DATASETS = ["med_grit_train", "med_grit_test"]
END = "<|im_end|>"
# Named, because pip chooses a torch and a torchaudio of different CUDAs for LLaMA-Factory, and it does not start then.
TORCH = ["torch==2.13.0", "torchvision==0.28.0"]
Tasks = tuple[Path, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def environments(request: pytest.FixtureRequest) -> Path:
    """The folder of the environments: that of the machine, or pytest's cache."""
    given = os.environ.get("BIRD_TRAINER_ENVS")
    return Path(given) if given else request.config.cache.mkdir("trainers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds of rows for training, and one of each task for testing."""
    made = write_folder(tmp_path_factory.mktemp("rows") / "med-grit")
    return write_folder(made, [row for row in all_rows() if row["image_id"] == STEMS[2]], "test")


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, ExportRow]:
    """What bird-hf reads in the rows that were exported, by the id that they have in an export."""
    splits = {"train": all_rows(), "test": [row for row in all_rows() if row["image_id"] == STEMS[2]]}
    found = [
        read_row(row, task, split, number)
        for split, of_split in splits.items()
        for task in SINGLE_TASKS
        for number, row in enumerate(row for row in of_split if row["task"] == task)
    ]
    return {row.id: row for row in found}


def export(
    folder: Path, out: Path, to: str, dialect: str | None = None, **choice: Any
) -> list[dict[str, Any]]:
    """Exports, and returns what the files say, line by line."""
    exported = export_for(open_trainer(to, dialect), folder, out, Choice(**choice))
    assert not exported.left_out
    return [
        json.loads(line) for name in exported.rows for line in (out / name).read_text("ascii").splitlines()
    ]


def picture_of(row: ExportRow) -> dict[str, Any]:
    """The size of a row's picture, and a digest of its pixels."""
    pixels = np.ascontiguousarray(pixels_of(STEMS.index(row.stem)))
    return {"wh": list(row.image_wh), "pixels": hashlib.sha256(pixels.tobytes()).hexdigest()}


def check_loaded(
    found: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]], rows: dict[str, ExportRow]
) -> None:
    """The trainer's loader holds the messages of the lines, in their order, and the pictures of the rows."""
    assert [each["texts"] for each in found] == [
        [message["content"] for message in line["messages"]] for line in lines
    ]
    assert {tuple(each["roles"]) for each in found} == {("user", "assistant")}
    for each, line in zip(found, lines, strict=True):
        assert {name: each[name] for name in ("wh", "pixels")} == picture_of(rows[line["id"]])


def check_encoded(found: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]) -> None:
    """The loss is on the answer and its end; the question is in front of it, behind one picture."""
    for each, line in zip(found, lines, strict=True):
        question, answer = (message["content"] for message in line["messages"])
        assert each["learned"].rstrip("\n") == answer + END
        picture = (
            re.escape("<|vision_start|>") + f"(?:{re.escape('<|image_pad|>')})+" + re.escape("<|vision_end|>")
        )
        asked = re.sub(picture, "<image>", each["all"])
        assert f"<|im_start|>user\n{question}{END}\n<|im_start|>assistant\n{answer}{END}" in asked
        assert asked.count("<image>") == 1


def near(boxes: Sequence[Box], others: Sequence[Box], most: float) -> bool:
    """Whether boxes are the same, but for what writing them has rounded."""
    return len(boxes) == len(others) and all(
        np.abs(np.subtract(box.xyxy, other.xyxy)).max() <= most + 1e-9
        for box, other in zip(boxes, others, strict=True)
    )


@pytest.fixture(scope="module")
def ms_swift(environments: Path) -> Path:
    """The Python of an environment with ms-swift, and what its templates of Qwen's models import."""
    return python_of(environments, "ms-swift", ["ms-swift==4.6.0", "qwen-vl-utils==0.0.14", *TORCH])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of models without weights, by their kind."""
    folder = tmp_path_factory.mktemp("models")
    return {kind: str(write_tiny(folder / kind, kind)) for kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")}


class TestMsSwift:
    def test_its_own_form_becomes_the_boxes_of_the_rows(
        self, tmp_path: Path, folder: Path, rows: dict[str, ExportRow], ms_swift: Path, models: dict[str, str]
    ) -> None:
        out = tmp_path / OUT
        lines = export(folder, out, "ms-swift")
        found = ask(
            ms_swift,
            HERE / "read_ms_swift.py",
            tmp_path / "run",
            out=str(out),
            datasets=DATASETS,
            models=models,
        )
        assert found["version"] == "4.6.0"
        check_loaded(found["rows"], lines, rows)
        for each, line in zip(found["rows"], lines, strict=True):
            boxes = each["objects"].pop("bbox")
            assert np.allclose(
                boxes, line["objects"].pop("bbox"), rtol=0, atol=1e-12
            )  # read as text, as numbers are
            assert each["objects"] == line["objects"]
        for kind in ("qwen2_vl", "qwen3_vl"):
            for each, line in zip(found["encoded"][kind], lines, strict=True):
                row = rows[line["id"]]
                for text, meant in ((each["learned"], row.answer), (each["all"], row.question)):
                    read = get("qwen2-vl").read(text.split("assistant\n")[0], image_wh=row.image_wh)
                    assert (
                        near(read.boxes, meant.boxes, 0.0005) and meant.text in read.text and not read.issues
                    )
                    assert [span.phrase for span in read.spans] == [span.phrase for span in meant.spans]
        for each, line in zip(found["encoded"]["qwen2_5_vl"], lines, strict=True):
            row = rows[line["id"]]
            width, height = (14 * side for side in reversed(each["grid"][0][1:]))
            numbers = [
                [round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height)]
                for x1, y1, x2, y2 in (box.xyxy for box in row.answer.boxes)
            ]
            written = re.findall(
                r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>", each["learned"]
            )
            assert [[int(number) for number in box] for box in written] == numbers

    def test_rows_without_any_box_are_loaded(
        self, tmp_path: Path, folder: Path, rows: dict[str, ExportRow], ms_swift: Path, models: dict[str, str]
    ) -> None:
        out = tmp_path / OUT
        lines = export(folder, out, "ms-swift", tasks=[Task.IMAGE_ANALYSIS])
        one = {"qwen3_vl": models["qwen3_vl"]}
        found = ask(
            ms_swift, HERE / "read_ms_swift.py", tmp_path / "run", out=str(out), datasets=DATASETS, models=one
        )
        check_loaded(found["rows"], lines, rows)
        check_encoded(found["encoded"]["qwen3_vl"], lines)

    def test_the_text_of_a_dialect_is_learned_as_it_is(
        self, tmp_path: Path, folder: Path, rows: dict[str, ExportRow], ms_swift: Path, models: dict[str, str]
    ) -> None:
        out = tmp_path / OUT
        lines = export(folder, out, "ms-swift", "qwen3-vl")
        one = {"qwen3_vl": models["qwen3_vl"]}
        found = ask(
            ms_swift, HERE / "read_ms_swift.py", tmp_path / "run", out=str(out), datasets=DATASETS, models=one
        )
        check_loaded(found["rows"], lines, rows)
        check_encoded(found["encoded"]["qwen3_vl"], lines)
        for each, line in zip(found["encoded"]["qwen3_vl"], lines, strict=True):
            row = rows[line["id"]]
            assert near(
                get("qwen3-vl").read(each["learned"], image_wh=row.image_wh).boxes, row.answer.boxes, 0.0005
            )


@pytest.fixture(scope="module")
def llama_factory(environments: Path) -> Path:
    """The Python of an environment with LLaMA-Factory."""
    return python_of(environments, "llama-factory", ["llamafactory==0.9.5", *TORCH])


class TestLlamaFactory:
    def test_a_batch_holds_the_text_and_the_pictures_of_the_rows(
        self,
        tmp_path: Path,
        folder: Path,
        rows: dict[str, ExportRow],
        llama_factory: Path,
        models: dict[str, str],
    ) -> None:
        out = tmp_path / OUT
        lines = export(folder, out, "llama-factory", "qwen3-vl")
        found = ask(
            llama_factory, HERE / "read_llama_factory.py", tmp_path / "run",
            out=str(out), datasets=DATASETS, model=models["qwen3_vl"], template="qwen3_vl_nothink",
        )  # fmt: skip
        assert found["version"] == "0.9.5"
        check_loaded(found["rows"], lines, rows)
        check_encoded(found["encoded"], lines)
        for each, line in zip(found["encoded"], lines, strict=True):
            row = rows[line["id"]]
            assert near(
                get("qwen3-vl").read(each["learned"], image_wh=row.image_wh).boxes, row.answer.boxes, 0.0005
            )

    def test_a_picture_that_was_resized_for_qwen25_stays_as_it_is(
        self,
        tmp_path: Path,
        folder: Path,
        rows: dict[str, ExportRow],
        llama_factory: Path,
        models: dict[str, str],
    ) -> None:
        """The numbers of this dialect are pixels of the picture that the model sees."""
        out = tmp_path / OUT
        lines = export(folder, out, "llama-factory", "qwen2.5-vl")
        found = ask(
            llama_factory, HERE / "read_llama_factory.py", tmp_path / "run",
            out=str(out), datasets=DATASETS, model=models["qwen2_5_vl"], template="qwen2_vl",
        )  # fmt: skip
        check_encoded(found["encoded"], lines)
        for each, loaded, line in zip(found["encoded"], found["rows"], lines, strict=True):
            row = rows[line["id"]]
            view = get("qwen2.5-vl").view(row.image_wh)
            assert (
                view.resized_wh
                == tuple(loaded["wh"])
                == tuple(14 * side for side in reversed(each["grid"][0][1:]))
            )
            read = get("qwen2.5-vl").read(each["learned"], image_wh=row.image_wh)
            assert near(read.boxes, row.answer.boxes, 1 / min(view.resized_wh))


@pytest.fixture(scope="module")
def lmms_eval(environments: Path) -> Path:
    """The Python of an environment with lmms-eval and bird-hf, which its tasks need.

    It does not evaluate with the newest filelock, of which it uses a private module that is no more.
    """
    return python_of(
        environments, "lmms-eval", ["lmms-eval==0.7.3", "filelock==3.20.0", *TORCH, "--editable", str(ROOT)]
    )


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Tasks:
    """An exported task folder, and the lines of its files."""
    out = tmp_path_factory.mktemp("lmms") / OUT
    return out, export(folder, out, "lmms-eval", "qwen3-vl")


@pytest.fixture(scope="module")
def evaluated(tasks: Tasks, lmms_eval: Path) -> dict[str, Any]:
    """What lmms-eval says of a model that answers every row rightly, and of one that says nothing."""
    out, lines = tasks
    says = {
        "right": {line["id"]: line["answer"] for line in lines},
        "silent": {line["id"]: "" for line in lines},
    }
    names = sorted(path.stem for path in out.glob("*.yaml"))
    return ask(
        lmms_eval, HERE / "read_lmms_eval.py", out.parent / "run", out=str(out), tasks=names, says=says
    )


class TestLmmsEval:
    @pytest.mark.parametrize("kind", ["Told", "ToldByMessages"])  # lmms-eval's two kinds of models
    def test_a_model_is_shown_the_pictures_and_asked_the_questions_of_the_rows(
        self,
        evaluated: dict[str, Any],
        tasks: Tasks,
        rows: dict[str, ExportRow],
        kind: str,
    ) -> None:
        _, lines = tasks
        assert evaluated["version"] == "0.7.3"
        run = evaluated["runs"][f"{kind}, right"]
        seen = {each["id"]: each for each in run["seen"]}
        assert len(run["seen"]) == len(lines) and seen.keys() == {line["id"] for line in lines}
        for line in lines:
            each = seen[line["id"]]
            assert each["text"] == line["question"] and run["targets"][line["id"]] == line["answer"]
            assert {name: each[name] for name in ("wh", "pixels")} == picture_of(rows[line["id"]])
            assert each["settings"]["max_new_tokens"] == 256 and each["settings"]["do_sample"] is False

    @pytest.mark.parametrize("kind", ["Told", "ToldByMessages"])
    @pytest.mark.parametrize(("name", "score", "unreadable"), [("right", 1.0, 0.0), ("silent", 0.0, 1.0)])
    def test_a_perfect_model_has_perfect_scores_and_a_silent_one_none(
        self,
        evaluated: dict[str, Any],
        tasks: Tasks,
        kind: str,
        name: str,
        score: float,
        unreadable: float,
    ) -> None:
        results = evaluated["runs"][f"{kind}, {name}"]["results"]
        assert results.keys() == {path.stem for path in tasks[0].glob("*.yaml")}
        for task, values in results.items():
            scores = {key.split(",")[0]: value for key, value in values.items() if key.endswith(",none")}
            recall = "recall@0.5" if "_vg_" in task else "name_recall"
            names = [f"{recall}_paper", f"{recall}_strict"]
            if "_vg_" in task:
                names += ["IoU", "ACC@0.1", "ACC@0.3", "ACC@0.5", "ACC@0.7", "ACC@0.9", "Center_ACC"]
            # A box in thousandths is the row's box but for half a thousandth a side.
            assert {each: scores[each] for each in names} == {
                each: pytest.approx(score, abs=0.01 if each == "IoU" else 0) for each in names
            }
            assert scores["unreadable_rate"] == unreadable
