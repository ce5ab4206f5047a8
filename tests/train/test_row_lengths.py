"""What cannot be trained is said before the first step: rows that are too long, and rows without their image."""

from __future__ import annotations

import logging

import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

from bird_hf.train.collate import GroundingCollator
from bird_hf.train.row_lengths import measured_rows

FEATURES = Features(
    image_id=Value("string"),
    image=Image(),
    image_wh=List(Value("int32")),
    independent=Value("bool"),
    messages=List({"role": Value("string"), "content": Value("string")}),
)
RED = Pillow.new("RGB", (40, 20), (200, 30, 30))


def row(name, turns=1, words=1, independent=True, image=RED):
    said = [
        {"role": "user", "content": "Where is the left kidney?"},
        {"role": "assistant", "content": "No tumor is seen." * words},
    ]
    cells = {"image_id": name, "image": image, "image_wh": [40, 20], "independent": independent}
    return cells | {"messages": said * turns}


def dataset_of(*rows) -> Dataset:
    return Dataset.from_list(list(rows), features=FEATURES)


@pytest.fixture(scope="module")
def collator_of(tiny_processor):
    return lambda **fields: GroundingCollator(tiny_processor, **fields)


THREE = (row("short"), row("long", turns=4), row("talk", turns=3, independent=False))
MANY = 80  # tokens: more than `short` has, fewer than `long` and `talk`


def test_lengths_are_those_of_the_collated_rows(collator_of):
    collator, dataset = collator_of(), dataset_of(*THREE, row("words", image=None))
    kept, lengths = measured_rows(dataset, collator)
    assert kept is dataset
    assert lengths.longest(None).tolist() == [len(collator.pack(item).input_ids) for item in dataset]
    assert lengths.pairs(None).tolist() == [1, 4, 3, 1] and lengths.prefixes[3] == 0
    (two,) = (len(collator.pack(dataset[1], turns).input_ids) for turns in [(0, 2)])
    assert lengths.longest(2)[1] == two


def test_the_longest_row_is_named_before_the_first_step(collator_of):
    longest = int(measured_rows(dataset_of(*THREE), collator_of())[1].longest(None)[1])
    measured_rows(dataset_of(*THREE), collator_of(max_length=longest))
    with pytest.raises(
        ValueError, match=f"row long has {longest} tokens and max_length is {MANY}; set too_long"
    ) as error:
        measured_rows(dataset_of(*THREE), collator_of(max_length=MANY))
    assert str(error.value).endswith("It is the longest of 2 of 3 rows that are too long")
    assert "\n" not in str(error.value)


def test_rows_that_are_too_long_are_dropped_with_a_count(collator_of, caplog):
    with caplog.at_level(logging.WARNING):
        kept, lengths = measured_rows(dataset_of(*THREE), collator_of(max_length=MANY, too_long="drop"))
    assert kept["image_id"] == ["short"] and len(lengths) == 1
    assert "2 of 3 rows are left out: they have more than 80 tokens" in caplog.text
    with pytest.raises(ValueError, match="all 3 rows have more than 9 tokens"):
        measured_rows(dataset_of(*THREE), collator_of(max_length=9, too_long="drop"))


def test_rows_that_are_too_long_are_split_between_turns(collator_of):
    collator = collator_of(max_length=MANY, too_long="split")
    kept, _ = measured_rows(dataset_of(*THREE[:2]), collator)
    parts = collator.parts(kept[1])
    assert len(parts) > 1 and all(len(part.input_ids) <= MANY and part.images for part in parts)
    whole = collator_of().pack(kept[1])
    learnt = [label for part in parts for label in part.labels if label != -100]
    assert learnt == [label for label in whole.labels if label != -100]
    assert len(collator([kept[1]])["pixel_values"]) == len(parts)


@pytest.mark.parametrize(
    "item",
    [row("talk", turns=5, independent=False), row("wordy", words=30)],
    ids=["conversation", "one turn"],
)
def test_what_cannot_be_split_is_named(collator_of, item):
    name = item["image_id"]
    with pytest.raises(ValueError, match=f"row {name} has a turn that takes .* set too_long to drop"):
        measured_rows(dataset_of(row("short"), item), collator_of(max_length=MANY, too_long="split"))


def test_max_turns_bounds_the_length(collator_of):
    rows = dataset_of(*THREE[:2])
    with pytest.raises(ValueError, match="max_length"):
        measured_rows(rows, collator_of(max_length=MANY))
    assert len(measured_rows(rows, collator_of(max_length=MANY, max_turns=1))[1]) == 2


def test_rows_without_their_image_are_refused_with_a_count(collator_of):
    dataset = dataset_of(row("a"), row("b", image=None), row("c", image=None))
    with pytest.raises(ValueError, match="2 of 3 rows have no image, the first of them b; set images_dir"):
        measured_rows(dataset, collator_of(needs_image=True))
    assert len(measured_rows(dataset, collator_of())[1]) == 3


def test_images_come_from_the_users_own_copy(collator_of, tmp_path):
    RED.save(tmp_path / "b.png")
    dataset = dataset_of(row("a"), row("b", image=None))
    collator = collator_of(needs_image=True, images_dir=tmp_path)
    _, lengths = measured_rows(dataset, collator)
    assert lengths.prefixes[0] == lengths.prefixes[1]
    assert len(collator([dataset[0], dataset[1]])["pixel_values"]) == 2
    (tmp_path / "b.png").unlink()
    with pytest.raises(
        ValueError, match=r"images_dir lacks the images of 1 of 2 rows, the first of them .*b\.png"
    ):
        measured_rows(dataset, collator)
    with pytest.raises(ValueError, match="is not a folder"):
        measured_rows(dataset, collator_of(images_dir=tmp_path / "none"))


@pytest.mark.parametrize("name", ["../b", "/etc/passwd", "a/b", "..", "a\\b", "c:b", ".hidden", "a\x00b", ""])
def test_no_path_is_taken_from_a_row(collator_of, tmp_path, name):
    (tmp_path / "images").mkdir()
    RED.save(tmp_path / "b.png")
    collator = collator_of(images_dir=tmp_path / "images")
    with pytest.raises(ValueError, match="image_id is not the name of a file"):
        measured_rows(dataset_of(row(name, image=None)), collator)
    with pytest.raises(ValueError, match="image_id is not the name of a file"):
        collator([row(name, image=None)])


def test_an_image_of_another_size_is_refused(collator_of, tmp_path):
    RED.resize((20, 40)).save(tmp_path / "b.png")
    with pytest.raises(
        ValueError, match=r"row b: .*b\.png is \(20, 40\), and the row was made from \(40, 20\)"
    ):
        collator_of(images_dir=tmp_path)([row("b", image=None)])
