"""left_out.csv: its cells, the lines about it, and a remedy for every reason."""

from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from bird_hf.data.folder.left_out import LEFT_OUT, LeftOutRow, left_out_lines, write_left_out
from bird_hf.data.original.format import EntryFault
from bird_hf.data.sources.faults import Drop

ROW = LeftOutRow("p01_a.png", "size_mismatch", "marks of 40x24, picture of 20x12", "Resize it.")


def written(path: Path, *rows: LeftOutRow) -> list[list[str]]:
    write_left_out(rows, path / LEFT_OUT)
    with (path / LEFT_OUT).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("a.png", "a.png"),
        ("a, b.png", "a, b.png"),  # a comma
        ('say "x".png', 'say "x".png'),  # quotation marks
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),  # what a spreadsheet would run
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1+1", "'=1+1"),  # behind a tab
        ("'=1", "''=1"),  # escaped already: once more, so that it can be undone
        ("two\nlines\r\nand more", "two lines and more"),
        ("red\x1b[31m", "red?[31m"),  # a terminal would obey it
        ("\udcff.png", "?.png"),  # a file name that is not UTF-8
        ("肝.png", "肝.png"),
        ("x" * 301, "x" * 297 + "..."),
        ("", ""),
    ],
)
def test_a_cell_is_one_line_and_no_formula(tmp_path: Path, cell: str, expected: str) -> None:
    table = written(tmp_path, ROW._replace(image=cell, detail=cell))
    assert table[0] == ["image", "reason", "detail", "what_to_do"]
    assert table[1] == [expected, "size_mismatch", expected, "Resize it."]


@pytest.mark.parametrize(
    ("count", "last"),
    [(0, None), (1, "see {}"), (3, "see {}"), (4, "1 more, see {}"), (1203, "1,200 more, see {}")],
)
def test_the_first_three_and_the_file_are_named(tmp_path: Path, count: int, last: str | None) -> None:
    written(tmp_path, *[ROW._replace(image=f"-{number}") for number in range(count)])
    lines = left_out_lines(tmp_path / LEFT_OUT, count)
    assert len(lines) == (0 if last is None else min(count, 3) + 1)
    for number, line in enumerate(lines[:-1]):
        assert line == (f"left out: -{number}, size_mismatch (marks of 40x24, picture of 20x12): Resize it.")
    assert lines[-1:] == ([] if last is None else [f"left out: {last.format(tmp_path / LEFT_OUT)}"])


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    def failing() -> Iterator[LeftOutRow]:
        yield ROW
        raise ValueError("the disk is gone")

    before = written(tmp_path, ROW)
    with pytest.raises(ValueError, match="the disk is gone"):
        write_left_out(failing(), tmp_path / LEFT_OUT)
    assert [path.name for path in tmp_path.iterdir()] == [LEFT_OUT]
    with (tmp_path / LEFT_OUT).open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == before


def test_rows_are_not_kept_in_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    write_left_out((ROW for _ in range(20_000)), tmp_path / LEFT_OUT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / LEFT_OUT).stat().st_size > 1_000_000 > peak


@pytest.mark.parametrize("reason", [*Drop, *EntryFault])
def test_every_reason_has_a_remedy_of_one_sentence(reason: Drop | EntryFault) -> None:
    assert 10 < len(reason.remedy) < 120 and "\n" not in reason.remedy


def test_the_page_explains_every_reason() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    missing = [reason for reason in Drop if f"| `{reason}` | {reason.remedy} |" not in page]
    assert not missing, "run docs/make_drops_table.py"
