"""Reviews: a build applies rejected and renamed names and rejected turns, with the same bytes each time."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from bird_hf.data.build.pipeline import build
from bird_hf.data.build.review import Review
from bird_hf.data.build.review_files import read_review
from bird_hf.data.build.review_lines import readable
from bird_hf.data.records import Axis, ImageInfo, MaskedImage, Modality
from bird_hf.data.sources.base import Candidate, LeftOut
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.hub.boxes import Box

from .example_builds import REVIEW_SETTINGS, decide, manifest, published, rows_of, table, turns_of


class TestABuildHonours:
    def test_names_that_were_rejected_or_renamed(self, out, review_source, bird, tmp_path):
        assert bird("review", out)[0] == 0
        labels = out / "review" / "labels.csv"
        bad, *others = [line["name"] for line in table(labels) if line["modality"] == "ct"]
        gone = decide(
            labels, lambda line: line["modality"] == "dermoscopy" or line["name"] == bad, decision="reject"
        )
        decide(labels, lambda line: line["name"] in others, decision="rename", new_name="Odd_Organ_L")
        assert bird("build", review_source, "--out", out, "--workers", 1)[0] == 0
        made = rows_of(out)
        of_ct = [row for row in made if row["modality"] == "ct"]
        assert {item["label"] for row in of_ct for item in row["objects"]} == {"left odd organ"}
        said = " ".join(message["content"] for row in of_ct for message in row["messages"])
        assert not [name for name in (bad, *others) if name in said] and "left odd organ" in said
        found = manifest(out)
        assert found["dropped"]["rejected_in_review"] == 2 and "dermoscopy" not in found["images"]
        assert found["settings"]["review"] == read_review(out / "review").digest is not None
        of_taken = [int(line["objects"]) for line in gone if line["modality"] == "ct"]
        assert found["rejected_in_review"] == {"objects": sum(of_taken), "turns": 0}

        elsewhere = tmp_path / "elsewhere"
        shutil.copytree(out / "review", elsewhere / "review")
        build(review_source, elsewhere, REVIEW_SETTINGS, 2)
        assert published(elsewhere) == published(out)

    def test_a_reply_that_was_rejected_is_never_used(self, out, review_source, bird):
        assert bird("review", out)[0] == 0
        replies = out / "review" / "replies.csv"
        before = turns_of(out)
        (line, *_) = decide(
            replies, lambda line: line == table(replies)[0], decision="reject", comment="wrong"
        )
        build(review_source, out, REVIEW_SETTINGS, 1)
        (lost,) = before - turns_of(out)
        assert (line["image_id"], line["question"], line["answer"]) == (lost[0], *map(readable, lost[1:]))
        assert manifest(out)["rejected_in_review"] == {"objects": 0, "turns": 1}

    def test_an_image_of_rejected_replies_alone_is_left_out_and_counted(self, out, review_source, bird):
        assert bird("review", out, "--each", 100)[0] == 0
        replies = out / "review" / "replies.csv"
        image_id = table(replies)[0]["image_id"]
        decide(replies, lambda line: line["image_id"] == image_id, decision="reject")
        build(review_source, out, REVIEW_SETTINGS, 1)
        assert manifest(out)["refused"] == {"rejected in review": 1}
        assert image_id not in {row["image_id"] for row in rows_of(out)}

    def test_decisions_stay_when_the_review_is_written_again(self, out, review_source, bird):
        assert bird("review", out)[0] == 0
        labels, replies = out / "review" / "labels.csv", out / "review" / "replies.csv"
        renamed = table(labels)[0]["key"]
        decide(
            labels, lambda line: line["key"] == renamed, decision="rename", new_name="thing", comment="=1+1"
        )
        decide(labels, lambda line: line["modality"] == "pet", decision="reject")
        gone = decide(replies, lambda line: line["modality"] == "mr", decision="reject", comment="no")
        build(review_source, out, REVIEW_SETTINGS, 1)
        wanted = table(labels)
        for line in wanted:
            line["comment"] = line["comment"].replace("=", "'=")
        assert bird("review", out)[0] == 0
        assert table(labels) == wanted
        again = {line["key"]: line for line in table(replies)}
        assert all(again[line["key"]] == line for line in gone)
        made = published(out)
        build(review_source, out, REVIEW_SETTINGS, 1)
        assert published(out) == made


INFO = ImageInfo("ct--d--1--2d_none", Modality.CT, "00", "body", Axis.PLANAR, None, "d", "d/1", True)
MASK = np.eye(8, dtype=bool)
BOX = Box(0.1, 0.1, 0.5, 0.5)


class TestRules:
    REVIEW = Review({("d", "a"): "b", ("d", "b"): "b", ("d", "c"): None, ("d", "e"): "f", ("d", "g"): "g"})

    @pytest.mark.parametrize(
        ("present", "absent", "is_present", "is_absent"),
        [
            (["a", "g"], ["e"], ["b", "g"], ["f"]),
            (["a", "b"], [], ["b", "b"], []),  # two names are merged
            (["a"], ["b"], ["b"], []),  # present under one name, so not absent under the other
            (["g"], ["a"], ["g"], []),  # b is not known to be absent
            (["g"], ["a", "b"], ["g"], ["b"]),
            (["g", "c"], ["e"], ["g"], ["f"]),
            (["g"], ["c", "other"], ["g"], ["other"]),  # rejected: not absent either
        ],
    )
    def test_what_is_there_and_what_is_not_go_by_the_names_to_use(
        self, present, absent, is_present, is_absent
    ):
        image = MaskedImage(INFO, MASK, tuple((label, MASK) for label in present), tuple(absent))
        read = self.REVIEW.read(image)
        assert ([label for label, _ in read.masks], [*read.absent]) == (is_present, is_absent)
        boxes = tuple((label, BOX) for label in present)  # the same of a source without masks
        read = self.REVIEW.read(MaskedImage(INFO, MASK, (), tuple(absent), boxes))
        assert ([label for label, _ in read.boxes], [*read.absent]) == (is_present, is_absent)

    def test_an_image_of_rejected_objects_alone_is_left_out(self):
        with pytest.raises(FaultyImageError) as error:
            self.REVIEW.read(MaskedImage(INFO, MASK, (("c", MASK),), ("g",)))
        assert error.value.reason is Drop.REJECTED_IN_REVIEW
        with pytest.raises(FaultyImageError) as error:
            self.REVIEW.read(MaskedImage(INFO, MASK, (), ("g",), (("c", BOX),)))
        assert error.value.reason is Drop.REJECTED_IN_REVIEW
        assert self.REVIEW.listed(Candidate(INFO, ("c",), 0)) == LeftOut(
            INFO.image_id, Drop.REJECTED_IN_REVIEW
        )
        assert self.REVIEW.listed(Candidate(INFO, ("c", "a", "b"), 0)) == Candidate(INFO, ("b",), 0)
        assert self.REVIEW.listed(Candidate(INFO, (), 0)) == Candidate(INFO, (), 0)  # labels come later

    def test_other_datasets_keep_their_names(self):
        image = MaskedImage(replace(INFO, dataset="other"), MASK, (("c", MASK),), ())
        assert self.REVIEW.read(image) == image
