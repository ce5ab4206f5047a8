"""benchmarks/doctor_speed.py: rows with known boxes, and the table on the page is what it printed."""

import json
import sys
from pathlib import Path

import pytest

from bird_hf.data.doctor.examine import examine

ROOT = Path(__file__).parents[1]


@pytest.fixture
def doctor_speed(load_script):
    return load_script(ROOT / "benchmarks" / "doctor_speed.py")


def test_its_rows_are_read_as_they_were_written(doctor_speed, tmp_path):
    doctor_speed.write_rows(tmp_path / "rows.jsonl", 400)
    plain, text = examine(tmp_path / "rows.jsonl").diagnoses
    assert plain.boxes == text.boxes == plain.sized == text.sized == 400
    assert "pixels of the picture" in plain.possible["scale"]
    assert "thousandths, 0 to 1000" in text.possible["scale"]
    assert text.possible["dialect"] == ["qwen3-vl"]
    for each in (plain, text):
        assert "x1, y1, x2, y2" in each.possible["order"] and "the picture" in each.possible["frame"]


def test_a_trial_measures_each_number_of_rows(doctor_speed, tmp_path, monkeypatch, capsys):
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["doctor_speed.py", "--tiny", "--json", str(report)])
    doctor_speed.main()
    document = json.loads(report.read_text("utf-8"))
    assert [case["rows"] for case in document["cases"]] == [*doctor_speed.TINY]
    assert [case["boxes"] for case in document["cases"]] == [2 * rows for rows in doctor_speed.TINY]
    assert all(case["seconds"] > 0 and case["peak_bytes"] > 10_000_000 for case in document["cases"])
    assert capsys.readouterr().out == doctor_speed.as_markdown(document) + "\n"


def test_the_table_on_the_page_is_what_the_script_printed(doctor_speed):
    document = json.loads((ROOT / "docs" / "doctor_speed.json").read_text("utf-8"))
    assert doctor_speed.as_markdown(document) in (ROOT / "docs" / "doctor.md").read_text("utf-8")
