"""`bird data review`: the lines of its tables, and its page."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bird_hf.data.build.pipeline import build
from bird_hf.data.build.review_lines import readable
from bird_hf.data.records import Modality
from bird_hf.data.teachers.templates import TemplateTeacher

from .example_builds import REVIEW_SETTINGS, decide, manifest, published, rows_of, table, turns_of


class TestTables:
    def test_names_are_listed_with_how_they_were_written_and_counted(self, out, review_source, bird):
        code, said, _ = bird("review", out)
        assert code == 0 and "labels.csv: " in said and "replies.html: " in said
        lines = table(out / "review" / "labels.csv")
        classes = json.loads((review_source / "SAMed2D_v1_class_mapping_id.json").read_text())
        for line in lines:
            assert line["written_as"] in classes[line["dataset"]]
            assert 0 < int(line["images"]) <= 2 and int(line["objects"]) >= int(line["images"])
            assert line["dataset"] == f"phantom_{line['modality']}"
            assert not line["decision"] + line["new_name"] + line["comment"]
        shown = {
            (row["dataset"], item["label"])
            for row in rows_of(out)
            for item in row["objects"]
            if item["present"]
        }
        assert shown <= {(line["dataset"], line["name"]) for line in lines}

    def test_replies_are_a_sample_of_every_modality_and_task(self, out, bird):
        assert bird("review", out, "--each", 1)[0] == 0
        lines = table(out / "review" / "replies.csv")
        strata = [(line["modality"], line["task"]) for line in lines]
        assert len(strata) == len({*strata}) and {modality for modality, _ in strata} == {*Modality}
        known = {(name, readable(asked), readable(said)) for name, asked, said in turns_of(out)}
        assert {(line["image_id"], line["question"], line["answer"]) for line in lines} <= known
        assert any("[across" in line["answer"] for line in lines if line["task"] == "vg")

    def test_the_page_shows_each_reply_on_its_picture_and_runs_nothing(self, out, bird):
        assert bird("review", out, "--each", 1)[0] == 0
        page = (out / "review" / "replies.html").read_text()
        lines = table(out / "review" / "replies.csv")
        assert page.count('src="data:image/jpeg;base64,') == page.count("<figure>") == len(lines)
        assert all(line["key"][:12] in page for line in lines)
        assert "<script" not in page and "default-src 'none'" in page and "<ref>" not in page

    def test_pictures_that_the_build_does_not_hold_come_from_the_source(self, review_source, tmp_path, bird):
        out = tmp_path / "out"
        build(review_source, out, replace(REVIEW_SETTINGS, pixels=False), 1)
        page = out / "review" / "replies.html"
        assert bird("review", out, "--each", 1)[0] == 0 and "<img" not in page.read_text()
        assert bird("review", out, "--each", 1, "--source", review_source)[0] == 0
        assert page.read_text().count("<img") == page.read_text().count("<figure>")

    def test_a_build_that_stopped_before_the_words_has_names_to_review(self, review_source, tmp_path, bird):
        class Mute(TemplateTeacher):
            def dialogues(self, records):
                raise ValueError("no connection")

        with pytest.raises(ValueError, match="no connection"):
            build(review_source, tmp_path, REVIEW_SETTINGS, 1, Mute(0))
        assert bird("review", tmp_path)[0] == 0
        assert table(tmp_path / "review" / "labels.csv") and not table(tmp_path / "review" / "replies.csv")

    def test_a_review_without_a_decision_changes_nothing(self, out, review_source, bird):
        before = published(out)
        assert bird("review", out)[0] == 0
        decide(out / "review" / "labels.csv", lambda line: True, decision="Accept", comment="fine")
        build(review_source, out, REVIEW_SETTINGS, 1)
        assert published(out) == before and manifest(out)["settings"]["review"] is None
