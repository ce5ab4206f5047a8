"""A Med-GRIT folder is exported as the original files that it was imported from."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("datasets")

from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.masks import record_of
from bird_hf.data.original.exporter import export_original
from bird_hf.data.original.importer import import_original
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality
from bird_hf.data.teachers.templates import write_dialogue

CT = "ct_00--CHAOS--case7--z_0134"


class TestThereAndBack:
    @pytest.mark.parametrize("pixels", [True, False])
    def test_an_export_is_the_json_that_was_imported(
        self, original_files, originals, images, tmp_path, pixels
    ):
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
        assert {path.name: json.loads(path.read_text("utf-8")) for path in written} == original_files
        assert (tmp_path / "back" / "images").exists() == pixels

    def test_pixels_are_the_bytes_of_the_files(self, originals, images, tmp_path):
        import_original([originals], images, tmp_path / "med-grit")
        export_original(tmp_path / "med-grit", tmp_path / "back")
        for path in images.iterdir():
            assert (tmp_path / "back" / "images" / path.name).read_bytes() == path.read_bytes()

    def test_an_export_imported_again_gives_the_rows_it_was_made_of(self, rows_of_folder, tmp_path):
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


class TestRefusals:
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
        with pytest.raises(ValueError, match="is not a Med-GRIT folder"):
            export_original(tmp_path, tmp_path / "back")
        (tmp_path / "data").mkdir()
        with pytest.raises(ValueError, match="nothing to export"):
            export_original(tmp_path, tmp_path / "back")
