"""Training image i depends only on seed and number, and an interrupted render continues."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bird_hf.atomic_writes import temporary_name
from bird_hf.data.embedded import training_set
from bird_hf.data.embedded.cases import EMBEDDED_CASES, embedded_names
from bird_hf.data.embedded.training_set import TURNS, render_training_set, training_rows, training_style
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import ImageRecord, Modality, Task
from bird_hf.data.teachers.analysis import _ask_presence
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.data.teachers.wordings import is_held_out, unknown_words
from bird_hf.hub.grounding import read

pytestmark = pytest.mark.slow

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


# --- wordings ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records() -> list[ImageRecord]:
    """Records of training images: phantoms of each modality and slices of the training head."""
    images = [draw_phantom(modality, seed, 64) for modality in Modality for seed in range(50)]
    rng = np.random.default_rng(0)
    images += [training_set._sampler("colin27").draw(rng, 96, number, 0.0015) for number in range(100)]
    return [record_of(image, training_set.TRAINING_MIN_AREA) for image in images]


def test_yes_and_no_are_balanced_by_modality_and_label(records):
    style, rates = training_style(), training_style().presence_rates
    counts: Counter[tuple[Modality, str, bool]] = Counter()
    for number, record in enumerate(records):
        for draw in range(10):
            turn = _ask_presence(record, np.random.default_rng([number, draw]), style)
            if found := re.fullmatch(
                r"Yes, the (.+) is visible\.|No, .* no (.+) in this image\.", turn.answer
            ):
                counts[record.info.modality, found[1] or found[2], found[1] is not None] += 1
    for modality in Modality:
        yes, no = (
            sum(count for key, count in counts.items() if key[0] is modality and key[2] is answer)
            for answer in (True, False)
        )
        assert 0.4 <= yes / (yes + no) <= 0.6, modality
        checked = 0
        for label, rate in rates[modality].items():
            yes, no = counts[modality, label, True], counts[modality, label, False]
            # A label that nearly every image shows can only have the answer yes.
            if yes and no and yes + no >= 30 and 0.05 <= rate <= 0.95:
                assert 0.25 <= yes / (yes + no) <= 0.75, (modality, label, yes, no)
                checked += 1
        assert checked >= 2, modality


def test_presence_rates_are_of_the_labels_of_the_data():
    names = embedded_names()
    for modality, rates in training_style().presence_rates.items():
        assert set(rates) <= set(names[modality])
        assert all(0 <= rate <= 1 for rate in rates.values())


def test_turns_are_as_many_and_as_plain_as_training_needs(records):
    style = training_style()
    turns = [
        turn
        for number, record in enumerate(records)
        for turn in write_dialogue(record, np.random.default_rng(number), TURNS, 2, 0, style, 1, 1).turns
    ]
    assert 10 < len(turns) / len(records) < 17
    grounding = [turn for turn in turns if turn.task is Task.VISUAL_GROUNDING]
    assert 0.25 < sum("/plain/" in turn.form for turn in grounding) / len(grounding) < 0.6
    assert not any(is_held_out(turn.form) for turn in turns)
    text = " ".join(f"{turn.question} {turn.answer}" for turn in turns).lower()
    assert not [word for word in unknown_words("held_out") if re.search(rf"\b{word}\b", text)]
    asked = [turn for turn in turns if turn.task is Task.IMAGE_ANALYSIS]
    assert sum(turn.form.startswith("presence/") for turn in asked) > len(asked) / 2


def test_rows_name_the_form_of_each_question():
    (row,) = training_rows(0, SEED_OF_PHANTOMS)
    assert len(row["forms"]) == len(row["messages"]) / 2
    assert all(row["forms"])


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
