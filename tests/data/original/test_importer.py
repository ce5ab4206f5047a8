"""Original files become rows; faulty entries and hostile files are refused in one line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

pytest.importorskip("datasets")

from bird_hf.data.folder.publish import open_folder
from bird_hf.data.frames import Frame, Orientation
from bird_hf.data.original.exporter import export_original
from bird_hf.data.original.importer import import_original
from bird_hf.data.original.json_list import MAX_ENTRY_CHARS
from bird_hf.data.original.upright_text import upright_text

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


# --- images with an EXIF orientation --------------------------------------------------------------------------

BOX = (100, 200, 300, 450)  # thousandths, of an image of 40 x 20 pixels or of 20 x 20


def photograph(folder: Path, exif: int, wh: tuple[int, int]) -> np.ndarray:
    """Write ID.png with an EXIF orientation; returns the stored pixels."""
    stored = np.random.default_rng(exif).integers(0, 256, (wh[1], wh[0]), dtype=np.uint8)
    header = Image.Exif()
    header[0x0112] = exif
    Image.fromarray(stored).save(folder / f"{CT}.png", exif=header)
    return stored


def upright(array: np.ndarray, exif: int) -> np.ndarray:
    """Stored -> upright, by Pillow's own function."""
    stream, header = io.BytesIO(), Image.Exif()
    header[0x0112] = exif
    Image.fromarray(array).save(stream, "PNG", exif=header)
    return np.asarray(ImageOps.exif_transpose(Image.open(stream)))


def upright_thousandths(exif: int) -> tuple[int, int, int, int]:
    """BOX on the upright image, read from a turned drawing of it of 1000 x 1000 pixels."""
    drawing = np.zeros((1000, 1000), np.uint8)
    x1, y1, x2, y2 = BOX
    drawing[y1:y2, x1:x2] = 1
    rows, columns = np.nonzero(upright(drawing, exif))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


class TestFrames:
    @pytest.mark.parametrize("declared", [None, *Orientation])
    @pytest.mark.parametrize("wh", [(40, 20), (20, 20)], ids=["oblong", "square"])
    @pytest.mark.parametrize("exif", range(1, 9))
    def test_image_size_text_and_boxes_are_in_one_frame(
        self, write_original, rows_of_folder, images, tmp_path, exif, wh, declared
    ):
        stored = photograph(images, exif, wh)
        text = "<ref>Liver</ref><box>({},{}),({},{})</box> of 3 mm (1,2)."
        entry = {"id": CT, "conversations": [["Where is the liver?", text.format(*BOX)]]}
        other = {"id": "ct_plain", "conversations": [["Where?", "There."]]}
        Image.fromarray(stored).save(images / "ct_plain.png")
        path = write_original(json.dumps([entry, other]))
        imported = import_original([path], images, tmp_path / "med-grit", orientation=declared)
        rows = rows_of_folder(tmp_path / "med-grit", ["image_id", "image", "image_wh", "messages", "objects"])
        if exif > 1 and declared is None:
            assert [row["image_id"] for row in rows["vg", "test"]] == ["ct_plain"]
            [line] = imported.left_out_lines()
            assert line.startswith("left out, orientation_unknown: 1, first ")
            assert f"{CT}.png has EXIF orientation {exif}; give --orientation stored or upright" in line
            return
        box = upright_thousandths(exif) if declared is Orientation.STORED else BOX
        for row in (rows["vg", "test"][0], rows["chat", "test"][0]):
            # Read by Pillow alone: no version of `datasets` may turn it once more, or not at all.
            shown = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
            shown = shown if shown.ndim == 2 else shown[..., 0]
            assert np.array_equal(shown, upright(stored, exif))
            assert row["image_wh"] == [shown.shape[1], shown.shape[0]]
            assert row["messages"][1]["content"] == text.format(*box)
            assert row["objects"][0]["box"] == [value / 1000 for value in box]

    def test_an_export_of_turned_boxes_is_imported_without_the_option(
        self, write_original, images, tmp_path, rows_of_folder
    ):
        photograph(images, 6, (40, 20))
        path = write_original(json.dumps([{"id": CT, "conversations": [["Where?", LIVER]]}]))
        import_original([path], images, tmp_path / "first", orientation=Orientation.STORED)
        export_original(tmp_path / "first", tmp_path / "back")
        import_original([tmp_path / "back"], tmp_path / "back" / "images", tmp_path / "second")
        columns = ["image_wh", "messages", "objects"]
        assert rows_of_folder(tmp_path / "first", columns) == rows_of_folder(tmp_path / "second", columns)

    @pytest.mark.parametrize(
        ("text", "turned"),
        [
            ("<box>(0,0),(1000,1000)</box>", "<box>(0,0),(1000,1000)</box>"),
            ("<box>(100,200),(300,450)</box>", "<box>(700,200),(900,450)</box>"),
            ("<box>( 100 , 200 ) ; (300,450)</box>", "<box>(700,200),(900,450)</box>"),
            ("<box>(+100,0200),(300,450)</box>", "<box>(700,200),(900,450)</box>"),
            ("<box>(1,2),(3,4)(5,6),(7,8)</box>", "<box>(997,2),(999,4)(993,6),(995,8)</box>"),
            ("(100,200),(300,450) naïve 肝", "(700,200),(900,450) naïve 肝"),  # a box without tags
            ("(300,200),(100,450)", "(300,200),(100,450)"),  # no box
            ("(1,2),(3,1001)", "(1,2),(3,1001)"),
            ("(-1,2),(3,4)", "(-1,2),(3,4)"),
            ("(1,2) and (3,4)", "(1,2) and (3,4)"),
            ("(1,2),(3," + "9" * 100_000 + ")", "(1,2),(3," + "9" * 100_000 + ")"),
            ("(" * 100_000, "(" * 100_000),
        ],
        ids=lambda text: text[:40],
    )
    def test_boxes_of_a_text_are_mirrored_and_nothing_else(self, text, turned):
        assert upright_text(text, Frame(2, (64, 48))) == turned
