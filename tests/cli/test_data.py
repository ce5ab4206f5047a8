"""`bird data import | export | stats | audit` from the command line: what they print, write and refuse."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("datasets")


ID = "ct_00--CHAOS--case7--z_0134"
ENTRIES = [
    {
        "id": ID,
        "conversations": [
            [
                "Picture 1: <img>x.png</img>\nWhere is the liver?",
                "<ref>Liver</ref>: <box>(0,0),(1000,990)</box>",
            ]
        ],
    }
]


@pytest.fixture
def bird(run_bird, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the console script in this process, in a folder with VG_test.json and images/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "VG_test.json").write_text(json.dumps(ENTRIES))
    (tmp_path / "images").mkdir()
    Image.fromarray(np.eye(64, dtype=np.uint8) * 200).save(tmp_path / "images" / f"{ID}.png")

    return partial(run_bird, "data")


def test_a_file_goes_in_is_looked_at_and_comes_out_again(bird, tmp_path):
    code, out, _ = bird("import", "VG_test.json", "--images", "images")
    assert (code, out) == (0, "vg: 1 test\nchat: 1 test\n")
    assert sorted(path.name for path in Path("med-grit").iterdir()) == [
        "README.md",
        "data",
        "left_out.csv",
        "original",
    ]
    code, out, _ = bird("audit", "med-grit")
    assert code == 0 and "covers_all: 1\n" in out and "tiny: 0\n" in out and out.endswith("audit.html\n")
    assert (tmp_path / "audit.html").is_file()
    pytest.importorskip("matplotlib")
    code, out, _ = bird("stats", "med-grit", "--out", "stats")
    assert code == 0 and len(out.splitlines()) == 4 and all(Path(line).is_file() for line in out.splitlines())
    code, out, _ = bird("export", "med-grit", "--out", "back")
    assert (code, out) == (0, f"{tmp_path / 'back' / 'VG_test.json'}: 1 turns\n")
    assert json.loads((tmp_path / "back" / "VG_test.json").read_text()) == ENTRIES


def test_an_import_says_in_a_line_a_reason_what_it_left_out(bird):
    Path("VG_test.json").write_text(json.dumps([*ENTRIES, ENTRIES[0] | {"id": "ct_none"}]))
    code, out, _ = bird("import", "VG_test.json", "--images", "images")
    lines = out.splitlines()
    assert (code, lines[:2]) == (0, ["vg: 1 test", "chat: 1 test"])
    assert lines[2].startswith("left out, missing_image: 1, first VG_test.json, entry 2: image ")
    assert lines[3].startswith("left out: ct_none, missing_image (VG_test.json, entry 2: image ")
    assert lines[3].endswith(": Put ID.png into the folder of --images.")
    assert lines[4:] == [f"left out: see {Path('med-grit/left_out.csv').resolve()}"]


def test_an_import_of_which_nothing_is_left_writes_the_list_alone(bird):
    broken = [{"id": "=ct_none", "conversations": []}, 7, ENTRIES[0] | {"id": "ct_\udcff"}]
    Path("VG_test.json").write_text(json.dumps(broken))
    code, out, err = bird("import", "VG_test.json", "--images", "images")
    assert (code, out) == (2, "") and "no turns that can be imported" in err
    assert err.splitlines()[-1].endswith(f"all are in {Path('med-grit/left_out.csv').resolve()}")
    assert [path.name for path in Path("med-grit").iterdir()] == ["left_out.csv"]
    with Path("med-grit/left_out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["'=ct_none", "", "ct_\\udcff"]
    assert all(row["what_to_do"] and "VG_test.json, entry" in row["detail"] for row in rows)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--split", "train"], "has no split train; it has test"),
        (["--tasks", "roc"], "has no rows of roc"),
        (["--tasks", "chat"], "takes the tasks vg, roc, rc, mia; got chat"),
    ],
)
def test_what_a_folder_lacks_cannot_be_exported(bird, options, complaint):
    assert bird("import", "VG_test.json", "--images", "images").code == 0
    code, out, err = bird("export", "med-grit", "--to", "qwen", "--out", "for-qwen", *options)
    assert (code, out) == (2, "") and complaint in err and not Path("for-qwen").exists()


def test_a_folder_is_exported_for_a_trainer(bird, tmp_path):
    assert bird("import", "VG_test.json", "--images", "images").code == 0
    code, out, _ = bird(
        "export", "med-grit", "--to", "paligemma", "--split", "test", "--out", "for-paligemma"
    )
    assert (code, out) == (0, f"{tmp_path / 'for-paligemma' / 'med_grit_test.jsonl'}: 1 rows\n")
    row = json.loads((tmp_path / "for-paligemma" / "med_grit_test.jsonl").read_text())
    assert (row["prefix"], row["suffix"]) == ("detect Liver", "<loc0000><loc0000><loc1013><loc1023> Liver")
    assert (tmp_path / "for-paligemma" / row["image"]).is_file()
    options = (
        "--to",
        "trl",
        "--dialect",
        "qwen2.5-vl",
        "--set",
        "max_pixels=3136",
        "--no-images",
        "--out",
        "b",
    )
    assert bird("export", "med-grit", *options).code == 0
    assert json.loads(Path("b/dialect.json").read_text())["settings"]["max_pixels"] == 3136
    code, out, _ = bird("export", "med-grit", "--to", "trl", "--dialect", "maira-2", "--out", "c")
    assert (code, out) == (0, f"{tmp_path / 'c' / 'test' / 'metadata.jsonl'}: 1 rows\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["import", "no.json", "--images", "images"], "no.json: no such file"),
        (["import", "VG_test.json", "--images", "nowhere"], "nowhere is not a folder"),
        (["export", "nowhere", "--out", "back"], "nowhere is not a Med-GRIT folder"),
        (["export", "nowhere", "--to", "coco", "--out", "back"], "nowhere is not a Med-GRIT folder"),
        (["export", "images", "--to", "coco", "--out", "images"], "exists and is not empty"),
        (["export", "nowhere", "--to", "qwen", "--out", "back"], "nowhere is not a Med-GRIT folder"),
        (["export", "images", "--to", "qwen", "--out", "images"], "exists and is not empty"),
        (["export", "x", "--to", "trl", "--out", "back"], "name its way of writing boxes with --dialect"),
        (
            ["export", "x", "--to", "qwen", "--dialect", "shikra", "--out", "b"],
            "takes --dialect qwen3-vl, qwen2.5-vl",
        ),
        (["export", "x", "--to", "trl", "--dialect", "qwen3", "--out", "b"], "the nearest is qwen3-vl"),
        (
            ["export", "x", "--to", "qwen", "--set", "max_pixels=9", "--out", "b"],
            "has no setting 'max_pixels'",
        ),
        (
            ["export", "x", "--to", "ms-swift", "--set", "max_pixels=9", "--out", "b"],
            "give its name with --dialect",
        ),
        (
            ["export", "x", "--to", "coco", "--dialect", "qwen3-vl", "--out", "b"],
            "--to coco has no --dialect",
        ),
        (["export", "x", "--split", "test", "--out", "b"], "--to original has no --split"),
        (
            ["export", "x", "--to", "qwen", "--link", "--out", "b"],
            "--link links to the files of --images-dir",
        ),
        (["export", "x", "--to", "qwen", "--images-dir", "no", "--out", "b"], "no is not a folder"),
        (["export", "x", "--to", "qwen", "--tasks", "vqa", "--out", "b"], "'vqa' is not a valid Task"),
        (["export", "x", "--to", "qwen", "--split", ",", "--out", "b"], "names nothing"),
        (
            ["build", "nowhere", "--teacher", "openai", "--model", "m", "--turns", "9"],
            "--turns is of the teacher templates",
        ),
        (["build", "nowhere", "--modality", "mri"], "'mri' is not a valid Modality; use one of ct, mr"),
        (["stats", "nowhere"], "nowhere is not a Med-GRIT folder"),
        (["audit", "nowhere"], "nowhere is not a Med-GRIT folder"),
        (["audit", "nowhere", "--out", "audit.pdf"], "give a name that ends in .html"),
    ],
)
def test_what_cannot_be_done_ends_in_one_line(bird, tmp_path, arguments, complaint):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = bird(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err and err.startswith("bird: ") and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
