"""The tables of a review: bad edits are refused with the file, the line and the remedy."""

from __future__ import annotations

import csv
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_hf.data.build.review_files import LABEL_COLUMNS, read_review, read_table
from bird_hf.data.folder.spreadsheet import escape, unescape, write_table

from .example_builds import decide, published, table


@given(st.text(alphabet="'=+-@\t\ra", max_size=6))
def test_no_cell_is_a_formula_and_every_cell_comes_back(cell):
    assert not escape(cell).startswith(tuple("=+-@\t\r")) and unescape(escape(cell)) == cell


class TestBadEdits:
    @pytest.mark.parametrize(
        ("file", "cells", "says"),
        [
            (
                "labels.csv",
                {"decision": "perhaps"},
                r"labels.csv, line 2: decision 'perhaps' is unknown; use accept",
            ),
            (
                "replies.csv",
                {"decision": "rename"},
                r"replies.csv, line 2: decision 'rename' is unknown; use accept",
            ),
            (
                "labels.csv",
                {"name": "unicorn"},
                r"line 2: the key is not that of 'unicorn' in .*, an unknown label",
            ),
            ("labels.csv", {"decision": "rename"}, r"line 2: a new_name and the decision rename go together"),
            ("labels.csv", {"new_name": "liver"}, r"line 2: a new_name and the decision rename go together"),
            (
                "labels.csv",
                {"decision": "rename", "new_name": "<ref>"},
                r"new_name '<ref>' is not a usable name",
            ),
            (
                "labels.csv",
                {"decision": "rename", "new_name": "class7"},
                r"is not a usable name \(unnamed_class\)",
            ),
            ("replies.csv", {"key": "7"}, r"replies.csv, line 2: the key was changed or occurs twice"),
        ],
    )
    def test_a_bad_edit_is_one_line_and_changes_nothing(self, out, review_source, bird, file, cells, says):
        assert bird("review", out, "--each", 1)[0] == 0
        path = out / "review" / file
        decide(path, lambda line: line == table(path)[0], **cells)
        before, edited = published(out), path.read_bytes()
        for command in (("build", review_source, "--out", out, "--workers", 1), ("review", out)):
            code, said, errors = bird(*command)
            assert (code, said, errors.count("\n")) == (2, "", 1)
            assert re.search(says, errors)
        assert published(out) == before and path.read_bytes() == edited

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a,b\n1,2\n", b"", b'"key'])
    def test_a_file_that_is_no_table_is_refused(self, tmp_path, content):
        (tmp_path / "labels.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"labels\.csv (is not a CSV table|has no column)"):
            read_review(tmp_path)

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_other_spreadsheets_ways_are_understood(self, tmp_path, delimiter):
        line = dict.fromkeys(LABEL_COLUMNS, "") | {"comment": "one, two; three\nfour"}
        write_table(tmp_path / "labels.csv", LABEL_COLUMNS, [line | {"key": "a" * 64}])
        (known,) = table(tmp_path / "labels.csv")
        with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([[*known], [*known.values()], []])
        assert read_table(tmp_path / "labels.csv", LABEL_COLUMNS) == [known]

    def test_a_folder_that_is_no_builds_is_refused(self, tmp_path, bird):
        code, said, errors = bird("review", tmp_path)
        assert (code, said, errors.count("\n")) == (2, "", 1) and "is not the folder of a build" in errors
        assert not [*tmp_path.iterdir()]
