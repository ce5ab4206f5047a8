"""Original files become rows; faulty entries and hostile files are refused in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("datasets")

from bird_hf.data.folder.publish import open_folder
from bird_hf.data.original.exporter import export_original
from bird_hf.data.original.importer import import_original
from bird_hf.data.original.json_list import MAX_ENTRY_CHARS

CT = "ct_00--CHAOS--case7--z_0134"
LIVER = "<ref>Liver</ref> is located at the coordinates <box>(100,200),(300,400)</box>."


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

    def test_a_classified_box_is_called_what_the_answer_says(
        self, rows_of_folder, originals, images, tmp_path
    ):
        import_original([originals], images, tmp_path / "med-grit")
        rows = rows_of_folder(tmp_path / "med-grit", ["objects"])["roc", "test"]
        assert [[item["label"] for item in row["objects"]] for row in rows] == [["liver"], ["spleen"]]

    def test_frames_of_a_patient_are_one_case(self, rows_of_folder, originals, images, tmp_path):
        import_original([originals], images, tmp_path / "med-grit")
        rows = rows_of_folder(tmp_path / "med-grit", ["case_id"])["rc", "test"]
        assert rows == [{"case_id": "ACDC/patient001"}]

    def test_the_path_between_img_tags_is_never_opened(
        self, write_original, rows_of_folder, images, tmp_path
    ):
        secret = tmp_path / "secret.png"
        Image.new("L", (64, 64)).save(secret)
        entry = {"id": CT, "conversations": [[f"Picture 1: <img>{secret}</img>\nWhere?", "There."]]}
        path = write_original(json.dumps([entry]))
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
            ("{}", "is not a JSON list"),
            ("", "is not a JSON list"),
            ("[]", "no turns that can be imported"),
            (b"[\xff]", "is not text in UTF-8"),
            ("[1]", r"entry 1: it must be an object"),
            ("[" + entry_with()[1:-1] + ",", r"entry 2: not JSON \(Expecting value\)"),
            ("[" + entry_with()[1:-1], r"after entry 1: 'the end' instead of , or \]"),
            (entry_with() + "x", "text follows the end"),
            ("[" + "[" * 100_000, "entry 1: nested too deeply"),
            ('[{"id": "a", "id": "b"}]', "a key occurs twice"),
            ('[{"id": "' + "x" * (2 * MAX_ENTRY_CHARS) + '"}]', r"entry 1: .*longer than 1,000,000"),
            (entry_with(id=7), "entry 1: it must be an object with a text `id`"),
            (entry_with(id="../../etc/ct_1"), r"entry 1: '../../etc/ct_1' is not a plain file name"),
            (entry_with(id="ct_\u0000"), "not a plain file name"),
            (entry_with(id="liver_1"), "does not begin with a modality"),
            (entry_with(id="ct_" + "肝" * 200), "entry 1: .*File name too long"),
            (entry_with(id="ct_none"), r"entry 1: image .*ct_none.png is missing"),
            (entry_with(id="ct_out"), r"ct_out.png is a link to a file outside"),
            (entry_with(id="ct_broken"), r"ct_broken.png: the image is not a readable image"),
            (entry_with(conversations=[]), "at least one"),
            (entry_with(conversations=[["a", "b", "c"]]), r"turn 1 must be \[question, answer\]"),
            (entry_with(conversations=[{"from": "user"}]), "turn 1 must be"),
            (entry_with(conversations=[["a", "b"], ["c", "<|im_end|>"]]), r"turn 2 holds '<\|im_end\|>'"),
            (entry_with(conversations=[["a <img>x</img> <img>y</img>", "b"]]), "turn 1 holds '<img>'"),
            (entry_with(conversations=[["\ud800", "b"]]), "half a character"),
            (entry_with(more="\ud800"), "half a character"),
            (entry_with(more=0).replace('"more": 0', '"more": NaN'), "NaN is not a JSON number"),
            (entry_with(more=0).replace('"more": 0', '"more": 1e999'), "not JSON compliant"),
        ],
    )
    def test_a_fault_is_one_line_with_file_and_entry_and_nothing_else_is_written(
        self, write_original, images, tmp_path, text, complaint
    ):
        Image.new("L", (64, 64)).save(tmp_path / "outside.png")
        (images / "ct_out.png").symlink_to(tmp_path / "outside.png")
        (images / "ct_broken.png").write_bytes(b"no picture")
        path = write_original(text)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=complaint) as caught:
            import_original([path], images, tmp_path / "med-grit")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        out = tmp_path / "med-grit"
        listed = [out, out / "left_out.csv"] if "left out, " in str(caught.value) else []
        assert sorted({*tmp_path.rglob("*")} - {*before}) == listed

    def test_broken_entries_are_left_out_and_counted_and_the_others_stay(
        self, write_original, images, tmp_path
    ):
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
        write_original(json.dumps([good, *entries, good]))
        write_original(json.dumps(entries), "RO_test.json")
        imported = import_original([tmp_path], images, tmp_path / "med-grit")
        assert imported.rows == {"vg": {"test": 2}, "chat": {"test": 1}}
        assert imported.left_out == {reason: 2 * len(faults) for reason, faults in broken.items()}
        lines = imported.left_out_lines()
        assert len(lines) == len(broken)
        assert lines[0].startswith("left out, malformed_box: 8, first ") and "entry 10: turn 1" in lines[0]
        assert export_original(tmp_path / "med-grit", tmp_path / "back") == {"VG_test.json": 2}

    def test_what_stands_inside_the_result_is_not_overwritten(self, originals, images, tmp_path):
        with pytest.raises(ValueError, match="which is to be written; give another --out"):
            import_original([originals], images, tmp_path)
