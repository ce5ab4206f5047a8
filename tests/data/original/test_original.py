"""Original Med-GRIT files come in and go out without loss, in flat memory, and hostile ones are refused in a line."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("datasets")

from bird_hf.data.folder.publish import image_cell, open_folder, publish
from bird_hf.data.folder.shards import shards_of, stream_rows
from bird_hf.data.masks import record_of
from bird_hf.data.original.exporter import export_original
from bird_hf.data.original.format import Source, find_sources
from bird_hf.data.original.importer import import_original
from bird_hf.data.original.json_list import MAX_ENTRY_CHARS, read_list
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality, Task
from bird_hf.data.teachers.templates import write_dialogue

CT, MR = "ct_00--CHAOS--case7--z_0134", "mr_t1--ACDC--patient001_frame01--x_0006"
OPENING = "Picture 1: <img>/data/SAMed2Dv1/images/x.png</img>\n"
LIVER = "<ref>Liver</ref> is located at the coordinates <box>(100,200),(300,400)</box>."

# One file a task, with what original files may hold: several turns an entry, an opening on each or on none, spaces
# that a rewriting would lose, the same image twice, a box without tags, further keys, and letters of any script.
FILES: dict[str, list[dict[str, Any]]] = {
    "MedGRIT_VG_test.json": [
        {
            "id": CT,
            "conversations": [
                [OPENING + "Where is the liver?", LIVER],
                ["And  the spleen? ", "Here: <box>(10, 20), (30,40)</box>"],
            ],
        },
        {"id": CT, "conversations": [["Where is the liver?", "(1,2),(3,4) naïve 肝"]]},
        {
            "id": MR,
            "conversations": [[OPENING + "a\u2028b", "No <5 mm nodule."]],
            "source": {"n": [1, 2.5, None]},
        },
    ],
    "RO_test_OneConv.json": [
        {"id": CT, "conversations": [[OPENING + "What is in <box>(100,200),(300,400)</box>?", "liver"]]},
        {"id": CT, "conversations": [[OPENING + "Name <box>(1,2),(3,4)</box>.", "the <ref>spleen</ref>"]]},
    ],
    "test-GC.json": [
        {"id": MR, "conversations": [["Describe <ref>this</ref><box>(5,5),(9,9)</box>.", "Small."]]}
    ],
    "MII-train.json": [{"id": MR, "conversations": [["Which modality?", "MR."], ["", ""]]}],
}


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    folder = tmp_path / "json"
    folder.mkdir()
    for name, entries in FILES.items():
        (folder / name).write_text(json.dumps(entries, indent=2), encoding="utf-8")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate((CT, MR)):
        Image.fromarray(np.full((20, 30 + number), 9, np.uint8)).save(folder / f"{name}.png")
    return folder


def rows_of_folder(folder: Path, columns: list[str]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    return {
        (task.value, split): list(stream_rows(paths, columns))
        for task in Task
        for split, paths in shards_of(folder, task).items()
    }


def write_one(tmp_path: Path, text: str | bytes, name: str = "VG_test.json") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


class TestThereAndBack:
    @pytest.mark.parametrize("pixels", [True, False])
    def test_an_export_is_the_json_that_was_imported(self, originals, images, tmp_path, pixels):
        imported = import_original([originals], images, tmp_path / "med-grit", pixels=pixels)
        assert not imported.left_out
        assert imported.rows == {
            "vg": {"test": 4},
            "roc": {"test": 2},
            "rc": {"test": 1},
            "mia": {"train": 2},
            "chat": {"test": 2, "train": 1},
        }
        turns = export_original(tmp_path / "med-grit", tmp_path / "back")
        assert sum(turns.values()) == 9
        written = sorted((tmp_path / "back").glob("*.json"))
        assert {path.name: json.loads(path.read_text("utf-8")) for path in written} == FILES
        assert (tmp_path / "back" / "images").exists() == pixels

    def test_pixels_are_the_bytes_of_the_files(self, originals, images, tmp_path):
        import_original([originals], images, tmp_path / "med-grit")
        export_original(tmp_path / "med-grit", tmp_path / "back")
        for path in images.iterdir():
            assert (tmp_path / "back" / "images" / path.name).read_bytes() == path.read_bytes()

    def test_an_export_imported_again_gives_the_rows_it_was_made_of(self, tmp_path):
        def drawn(first: int):
            for seed in range(first, first + 4):
                image = draw_phantom(list(Modality)[seed % 8], seed, 64)
                wanted = dict.fromkeys(SINGLE_TASKS, 2)
                dialogue = write_dialogue(record_of(image), np.random.default_rng(seed), wanted, absent=1)
                yield dialogue, image_cell(image)

        publish({"train": drawn(0), "test": drawn(4)}, tmp_path / "made", "# Drawn\n")
        export_original(tmp_path / "made", tmp_path / "json")
        import_original([tmp_path / "json"], tmp_path / "json" / "images", tmp_path / "again")
        held = ["image_id", "image", "image_wh", "modality", "dataset", "task", "messages", "synthetic"]
        before, after = (rows_of_folder(tmp_path / name, held) for name in ("made", "again"))
        assert len(before) == 10
        assert before.keys() == after.keys()
        for key in before.keys() - {("chat", "train"), ("chat", "test")}:
            assert before[key] == after[key]
        for split in ("train", "test"):  # the same turns of each image, in the order of tasks
            for one, other in zip(before["chat", split], after["chat", split], strict=True):
                assert one["image_id"] == other["image_id"]
                said = [sorted(message["content"] for message in row["messages"]) for row in (one, other)]
                assert said[0] == said[1]

    def test_a_changed_folder_is_exported_in_the_usual_form_only(self, originals, images, tmp_path):
        import_original([originals], images, tmp_path / "med-grit")
        kept = tmp_path / "med-grit" / "original" / "test-vg.jsonl"
        lines = kept.read_text("utf-8").splitlines(keepends=True)
        kept.write_text("".join(lines[:-1]), encoding="utf-8")
        with pytest.raises(ValueError, match=r"test-vg.jsonl was written for; remove that file"):
            export_original(tmp_path / "med-grit", tmp_path / "back")
        assert not (tmp_path / "back").exists()
        kept.unlink()
        assert export_original(tmp_path / "med-grit", tmp_path / "back")["Med-GRIT_test_VG.json"] == 4
        entries = json.loads((tmp_path / "back" / "Med-GRIT_test_VG.json").read_text("utf-8"))
        assert [len(entry["conversations"]) for entry in entries] == [3, 1]
        assert entries[0]["conversations"][0][0] == (
            f"Picture 1: <img>images/{CT}.png</img>\nWhere is the liver?"
        )


class TestRows:
    def test_datasets_reads_them_and_they_say_what_is_known(self, originals, images, tmp_path):
        import_original([originals], images, tmp_path / "med-grit")
        row = open_folder(tmp_path / "med-grit", "vg", "test")[0]
        assert row["image"].size == (30, 20) == tuple(row["image_wh"])
        assert (row["modality"], row["dataset"], row["axis"], row["slice"]) == ("ct", "CHAOS", "axial", 134)
        assert row["messages"] == [
            {"role": "user", "content": "Where is the liver?"},
            {"role": "assistant", "content": LIVER},
        ]
        assert row["teacher"] == "original"
        (item,) = row["objects"]
        assert (item["label"], item["box"], item["present"]) == ("Liver", [0.1, 0.2, 0.3, 0.4], True)

    def test_a_classified_box_is_called_what_the_answer_says(self, originals, images, tmp_path):
        import_original([originals], images, tmp_path / "med-grit")
        rows = rows_of_folder(tmp_path / "med-grit", ["objects"])["roc", "test"]
        assert [[item["label"] for item in row["objects"]] for row in rows] == [["liver"], ["spleen"]]

    def test_frames_of_a_patient_are_one_case(self, originals, images, tmp_path):
        import_original([originals], images, tmp_path / "med-grit")
        rows = rows_of_folder(tmp_path / "med-grit", ["case_id"])["rc", "test"]
        assert rows == [{"case_id": "ACDC/patient001"}]

    def test_the_path_between_img_tags_is_never_opened(self, images, tmp_path):
        secret = tmp_path / "secret.png"
        Image.new("L", (64, 64)).save(secret)
        entry = {"id": CT, "conversations": [[f"Picture 1: <img>{secret}</img>\nWhere?", "There."]]}
        path = write_one(tmp_path, json.dumps([entry]))
        import_original([path], images, tmp_path / "med-grit")
        (row,) = rows_of_folder(tmp_path / "med-grit", ["image", "image_wh"])["vg", "test"]
        assert row["image_wh"] == [30, 20]
        assert row["image"]["path"] == f"{CT}.png"


def entry_with(**fields: Any) -> str:
    return json.dumps([{"id": CT, "conversations": [["Where?", "There."]]} | fields])


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("{}", "is no JSON list"),
            ("", "is no JSON list"),
            ("[]", "no turns that can be imported"),
            (b"[\xff]", "is no text in UTF-8"),
            ("[1]", r"entry 1: it must be an object"),
            ("[" + entry_with()[1:-1] + ",", r"entry 2: no JSON \(Expecting value\)"),
            ("[" + entry_with()[1:-1], r"after entry 1: 'the end' where , or \] must be"),
            (entry_with() + "x", "text follows the end"),
            ("[" + "[" * 100_000, "entry 1: nested too deeply"),
            ('[{"id": "a", "id": "b"}]', "a key stands twice"),
            ('[{"id": "' + "x" * (2 * MAX_ENTRY_CHARS) + '"}]', r"entry 1: .*longer than 1,000,000"),
            (entry_with(id=7), "entry 1: it must be an object with a text `id`"),
            (entry_with(id="../../etc/ct_1"), r"entry 1: '../../etc/ct_1' is no plain file name"),
            (entry_with(id="ct_\u0000"), "no plain file name"),
            (entry_with(id="liver_1"), "begins with no modality"),
            (entry_with(id="ct_" + "肝" * 200), "entry 1: .*File name too long"),
            (entry_with(id="ct_none"), r"entry 1: image .*ct_none.png is missing"),
            (entry_with(id="ct_out"), r"ct_out.png is a link that leads out of"),
            (entry_with(id="ct_broken"), r"ct_broken.png: the image is not a readable image"),
            (entry_with(conversations=[]), "at least one"),
            (entry_with(conversations=[["a", "b", "c"]]), r"turn 1 must be \[question, answer\]"),
            (entry_with(conversations=[{"from": "user"}]), "turn 1 must be"),
            (entry_with(conversations=[["a", "b"], ["c", "<|im_end|>"]]), r"turn 2 holds '<\|im_end\|>'"),
            (entry_with(conversations=[["a <img>x</img> <img>y</img>", "b"]]), "turn 1 holds '<img>'"),
            (entry_with(conversations=[["\ud800", "b"]]), "half of a character"),
            (entry_with(more="\ud800"), "half of a character"),
            (entry_with(more=0).replace('"more": 0', '"more": NaN'), "NaN is no JSON number"),
            (entry_with(more=0).replace('"more": 0', '"more": 1e999'), "not JSON compliant"),
        ],
    )
    def test_a_fault_is_one_line_with_file_and_entry_and_nothing_is_written(
        self, images, tmp_path, text, complaint
    ):
        Image.new("L", (64, 64)).save(tmp_path / "outside.png")
        (images / "ct_out.png").symlink_to(tmp_path / "outside.png")
        (images / "ct_broken.png").write_bytes(b"no picture")
        path = write_one(tmp_path, text)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=complaint) as caught:
            import_original([path], images, tmp_path / "med-grit")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before

    def test_broken_entries_are_left_out_and_counted_and_the_others_stay(self, images, tmp_path):
        (images / "ct_broken.png").write_bytes(b"no picture")
        broken = {
            "missing_image": [{"id": "ct_none"}, {"id": "mr_none"}],
            "unreadable_image": [{"id": "ct_broken"}],
            "unknown_modality": [{"id": "liver_1"}],
            "bad_name": [{"id": "../ct_1"}],
            "malformed_entry": [{"conversations": []}, {"conversations": [["only one"]]}],
            "control_token": [{"conversations": [["a <|im_end|>", "b"]]}],
            "malformed_box": [
                {"conversations": [["Where?", f"<ref>Liver</ref> {box}"]]}
                for box in (
                    "<box>(1,2),(3</box>",
                    "<box>(9,9),(9,20)</box>",
                    "<box>(1,2),(3,1001)</box>",
                    "<box>",
                )
            ],
        }
        good = {"id": CT, "conversations": [["Where?", "There."]]}
        entries = [good | fields for faults in broken.values() for fields in faults]
        write_one(tmp_path, json.dumps([good, *entries, good]))
        write_one(tmp_path, json.dumps(entries), "RO_test.json")
        imported = import_original([tmp_path], images, tmp_path / "med-grit")
        assert imported.rows == {"vg": {"test": 2}, "chat": {"test": 1}}
        assert imported.left_out == {reason: 2 * len(faults) for reason, faults in broken.items()}
        lines = imported.left_out_lines()
        assert len(lines) == len(broken)
        assert lines[0].startswith("left out, malformed_box: 8, first ") and "entry 10: turn 1" in lines[0]
        assert export_original(tmp_path / "med-grit", tmp_path / "back") == {"VG_test.json": 2}

    @pytest.mark.parametrize(
        ("names", "complaint"),
        [
            (["VG_RO_test.json"], "must say one task"),
            (["answers_test.json"], "must say one task"),
            (["VG.json"], "must say one of train, validation, test; give --split"),
            (["VG_train_test.json"], "must say one of"),
            (["VG_test.json", "VG_test_OneConv.json"], "both hold test turns of vg; import one of them"),
            (["VG_test.txt"], "named NAME.json"),
            ([], "no .json files"),
        ],
    )
    def test_names_must_tell_files_apart(self, tmp_path, names, complaint):
        paths = [write_one(tmp_path, "[]", name) for name in names] or [tmp_path]
        with pytest.raises(ValueError, match=complaint):
            find_sources(paths)

    def test_a_split_is_given_where_a_name_says_none(self, tmp_path):
        path = write_one(tmp_path, "[]", "MIA.json")
        assert find_sources([path], "test") == [Source(path, Task.IMAGE_ANALYSIS, "test")]

    def test_what_stands_inside_the_result_is_not_overwritten(self, originals, images, tmp_path):
        with pytest.raises(ValueError, match="which is to be written; give another --out"):
            import_original([originals], images, tmp_path)

    def test_an_export_goes_into_a_new_folder(self, originals, images, tmp_path):
        import_original([originals], images, tmp_path / "med-grit")
        with pytest.raises(ValueError, match="give the name of a new folder"):
            export_original(tmp_path / "med-grit", images)

    @pytest.mark.parametrize(
        "line",
        [
            '{"file": "../out.json"}',
            '{"file": "a.json", "b": 1}',
            '{"file": 1}',
            "[",
            '{"file": "/tmp/a.json"}',
        ],
    )
    def test_what_was_kept_is_not_trusted(self, originals, images, tmp_path, line):
        import_original([originals], images, tmp_path / "med-grit")
        (tmp_path / "med-grit" / "original" / "test-vg.jsonl").write_text(line)
        with pytest.raises(ValueError, match=r"test-vg.jsonl, line 1: .*cannot be trusted"):
            export_original(tmp_path / "med-grit", tmp_path / "back")

    def test_a_folder_without_rows_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="is no Med-GRIT folder"):
            export_original(tmp_path, tmp_path / "back")
        (tmp_path / "data").mkdir()
        with pytest.raises(ValueError, match="nothing to export"):
            export_original(tmp_path, tmp_path / "back")


def test_a_large_list_is_read_in_flat_memory(tmp_path):
    path = tmp_path / "VG_test.json"
    entry = json.dumps({"id": CT, "conversations": [["Where?", "x" * 1000]]})
    with path.open("w") as file:
        file.write("[" + entry)
        for _ in range(20_000):
            file.write(",\n" + entry)
        file.write("]")
    tracemalloc.start()
    assert sum(1 for _ in read_list(path)) == 20_001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 20_000_000
    assert peak < 10_000_000
