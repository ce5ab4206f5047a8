"""A published folder can be loaded with `load_dataset`; it is complete or does not exist."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from bird_hf.data.folder.publish import (
    image_cell,
    open_folder,
    png_bytes,
    publish,
    rows_of,
    write_card,
)
from bird_hf.data.folder.shards import shards_of, stream_rows
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Dialogue, MaskedImage, Modality, Task, row_features
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import read

datasets = pytest.importorskip("datasets")

CARD = "# Phantoms\n\nDrawn, not measured: ü.\n"
WANTED = dict.fromkeys(
    (Task.VISUAL_GROUNDING, Task.REFERRING_CLASSIFICATION, Task.REFERRING_CAPTION, Task.IMAGE_ANALYSIS), 1
)
TASKS = ("vg", "roc", "rc", "mia", "chat")


def drawn(seeds: range) -> list[tuple[MaskedImage, Dialogue]]:
    modalities = [Modality.CT, Modality.FUNDUS]  # one grey, one in colour
    images = [draw_phantom(modalities[seed % 2], seed, 64) for seed in seeds]
    return [
        (image, write_dialogue(record_of(image), np.random.default_rng(seed), WANTED, absent=1))
        for seed, image in zip(seeds, images, strict=True)
    ]


TRAIN, TEST = drawn(range(4)), drawn(range(10, 12))
SPLITS = {
    split: [(dialogue, image_cell(image)) for image, dialogue in pairs]
    for split, pairs in (("train", TRAIN), ("test", TEST))
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "med-grit"
    publish(SPLITS, out, CARD)
    return out


@pytest.fixture(scope="module")
def load(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    cache = str(tmp_path_factory.mktemp("cache"))

    def load_config(config: str | None = None, **options: Any) -> Any:
        return datasets.load_dataset(str(folder), config, cache_dir=cache, **options)

    return load_config


def expected(split: str, task: str) -> list[dict[str, Any]]:
    return [row for dialogue, cell in SPLITS[split] for row in rows_of(dialogue, cell).get(Task(task), [])]


def without_image(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "image"}


class TestLoad:
    @pytest.mark.parametrize("task", TASKS)
    def test_rows_come_back_as_they_were(self, load, task):
        loaded = load(task)
        assert list(loaded) == ["train", "test"]
        for split, rows in loaded.items():
            assert rows.features == row_features()
            assert [without_image(row) for row in rows] == [
                without_image(row) for row in expected(split, task)
            ]

    def test_rows_of_a_folder_without_forms_come_back_too(self, folder, tmp_path):
        """Folders of earlier versions have no such column."""
        import pyarrow.parquet as pq

        old = tmp_path / "old"
        shutil.copytree(folder, old)
        for path in old.rglob("*.parquet"):
            pq.write_table(pq.read_table(path).drop_columns("forms"), path)
        rows = open_folder(old, "chat", "test")
        assert "forms" not in rows.column_names
        assert rows["messages"][:] == [row["messages"] for row in expected("test", "chat")]
        columns = [name for name in rows.column_names if name != "image"]
        assert len(list(stream_rows(shards_of(old, Task.CHAT)["test"], columns))) == len(rows)

    def test_pixels_come_back_as_they_were(self, load):
        for row, (image, _) in zip(load("chat", split="train"), TRAIN, strict=True):
            assert row["image_id"] == image.info.image_id
            assert row["image"].size == tuple(row["image_wh"])
            assert np.array_equal(np.asarray(row["image"]), image.pixels)

    @pytest.mark.parametrize("task", ["vg", "chat"])
    def test_streaming_gives_the_same(self, load, task):
        rows = list(load(task, split="test", streaming=True))
        assert [without_image(row) for row in rows] == [without_image(row) for row in expected("test", task)]
        assert all(row["image"].size == tuple(row["image_wh"]) for row in rows)

    def test_a_config_must_be_chosen_or_is_the_first(self, load):
        assert {row["task"] for row in load(split="test")} == {"vg"}

    def test_every_box_of_the_text_is_one_of_the_rows_objects(self, load):
        for task in TASKS:
            for row in load(task, split="train"):
                own = {Box(*item["box"]).to_thousandths() for item in row["objects"] if item["present"]}
                said = [read(message["content"]) for message in row["messages"]]
                assert not any(text.issues for text in said)
                assert {box.to_thousandths() for text in said for box in text.boxes} <= own
                assert all((item["box"] is not None) == item["present"] for item in row["objects"])


class TestFolder:
    def test_counts_are_those_of_the_rows(self, tmp_path):
        counts = publish(SPLITS, tmp_path / "out", CARD)
        assert counts == {
            task: {split: len(expected(split, task)) for split in ("train", "test")} for task in TASKS
        }
        assert counts["chat"] == {"train": 4, "test": 2}

    def test_the_card_lists_configs_and_keeps_its_body(self, folder):
        _, header, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        configs = yaml.safe_load(header)["configs"]
        assert [config["config_name"] for config in configs] == list(TASKS)
        assert [config.get("default", False) for config in configs] == [True, False, False, False, False]
        assert body.startswith(f"\n{CARD}\n## Rows\n")

    def test_the_card_counts_the_rows_and_explains_every_column(self, folder):
        card = (folder / "README.md").read_text(encoding="utf-8")
        for task in TASKS:
            assert f"| {task} | {len(expected('train', task))} | {len(expected('test', task))} |" in card
        explained = re.findall(r"^\| `(\w+)` \|", card, re.MULTILINE)
        assert explained == list(row_features())

    def test_a_body_with_dollar_signs_is_kept(self, tmp_path):
        write_card(tmp_path, {"vg": {"test": 1234}}, "# It costs $body, not $$5\n")
        card = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert "# It costs $body, not $$5\n" in card
        assert "| config | test |\n| --- | --- |\n| vg | 1,234 |" in card

    def test_the_same_rows_give_the_same_bytes(self, folder, tmp_path):
        again = tmp_path / "elsewhere"
        publish(SPLITS, again, CARD)
        assert files(again) == files(folder)

    def test_a_stale_folder_is_replaced_and_what_others_put_beside_it_stays(self, folder, tmp_path):
        out = tmp_path / "med-grit"
        publish({"validation": SPLITS["test"]}, out, "old")
        (out / "data" / "vg" / "train-00007-of-00009.parquet").write_bytes(b"left over")
        (out / "notes.txt").write_bytes(b"another file")
        (tmp_path / ".med-grit.making" / "data").mkdir(parents=True)  # left by a run that was killed
        (tmp_path / ".med-grit.making" / "data" / "half.parquet").write_bytes(b"half")
        publish(SPLITS, out, CARD)
        assert files(out) == files(folder) | {"notes.txt": b"another file"}
        assert [path.name for path in tmp_path.iterdir()] == ["med-grit"]
        assert {path.name for path in out.iterdir()} == {"README.md", "data", "notes.txt"}

    def test_a_build_that_fails_leaves_the_old_folder_whole(self, tmp_path):
        out = tmp_path / "med-grit"
        publish({"test": SPLITS["test"]}, out, CARD, shards=1)
        before = files(out)

        def breaks() -> Iterator[tuple[Dialogue, dict[str, Any]]]:
            yield SPLITS["train"][0]
            raise OSError("the disk went away")

        with pytest.raises(OSError, match="the disk went away"):
            publish({"test": SPLITS["test"], "train": breaks()}, out, CARD)
        assert files(out) == before

    def test_a_file_is_not_taken_for_a_folder(self, tmp_path):
        (tmp_path / "out").write_text("mine")
        with pytest.raises(ValueError, match="is a file; give the name of a folder"):
            publish({"test": SPLITS["test"][:1]}, tmp_path / "out", CARD)
        assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_was_made_anew_is_not_read_from_the_cache_of_the_old_one(tmp_path):
    """`load_dataset` caches a local folder by its name and its configs, not by its path."""
    cache = str(tmp_path / "cache")
    seen = []
    for parent, pairs in (("one", SPLITS["train"]), ("two", SPLITS["test"])):
        (tmp_path / parent).mkdir()
        publish({"test": pairs}, tmp_path / parent / "med-grit", CARD)
        rows = datasets.load_dataset(str(tmp_path / parent / "med-grit"), "vg", split="test", cache_dir=cache)
        seen.append(set(rows["image_id"]))
    assert seen == [{image.info.image_id for image, _ in pairs} for pairs in (TRAIN, TEST)]


class TestCells:
    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
    def test_a_png_holds_the_pixels_without_loss(self, shape):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(pixels)))), pixels)

    def test_a_cell_is_named_after_its_image(self):
        image, _ = TRAIN[0]
        assert image_cell(image)["path"] == f"{image.info.image_id}.png"

    def test_a_turn_is_a_row_of_its_task_and_all_turns_are_a_chat(self):
        _, dialogue = TRAIN[0]
        rows = rows_of(dialogue, None)
        (chat,) = rows.pop(Task.CHAT)
        assert chat["task"] == "chat"
        assert len(chat["messages"]) == 2 * len(dialogue.turns)
        assert sum(map(len, rows.values())) == len(dialogue.turns)
        assert all(row["task"] == task and len(row["messages"]) == 2 for task in rows for row in rows[task])

    def test_a_single_turn_is_a_chat_too(self):
        _, dialogue = TRAIN[0]
        single = Dialogue(dialogue.record, dialogue.turns[:1], dialogue.teacher)
        assert [row["task"] for row in rows_of(single, None)[Task.CHAT]] == ["chat"]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
