"""Nested subsets of the training split: whole images, the shares of the whole split, and configs to load."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.folder.subsets import (
    SIZES,
    ImageOrder,
    cut,
    name_of,
    read_sizes,
    stratified,
)
from bird_hf.data.phantoms.sa_med2d_folder import write_phantoms
from bird_hf.data.records import Modality

SIZES_HERE = (60, 120, 1000, 10**6)
NAMES = ("60", "120")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subsets")
    write_phantoms(folder / "source", 8, 0, 64)
    for number, path in enumerate(sorted((folder / "source" / "images").glob("ct_*"))):
        if number >= 3:  # an uneven source: fewer CT than others
            path.unlink()
            for mask in (folder / "source" / "masks").glob(f"{path.stem}--*"):
                mask.unlink()
    build(folder / "source", folder / "med-grit", BuildSettings(seed=5, subsets=SIZES_HERE), workers=1)
    return folder / "med-grit"


@pytest.fixture(scope="module")
def load(built: Path, tmp_path_factory: pytest.TempPathFactory):
    cache = str(tmp_path_factory.mktemp("cache"))

    def load_config(config: str, **options: Any) -> Any:
        return datasets.load_dataset(str(built), config, cache_dir=cache, **options)

    return load_config


def turns(rows: Any) -> int:
    return sum(len(messages) // 2 for messages in rows["messages"])


@pytest.mark.slow
def test_each_lies_in_the_next_and_the_test_split_stays_whole(load):
    ids = [load(config, split="train")["image_id"] for config in ("chat_60", "chat_120", "chat")]
    assert ids[0] == ids[1][: len(ids[0])] and ids[1] == ids[2][: len(ids[1])]
    assert 0 < len(ids[0]) < len(ids[1]) < len(ids[2])
    for name in NAMES:
        for task in ("vg", "roc", "rc", "mia", "chat"):
            assert load(f"{task}_{name}", split="test")["messages"] == load(task, split="test")["messages"]


@pytest.mark.slow
def test_turns_are_as_many_as_fit_and_those_of_whole_images(built, load):
    manifest = json.loads((built / "manifest.json").read_text())
    assert list(manifest["subsets"]) == list(NAMES)  # the training split is smaller than the other sizes
    for name in NAMES:
        chat = load(f"chat_{name}", split="train")
        following = load("chat", split="train")[len(chat)]
        assert turns(chat) <= int(name) < turns(chat) + len(following["messages"]) // 2
        about = manifest["subsets"][name]
        assert (about["turns"], about["images"]) == (turns(chat), len(chat))
        singles = {task: load(f"{task}_{name}", split="train") for task in ("vg", "roc", "rc", "mia")}
        assert sum(map(len, singles.values())) == turns(chat)
        assert {image for rows in singles.values() for image in rows["image_id"]} == {*chat["image_id"]}
        assert about["rows"] == {"chat": len(chat)} | {task: len(rows) for task, rows in singles.items()}


def test_modalities_and_datasets_have_the_shares_that_they_have_in_all(load):
    whole = load("chat", split="train")
    strata = Counter(zip(whole["modality"], whole["dataset"], strict=True))
    assert len(strata) == len(Modality) and len({*strata.values()}) > 1
    for name in NAMES:
        part = load(f"chat_{name}", split="train")
        found = Counter(zip(part["modality"], part["dataset"], strict=True))
        for stratum, count in strata.items():
            assert abs(found[stratum] - count * len(part) / len(whole)) <= 1.01


def test_streaming_gives_the_same(load):
    streamed = [row["messages"] for row in load("chat_60", split="train", streaming=True)]
    assert streamed == list(load("chat_60", split="train")["messages"])


def test_every_beginning_has_the_shares_of_the_whole():
    sizes = {"a": 500, "b": 120, "c": 7, "d": 1}
    images = [ImageOrder(f"{name}{i}", name, 4) for name, size in sizes.items() for i in range(size)]
    ordered = stratified(images)
    assert {*ordered} == {*images}
    for name in sizes:
        assert [i for i in ordered if i.stratum == name] == [i for i in images if i.stratum == name]
    seen: Counter[Any] = Counter()
    for count, image in enumerate(ordered, start=1):
        seen[image.stratum] += 1
        assert all(abs(seen[name] - size * count / len(images)) < 1.5 for name, size in sizes.items())


@pytest.mark.parametrize(
    ("turns_of", "sizes", "expected"),
    [
        ([4, 4, 4], (8,), [("8", 2, 8)]),
        ([4, 4, 4], (9, 11), [("9", 2, 8), ("11", 2, 8)]),  # whole images only
        ([4, 4, 4], (12,), [("12", 3, 12)]),  # the whole split
        ([4, 4, 4], (13,), []),  # larger than the split
        ([4, 4, 4], (3,), []),  # smaller than the first image
        ([], (3,), []),
    ],
)
def test_cuts(turns_of, sizes, expected):
    found = cut([ImageOrder(str(i), "s", count) for i, count in enumerate(turns_of)], sizes)
    assert [(subset.name, subset.images, subset.turns) for subset in found] == expected


def test_sizes_are_read_and_named():
    assert read_sizes("20000, 40000,80000") == SIZES and read_sizes("") == ()
    assert [name_of(size) for size in (*SIZES, 1500)] == ["20k", "40k", "80k", "1500"]


@pytest.mark.parametrize("text", ["20k", "2,1", "0,5", "5,5", "1,,2", "-1", "1.5", "9" * 14])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError, match=r"^subsets .* such as 20000,40000,80000$"):
        read_sizes(text)
