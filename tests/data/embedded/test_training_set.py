"""Training image i depends only on seed and number, and an interrupted render continues."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from bird_hf.atomic_writes import temporary_name
from bird_hf.data.embedded import training_set
from bird_hf.data.embedded.cases import EMBEDDED_CASES
from bird_hf.data.embedded.training_set import render_training_set, training_rows
from bird_hf.hub.grounding import read

datasets = pytest.importorskip("datasets")

PHANTOMS = {"phantom_ct": 0.5, "phantom_fundus": 0.5}
SEED_OF_PHANTOMS = 0  # its images 0 and 1 are an MR and a fundus phantom: no volume has to be loaded
COLIN = 2  # of the same seed: a slice of a volume


@pytest.mark.parametrize("index", [0, 1, COLIN])
def test_image_is_drawn_from_seed_and_number_alone(index):
    first = list(training_rows(index, SEED_OF_PHANTOMS))
    list(training_rows(index + 1, SEED_OF_PHANTOMS))  # an image drawn in between changes nothing
    assert list(training_rows(index, SEED_OF_PHANTOMS)) == first


def test_other_numbers_and_seeds_are_other_images():
    cells = [next(training_rows(*key))["image"]["bytes"] for key in ((0, 0), (1, 0), (COLIN, 0), (COLIN, 1))]
    assert len(set(cells)) == 4


@pytest.mark.parametrize("index", [0, COLIN])
def test_row_is_a_dialogue_with_the_boxes_of_its_objects(index):
    (row,) = training_rows(index, SEED_OF_PHANTOMS)
    assert row["task"] == "chat" and row["independent"]
    image_wh = Image.open(io.BytesIO(row["image"]["bytes"])).size
    assert list(image_wh) == row["image_wh"] and max(image_wh) == training_set.SIDE_PX
    known = {tuple(round(1000 * side) for side in obj["box"]) for obj in row["objects"] if obj["present"]}
    boxes = [box for message in row["messages"] for box in read(message["content"]).boxes]
    assert boxes
    assert all(any(near(box.to_thousandths(), one) for one in known) for box in boxes)


def near(one, other) -> bool:
    """Equal except for the rounding of halves."""
    return all(abs(a - b) <= 1 for a, b in zip(one, other, strict=True))


def test_an_image_about_which_there_is_nothing_to_say_is_drawn_again(monkeypatch):
    drawn = []

    def empty_at_first(index, rng):
        image = draw(index, rng)
        drawn.append(index)
        return image if drawn.count(index) > 1 else replace(image, masks=(), absent=())

    draw = training_set._draw
    monkeypatch.setattr(training_set, "_draw", empty_at_first)
    monkeypatch.setattr(training_set, "_SHARES", PHANTOMS)
    rows = [next(training_rows(index, 0)) for index in range(6)]
    assert all(row["messages"] for row in rows)
    assert 6 < len(drawn) <= 12  # some get a question about the image as a whole


def test_shares_add_up_and_name_only_training_cases():
    assert sum(training_set._SHARES.values()) == pytest.approx(1.0, abs=1e-9)
    volumes = {name for name in training_set._SHARES if not name.startswith("phantom_")}
    assert volumes == {case.name for case in EMBEDDED_CASES if case.split == "train"}


@pytest.mark.parametrize("name", [case.name for case in EMBEDDED_CASES if case.split == "test"])
def test_test_case_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is a test case"):
        training_set._sampler(name)


# --- rendering ------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """Makes shards and phantoms small, and returns the numbers of the images that are drawn in this process."""
    numbers: list[int] = []

    def rows(index, seed):
        numbers.append(index)
        return training_rows(index, seed)

    monkeypatch.setattr(training_set, "IMAGES_PER_SHARD", 2)
    monkeypatch.setattr(training_set, "SIDE_PX", 64)
    monkeypatch.setattr(training_set, "_SHARES", PHANTOMS)
    monkeypatch.setattr(training_set, "training_rows", rows)
    return numbers


def shards_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data" / "chat").iterdir())}


def test_rendered_folder_is_what_load_dataset_takes(drawn, tmp_path):
    render_training_set(tmp_path / "set", 5, seed=0, workers=1)
    assert drawn == [0, 1, 2, 3, 4]
    assert list(shards_of(tmp_path / "set")) == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    loaded = datasets.load_dataset(
        str(tmp_path / "set"), "chat", split="train", cache_dir=str(tmp_path / "c")
    )
    expected = [row for index in range(5) for row in training_rows(index, 0)]
    assert [row["image_id"] for row in loaded] == [row["image_id"] for row in expected]
    assert [row["messages"] for row in loaded] == [row["messages"] for row in expected]


def test_stopped_render_draws_only_what_is_missing(drawn, tmp_path):
    out = tmp_path / "set"
    render_training_set(out, 4, seed=0, workers=1)
    whole = shards_of(out)
    drawn.clear()
    making = tmp_path / ".set.4-0.making"  # its name while it is rendered
    out.rename(making)
    (making / "data" / "chat" / "train-00001-of-00002.parquet").unlink()
    render_training_set(out, 4, seed=0, workers=1)
    assert drawn == [2, 3]
    assert shards_of(out) == whole


def test_half_written_shard_is_drawn_again(drawn, tmp_path):
    out, making = tmp_path / "set", tmp_path / ".set.4-0.making"
    folder = making / "data" / "chat"
    folder.mkdir(parents=True)
    temporary_name(folder / "train-00000-of-00002.parquet").write_bytes(b"half")
    render_training_set(out, 4, seed=0, workers=1)
    assert sorted(drawn) == [0, 1, 2, 3]
    assert len(shards_of(out)) == 2


def test_failure_of_a_worker_is_not_lost(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(training_set, "training_rows", lambda index, seed: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        render_training_set(tmp_path / "set", 4, seed=0, workers=1)
    assert not (tmp_path / "set").exists()


def test_workers_of_their_own_draw_the_same(tmp_path):
    render_training_set(tmp_path / "set", 2, SEED_OF_PHANTOMS, workers=2)
    (name,) = shards_of(tmp_path / "set")
    training_set._render_shard(tmp_path, 1, 2, SEED_OF_PHANTOMS, 0)
    assert (tmp_path / name).read_bytes() == shards_of(tmp_path / "set")[name]
