"""The state of a build: stages, transactions, and what is stored is read back in a fixed order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bird_hf.data.build.record_json import record_from_json, record_to_json
from bird_hf.data.build.state import BuildState, DialogueResult, ReadResult
from bird_hf.data.records import Axis, ImageInfo, ImageRecord, Instance, Modality, Task
from bird_hf.data.sources.base import Candidate, LeftOut
from bird_hf.data.sources.faults import Drop
from bird_hf.hub.boxes import Box


@pytest.fixture
def state(tmp_path: Path) -> Iterator[BuildState]:
    with closing(BuildState(tmp_path / "build.sqlite")) as state:
        yield state


def record(number: int) -> ImageRecord:
    info = ImageInfo(
        f"ct_00--d--case--z_{number:04d}", Modality.CT, "00", "chest", Axis.AXIAL, number, "d", "case", False
    )
    lung = Instance("lung_0", "lung", Box(0.1, 1 / 3, 0.7, 2 / 3), 0.1 + 0.2)
    return ImageRecord(info, (640, 480), (lung, Instance("heart_0", "heart", None, 0.0)), "A caption.")


def listed(count: int) -> list[Candidate]:
    return [Candidate(record(number).info, ("lung",), ["images", number]) for number in range(count)]


def test_a_record_is_read_back_exactly() -> None:
    assert record_from_json(record_to_json(record(7))) == record(7)
    planar = replace(record(7), info=replace(record(7).info, axis=Axis.PLANAR, slice_index=None))
    assert record_from_json(record_to_json(planar)) == planar


def choose_twice(state: BuildState) -> None:
    state.add_chosen("a", 1)
    state.add_chosen("b", 2)


def test_a_stage_runs_once_and_leaves_nothing_if_it_fails(state: BuildState) -> None:
    state.add_chosen("b", 2)
    with pytest.raises(sqlite3.IntegrityError), state.stage("choose"):
        choose_twice(state)
    assert state.count("chosen") == 1 and not state.is_done("choose")
    with state.stage("choose") as todo:
        assert todo
        state.add_chosen("a", 1)
    with state.stage("choose") as todo:
        assert not todo
    assert state.count("chosen") == 2


def test_of_two_images_with_the_same_name_the_first_is_kept(state: BuildState) -> None:
    (first,) = listed(1)
    state.add_listed([first, replace(first, where="other"), LeftOut("bad", Drop.BAD_NAME)], seed=0)
    assert state.candidate(first.info.image_id) == first
    assert state.left_out_counts() == {"bad_name": 1, "duplicate_id": 1}


def test_images_are_read_in_the_order_of_their_volume_whatever_is_written_meanwhile(
    state: BuildState,
) -> None:
    """600 images are three pages of the query."""
    state.add_listed(reversed(listed(600)), seed=0)
    state.pick(1000)
    state.add_reads([ReadResult(record(3).info.image_id, {}, Drop.NO_OBJECTS)])
    slices = []
    for candidate in state.candidates_to_read():
        slices.append(candidate.info.slice_index)
        state.add_reads([ReadResult(candidate.info.image_id, {}, Drop.NO_OBJECTS)])
    assert slices == [number for number in range(600) if number != 3]
    assert state.fault_counts() == {"no_objects": 600}


def test_dialogues_are_counted_and_read_back_with_their_pixels(state: BuildState) -> None:
    state.add_listed(listed(3), seed=0)
    rows = {Task.CHAT: [{"messages": [{}, {}, {}, {}]}], Task.IMAGE_ANALYSIS: []}
    for number in range(3):
        image_id = record(number).info.image_id
        png = b"png" if number else None
        state.add_reads(
            [ReadResult(image_id, {"Lung": 2}, None, record(number), b"\0" * 32, png, rejected=1)]
        )
        state.add_chosen(image_id, 3 - number)
    state.set_splits({"case": "train"})
    ids = [record(number).info.image_id for number in range(3)]
    assert [item.info.image_id for item in state.chosen_records()] == ids[::-1]
    state.add_dialogues([DialogueResult(ids[0], "unknown_id", None), DialogueResult(ids[2], None, rows, 4)])
    assert [item.info.image_id for item in state.chosen_records(without_dialogue=True)] == [ids[1]]
    assert state.refusal_counts() == {"unknown_id": 1} and state.published_count() == 1
    (image,) = state.images_of_split("train")
    assert (image.image_id, image.turns) == (ids[2], 2) and state.images_of_split("test") == []
    assert state.dialogue_of(ids[2]) == ({"chat": rows[Task.CHAT], "mia": []}, b"png")
    assert [*state.published_counts()] == [("ct", "d", "train", 1)]
    assert state.rejected_counts() == {"objects": 1, "turns": 4}
    assert [*state.object_counts()] == [("d", "ct", "Lung", 6)]
    assert (state.with_pixels_count(), state.png(ids[1]), state.png(ids[0])) == (2, b"png", None)
