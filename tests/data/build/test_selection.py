"""Choosing images: near-duplicates are dropped, the limit holds, and cases get their splits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bird_hf.data.build.selection import choose
from bird_hf.data.build.state import BuildState, ReadResult
from bird_hf.data.records import Axis, ImageInfo, ImageRecord, Modality
from bird_hf.data.sources.base import Candidate
from bird_hf.data.sources.faults import Drop


def image_hash(number: int) -> bytes:
    return bytes((number * place) % 251 for place in range(1, 33))


def info(number: int) -> ImageInfo:
    name = f"ct_00--d--case{number}--2d_none"
    return ImageInfo(name, Modality.CT, "00", "chest", Axis.PLANAR, None, "d", f"d/case{number}", False)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[BuildState]:
    """Six images of six cases; number 4 looks like number 1, and number 5 is faulty."""
    with closing(BuildState(tmp_path / "build.sqlite")) as state:
        state.add_listed((Candidate(info(number), (), number) for number in range(6)), seed=0)
        state.pick(6)
        for number in range(6):
            fault = Drop.EMPTY_MASK if number == 5 else None
            record = None if fault else ImageRecord(info(number), (8, 8), ())
            looks = None if fault else image_hash(1 if number == 4 else number)
            state.add_reads([ReadResult(info(number).image_id, {}, fault, record, looks)])
        yield state


def test_near_duplicates_are_dropped_and_every_chosen_image_has_a_split(state: BuildState) -> None:
    choose(state, limit=10, seed=0, test_share=0.25)
    placed = [*state.placed_images()]
    names = {image.image_id for image in placed}
    alike = {info(1).image_id, info(4).image_id}
    assert len(placed) == 4 and len(names & alike) == 1
    assert {image.split for image in placed} == {"train", "test"}
    assert state.fault_counts() == {"empty_mask": 1, "near_duplicate": 1}


def test_a_limit_takes_the_first_by_rank(state: BuildState) -> None:
    ranked = [image_id for image_id, _, _ in state.whole_images()]
    choose(state, limit=2, seed=0, test_share=0.5)
    assert [image.image_id for image in state.placed_images()] == ranked[:2]
    assert state.fault_counts() == {"empty_mask": 1}


def test_a_source_without_a_whole_image_is_refused_with_its_faults(state: BuildState) -> None:
    for image_id, _, _ in [*state.whole_images()]:
        state.drop_read(image_id, Drop.BLANK_IMAGE)
    with pytest.raises(ValueError, match=r"no image of the source is whole \(5 blank_image, 1 empty_mask\)"):
        choose(state, limit=10, seed=0, test_share=0.5)
