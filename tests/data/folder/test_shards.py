"""Shards: their names, their order, their bytes, and files that are not shards."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bird_hf.data.folder import shards
from bird_hf.data.folder.publish import image_cell, rows_of
from bird_hf.data.folder.shards import (
    ShardWriter,
    read_row,
    shard_path,
    shards_of,
    stream_rows,
    write_shard,
    write_shards,
    write_stream,
)
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality, Task, row_features
from bird_hf.data.teachers.templates import write_dialogue


def chat_rows(seeds: range) -> list[shards.Row]:
    rows = []
    for seed in seeds:
        image = draw_phantom(Modality.CT, seed, 64)
        wanted = dict.fromkeys(SINGLE_TASKS, 1)
        dialogue = write_dialogue(record_of(image), np.random.default_rng(seed), wanted, absent=1)
        rows += rows_of(dialogue, image_cell(image))[Task.CHAT]
    return rows


ROWS = chat_rows(range(4))
IDS = [row["image_id"] for row in ROWS]


def ids(paths: list[Path]) -> list[str]:
    return [row["image_id"] for row in stream_rows(paths, ["image_id"])]


# --- writing ------------------------------------------------------------------------------------------------------


def test_shards_share_the_rows_in_order(tmp_path):
    rows = ROWS
    write_shards(rows, tmp_path, "train", 3)
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [f"train-{number:05d}-of-00003.parquet" for number in range(3)]
    read_back = [row["image_id"] for path in paths for row in datasets.Dataset.from_parquet(str(path))]
    assert read_back == [row["image_id"] for row in rows]


def test_there_are_no_more_shards_than_rows(tmp_path):
    write_shards(ROWS[:2], tmp_path, "train", 9)
    assert len(list(tmp_path.iterdir())) == 2


def test_shards_are_named_when_their_number_is_known(tmp_path):
    writer = ShardWriter(tmp_path / "vg", "train")
    writer.write(ROWS[:3])
    writer.write(iter(ROWS[3:]))
    assert (writer.rows, writer.shards) == (4, 2)
    writer.close()
    paths = [shard_path(tmp_path / "vg", "train", number, 2) for number in range(2)]
    assert sorted((tmp_path / "vg").iterdir()) == paths
    assert paths[1].name == "train-00001-of-00002.parquet"
    assert ids(paths) == IDS


def test_every_way_of_writing_gives_the_same_bytes_as_datasets(tmp_path):
    rows = [ROWS[number % 4] for number in range(150)]  # more than two row groups
    table = datasets.Dataset.from_list(rows, features=row_features()).data.table
    pq.write_table(
        table.cast(row_features().arrow_schema), tmp_path / "expected", compression="zstd", row_group_size=64
    )
    write_shard(rows, tmp_path / "one.parquet")
    write_shards(rows, tmp_path / "many", "test", 1)
    assert write_stream(iter(rows), tmp_path / "stream", "test") == 150
    name = shard_path(Path(), "test", 0, 1)
    for path in (tmp_path / "one.parquet", tmp_path / "many" / name, tmp_path / "stream" / name):
        assert path.read_bytes() == (tmp_path / "expected").read_bytes()


def test_a_stream_is_divided_into_shards_and_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_SHARD_GROUPS", 2)
    monkeypatch.setattr(shards, "_GROUP_BYTES", 1)  # every image is larger: a row group each
    assert write_stream(iter([*ROWS, ROWS[0] | {"image": None}]), tmp_path, "train") == 5
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    assert [pq.ParquetFile(path).metadata.num_row_groups for path in paths] == [2, 2, 1]
    assert ids(paths) == [*IDS, IDS[0]]


def test_a_stream_without_rows_writes_no_file(tmp_path):
    assert write_stream(iter([]), tmp_path, "train") == 0
    assert not [*tmp_path.iterdir()]


def test_a_shard_appears_when_it_is_complete(tmp_path):
    def fails():
        yield ROWS[0]
        assert not (tmp_path / "a.parquet").exists()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_shard(fails(), tmp_path / "a.parquet")
    assert not [*tmp_path.iterdir()]


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(ROWS, tmp_path / "data" / "chat", "test", 3)
    write_shards(ROWS[:1], tmp_path / "data" / "chat", "train", 1)
    return tmp_path


def test_shards_are_found_by_split_and_in_order(folder):
    (folder / "data" / "chat" / "notes.parquet").write_bytes(b"not a shard")
    found = shards_of(folder, Task.CHAT)
    assert list(found) == ["train", "test"]
    assert ids(found["test"]) == IDS
    assert shards_of(folder, Task.VISUAL_GROUNDING) == {}


def test_a_missing_shard_or_folder_is_refused(folder):
    shard_path(folder / "data" / "chat", "test", 1, 3).unlink()
    with pytest.raises(
        ValueError, match="chat: files of test are missing or left over; copy the folder again"
    ):
        shards_of(folder, Task.CHAT)
    with pytest.raises(ValueError, match=r"is not a Med-GRIT folder; `bird data sample --out .*` makes one"):
        shards_of(folder / "data", Task.CHAT)


def test_a_row_is_read_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_GROUP_ROWS", 3)  # two row groups
    write_shard(ROWS, tmp_path / "a.parquet")
    for number, row in enumerate(ROWS):
        assert read_row(tmp_path / "a.parquet", number, ["image_id", "image"]) == {
            "image_id": row["image_id"],
            "image": row["image"],
        }
    with pytest.raises(ValueError, match=r"a\.parquet has no such row"):
        read_row(tmp_path / "a.parquet", 4, ["image_id"])


def test_a_file_that_is_not_a_shard_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"a\.parquet is not a complete Parquet file"):
        ids([path])
    for table in ({"text": ["a"]}, {"image_id": [1]}):
        pq.write_table(pa.table(table), path)
        with pytest.raises(ValueError, match=r"is not a Med-GRIT file: it has no column 'image_id'"):
            ids([path])


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"image_id": None}, "image_id"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"objects": [None]}, "objects"),
    ],
)
def test_a_row_that_lacks_a_value_is_refused(tmp_path, fields, missing):
    write_shard([ROWS[0], ROWS[1] | fields], tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"a\.parquet, row 1: {missing} is missing"):
        list(stream_rows([tmp_path / "a.parquet"], [missing]))


def test_pixels_and_slice_may_be_missing(tmp_path):
    write_shard([ROWS[0] | {"image": None, "slice": None}], tmp_path / "a.parquet")
    assert list(stream_rows([tmp_path / "a.parquet"], ["image", "slice"])) == [{"image": None, "slice": None}]
