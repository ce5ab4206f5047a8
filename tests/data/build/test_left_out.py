"""left_out.csv of a build: what it lists, whether the build succeeds or not, and the state of earlier versions."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.build.state import BuildState, ReadResult
from bird_hf.data.sources.base import LeftOut
from bird_hf.data.sources.faults import Drop

from .example_builds import SETTINGS, published, table
from .test_pipeline import ChoosyTeacher, DyingTeacher


def test_a_build_lists_what_it_left_out(source: Path, built: Path) -> None:
    fault, near = sorted(table(built / "left_out.csv"), key=lambda row: row["reason"])
    assert fault["image"].startswith("ct_00--phantom_ct--") and fault["reason"] == "inverted_mask"
    assert fault["what_to_do"] == Drop.INVERTED_MASK.remedy
    assert near["reason"] == "near_duplicate"
    twins = {near["image"], near["detail"].removeprefix("looks like ")}
    assert {name.split("case")[1][:6] for name in twins} == {"000001", "000777"}


def test_images_that_were_not_sampled_are_counted_only(source: Path, tmp_path: Path) -> None:
    manifest = build(source, tmp_path, BuildSettings(limit=16, seed=3), 1)
    assert manifest["dropped"]["not_sampled"] > 0
    assert "not_sampled" not in {row["reason"] for row in table(tmp_path / "left_out.csv")}


def test_what_a_teacher_refuses_is_listed_with_its_reason(review_source: Path, tmp_path: Path) -> None:
    build(review_source, tmp_path, BuildSettings(), 1, ChoosyTeacher(0))
    rows = table(tmp_path / "left_out.csv")
    assert [(row["reason"], row["detail"]) for row in rows] == [("refused_by_teacher", "unknown_id")] * 2


def test_a_build_that_fails_lists_what_it_left_out_before(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no connection"):
        build(source, tmp_path, SETTINGS, 1, DyingTeacher(SETTINGS.seed, lives=2))
    assert len(table(tmp_path / "left_out.csv")) == 2 and not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["build", "check"])
def test_a_refused_source_is_listed_too(bird, review_source: Path, tmp_path: Path, command: str) -> None:
    folder, out = Path(shutil.copytree(review_source, tmp_path / "source")), tmp_path / "out"
    for mask in folder.glob("masks/*"):
        Image.fromarray(np.zeros_like(Image.open(mask))).save(mask)
    code, printed, errors = bird(command, folder, "--out", out, "--workers", "1")
    error = errors.splitlines()[-1]
    assert code == 2 and not printed and error.startswith("bird: no image of the source is whole")
    assert "(16 empty_mask)" in error and f"{out / 'left_out.csv'} says which" in error
    assert [row["reason"] for row in table(out / "left_out.csv")] == ["empty_mask"] * 16
    assert not (out / "check.png").exists() and not (out / ".check").exists()


def test_an_empty_listing_is_listed_too(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "source" / name).mkdir(parents=True)
    (tmp_path / "source" / "images" / "holiday.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"no image that can be used \(1 no_masks\); .*left_out.csv says which"
    ):
        build(tmp_path / "source", tmp_path / "out", BuildSettings(), 1)
    assert [row["reason"] for row in table(tmp_path / "out" / "left_out.csv")] == ["no_masks"]


def test_an_unreadable_file_gives_the_same_line_every_time(review_source: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(review_source, tmp_path / "source"))
    min(copy.glob("masks/*")).write_bytes(b"no mask")
    for name in ("one", "two"):
        build(copy, tmp_path / name, BuildSettings(), 1)
    first, second = (published(tmp_path / name) for name in ("one", "two"))
    assert b"unreadable_mask" in first["left_out.csv"] and first == second
    assert b" at 0x" not in first["left_out.csv"]


def test_details_are_stored_in_any_spelling(tmp_path: Path) -> None:
    with closing(BuildState(tmp_path / "state.sqlite")) as state:
        state.add_listed(
            [LeftOut("b\udcff.png", Drop.SIZE_MISMATCH, "40x24, 20x12"), LeftOut("a", Drop.BAD_NAME)], 0
        )
        state.add_reads(
            [ReadResult("c", {}, Drop.UNREADABLE_MASK, detail="bad file <_io.BytesIO object at 0x7f1>")]
        )
        rows = [(row.image, row.reason, row.detail) for row in state.left_out_rows()]
    assert rows == [
        ("a", "bad_name", ""),
        ("b\\udcff.png", "size_mismatch", "40x24, 20x12"),
        ("c", "unreadable_mask", "bad file"),
    ]


def test_a_build_of_an_earlier_version_goes_on(source: Path, built: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(built, tmp_path / "out"))
    with closing(sqlite3.connect(out / ".build" / "state" / "build.sqlite")) as database:
        database.executescript(
            "ALTER TABLE left_out DROP COLUMN detail; ALTER TABLE reads DROP COLUMN detail;"
            "ALTER TABLE reads DROP COLUMN runs; DELETE FROM stages WHERE name IN ('publish', 'words');"
            "DELETE FROM words WHERE image_id IN (SELECT image_id FROM words LIMIT 9);"
        )
    (out / "left_out.csv").unlink()
    teacher = DyingTeacher(SETTINGS.seed, lives=1000)
    build(source, out, SETTINGS, 1, teacher)
    assert len(teacher.asked) == 9  # the others are not written again
    again, first = published(out), published(built)
    assert again.pop("left_out.csv") and first.pop("left_out.csv") and again == first


def test_new_settings_are_in_key_and_manifest_only_if_they_are_set(built: Path) -> None:
    values = SETTINGS.values()
    assert not {"modality", "masks", "turns"} & {*values}
    assert {*json.loads((built / "manifest.json").read_text())["settings"]} == {*values}
    assert replace(SETTINGS, modality="ct", masks=True, turns=9).values() == values | {
        "modality": "ct",
        "masks": True,
        "turns": 9,
    }
