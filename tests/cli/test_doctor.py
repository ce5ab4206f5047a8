"""`bird data doctor` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

ROWS = [{"image_wh": [640, 480], "bbox": [0.25, 0.15, 0.625, 0.5 + number / 50]} for number in range(5)]


def test_a_table_and_a_verdict_are_printed(bird):
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    code, out, _ = bird("data", "doctor", "rows.jsonl")
    lines = out.splitlines()
    assert code == 0 and lines[0] == "rows.jsonl: JSON lines, 5 rows"
    assert lines[2] == "bbox: 5 boxes, 5 of pictures of known size, 0 with masks"
    assert "| scale | unit, 0 to 1 | 0 of 5 | numbers | possible | - |" in lines
    thousandths = next(line for line in lines if line.startswith("| scale | thousandths"))
    assert thousandths.endswith("| excluded | line 1: 0.25, 0.15, 0.625, 0.5: not whole numbers |")
    assert "scale: unit, 0 to 1" in lines
    assert any(line.startswith("origin: cannot tell between upper left and lower left. ") for line in lines)


def test_json_is_one_document(bird):
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    code, out, _ = bird("data", "doctor", "rows.jsonl", "--json")
    document = json.loads(out)
    assert code == 0 and (document["kind"], document["rows"]) == ("JSON lines", 5)
    (found,) = document["fields"]
    assert found["decided"] == {"scale": "unit, 0 to 1"}
    assert found["possible"]["origin"] == ["upper left", "lower left"]


def test_a_file_without_boxes_is_refused(bird, assert_refused):
    Path("rows.jsonl").write_text('{"a": 1}\n')
    assert_refused(bird("data", "doctor", "rows.jsonl"), "rows.jsonl has no boxes in 1 rows", "bbox")
