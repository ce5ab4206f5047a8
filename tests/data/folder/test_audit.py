"""The audit finds each fault that is put into a row, and finds nothing in clean rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from bird_hf.data.folder.audit import Place, Suspicion, audit_folder, check_objects, check_text

from .audited_rows import chats, item, messages, write, write_dirty

PLACE = Place(Path("chat.parquet"), 0)


def row_with(*objects: dict[str, Any], words: str = "Yes.", **fields: Any) -> dict[str, Any]:
    return {
        "image_id": "ct_1",
        "image_wh": [100, 200],
        "modality": "ct",
        "axis": "axial",
        "case_id": "a",
        "messages": messages(words),
        "objects": list(objects),
    } | fields


LEFT, RIGHT = ("left kidney", 0.1, 0.1, 0.3, 0.3), ("right kidney", 0.6, 0.1, 0.8, 0.3)


class TestObjects:
    @pytest.mark.parametrize(
        ("objects", "found"),
        [
            ([item("liver", 0.1, 0.1, 0.9, 0.9), item("cyst", present=False)], []),
            ([item("body", 0, 0, 1, 0.96)], [Suspicion.COVERS_ALL]),
            ([item("body", 0, 0, 1, 0.94)], []),
            ([item("dot", 0.5, 0.5, 0.52, 0.9)], [Suspicion.TINY]),  # 2 pixels wide
            ([item("dot", 0.5, 0.5, 0.54, 0.513)], [Suspicion.TINY]),  # 2.6 pixels high
            ([item("dot", 0.5, 0.5, 0.54, 0.52)], []),
            (
                [item("cyst", 0.1, 0.1, 0.5, 0.5), item("cyst", 0.1, 0.1, 0.5, 0.49)],
                [Suspicion.TWICE],
            ),
            ([item("cyst", 0.1, 0.1, 0.5, 0.5), item("liver", 0.1, 0.1, 0.5, 0.5)], []),
            ([item("cyst", 0.1, 0.1, 0.5, 0.5), item("cyst", 0.1, 0.1, 0.5, 0.4)], []),
            ([item("box", 0.5, 0.5, 0.4, 0.9)], [Suspicion.BROKEN_BOX]),
            ([item("box", 0.5, 0.5, 0.6)], [Suspicion.BROKEN_BOX]),
            ([item("box", 0.5, float("nan"), 0.6, 0.7)], [Suspicion.BROKEN_BOX]),
            ([item("box", present=True)], [Suspicion.BROKEN_BOX]),
            ([item(*LEFT), item(*RIGHT)], [Suspicion.OTHER_SIDE]),
            ([item("right kidney", *LEFT[1:]), item("left kidney", *RIGHT[1:])], []),
            # Chambers of the heart are not a pair; with two left kidneys there is no pair either.
            ([item("left ventricle", *LEFT[1:]), item("right ventricle", *RIGHT[1:])], []),
            ([item(*LEFT), item("left kidney", 0.1, 0.6, 0.3, 0.8), item(*RIGHT)], []),
        ],
    )
    def test_each_fault_is_found_and_nothing_else(self, objects, found):
        findings = list(check_objects(row_with(*objects), PLACE))
        assert [finding.suspicion for finding in findings] == found

    @pytest.mark.parametrize(
        ("modality", "axis", "count"),
        [("mr", "coronal", 1), ("mr", "sagittal", 0), ("x_ray", "2d", 1), ("ultrasound", "2d", 0)],
    )
    def test_sides_are_asked_where_a_picture_shows_both(self, modality, axis, count):
        row = row_with(item(*LEFT), item(*RIGHT), modality=modality, axis=axis)
        assert len(list(check_objects(row, PLACE))) == count


class TestWords:
    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("The <ref>liver</ref><box>(100,200),(300,400)</box>.", []),
            ("The <ref>liver</ref><box>(100,200),(300,401)</box>.", [Suspicion.FOREIGN_BOX]),
            ("The <ref>liver</ref><box>(100,200),(300</box>.", [Suspicion.BROKEN_TEXT]),
            ("The <ref>liver<box>(1,2),(3,4)</box>", [Suspicion.BROKEN_TEXT, Suspicion.FOREIGN_BOX]),
            ("None.", []),
        ],
    )
    def test_boxes_of_no_object_and_broken_tags_are_found(self, words, found):
        row = row_with(item("liver", 0.1, 0.2, 0.3, 0.4), words=words)
        assert [finding.suspicion for finding in check_text(row, PLACE)] == found


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    return write_dirty(tmp_path / "med-grit")


def test_clean_rows_raise_no_question(tmp_path):
    folder = write(tmp_path / "med-grit", chats(range(3)), chats(range(10, 13)))
    assert list(audit_folder(folder)) == []


def test_splits_are_compared(dirty):
    findings = list(audit_folder(dirty))
    assert Counter(finding.suspicion for finding in findings) == {
        Suspicion.FOREIGN_BOX: 1,
        Suspicion.COVERS_ALL: 1,
        Suspicion.SPLIT_CASE: 1,
        Suspicion.PICTURE: 1,
        Suspicion.SAME_PICTURE: 1,
    }
    (same,) = [finding for finding in findings if finding.suspicion == Suspicion.SAME_PICTURE]
    shards = dirty / "data" / "chat"
    assert same.place == Place(shards / "test-00000-of-00001.parquet", 1)
    assert same.other == Place(shards / "train-00000-of-00001.parquet", 0)


def test_rows_without_pixels_are_audited_all_the_same(tmp_path):
    train, test = ([row | {"image": None} for row in chats(seeds)] for seeds in (range(2), range(2)))
    found = [finding.suspicion for finding in audit_folder(write(tmp_path / "med-grit", train, test))]
    assert found == [Suspicion.SPLIT_CASE] * 2
