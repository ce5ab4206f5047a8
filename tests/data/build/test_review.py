"""`bird data review`: people reject and rename, and the next build does as they say, the same bytes each time."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("datasets")

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.build.review import Review
from bird_hf.data.build.review_files import (
    LABEL_COLUMNS,
    escape,
    read_review,
    read_table,
    unescape,
    write_table,
)
from bird_hf.data.build.review_lines import readable
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.phantoms.sa_med2d_folder import write_phantoms
from bird_hf.data.records import Axis, ImageInfo, MaskedImage, Modality, Task
from bird_hf.data.sources.base import Candidate, LeftOut
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.teachers.templates import TemplateTeacher

Table = list[dict[str, str]]
SETTINGS = BuildSettings(seed=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "source"
    write_phantoms(folder, 2, 0, 64)
    return folder


@pytest.fixture(scope="module")
def first(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build that nobody has reviewed; tests copy it."""
    out = tmp_path_factory.mktemp("first") / "out"
    build(source, out, SETTINGS, 1)
    return out


@pytest.fixture
def out(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "out"))


@pytest.fixture
def bird(run_bird: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    return partial(run_bird, "data")


def table(path: Path) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def decide(path: Path, wanted: Callable[[dict[str, str]], bool], **cells: str) -> Table:
    """Fill in the lines that are wanted, as a person does; returns them."""
    lines = table(path)
    chosen = [line for line in lines if wanted(line)]
    assert chosen
    for line in chosen:
        line.update(cells)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return chosen


def published(out: Path) -> dict[str, bytes]:
    paths = (path for path in out.rglob("*") if path.is_file() and not {".build", "review"} & {*path.parts})
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def rows(out: Path) -> list[dict]:
    return [
        row for split in ("train", "test") for row in open_folder(out, "chat", split).remove_columns("image")
    ]


def words(out: Path) -> set[tuple[str, str, str]]:
    """(image, question, answer) of every turn."""
    return {
        (row["image_id"], *(message["content"] for message in row["messages"]))
        for task, splits in manifest(out)["rows"].items()
        if task != Task.CHAT
        for split in splits
        for row in open_folder(out, task, split).remove_columns("image")
    }


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


class TestTables:
    def test_names_are_listed_with_how_they_were_written_and_counted(self, out, source, bird):
        code, said, _ = bird("review", out)
        assert code == 0 and "labels.csv: " in said and "replies.html: " in said
        lines = table(out / "review" / "labels.csv")
        classes = json.loads((source / "SAMed2D_v1_class_mapping_id.json").read_text())
        for line in lines:
            assert line["written_as"] in classes[line["dataset"]]
            assert 0 < int(line["images"]) <= 2 and int(line["objects"]) >= int(line["images"])
            assert line["dataset"] == f"phantom_{line['modality']}"
            assert not line["decision"] + line["new_name"] + line["comment"]
        shown = {
            (row["dataset"], item["label"]) for row in rows(out) for item in row["objects"] if item["present"]
        }
        assert shown <= {(line["dataset"], line["name"]) for line in lines}

    def test_replies_are_a_sample_of_every_modality_and_task(self, out, bird):
        assert bird("review", out, "--each", 1)[0] == 0
        lines = table(out / "review" / "replies.csv")
        strata = [(line["modality"], line["task"]) for line in lines]
        assert len(strata) == len({*strata}) and {modality for modality, _ in strata} == {*Modality}
        known = {(name, readable(asked), readable(said)) for name, asked, said in words(out)}
        assert {(line["image_id"], line["question"], line["answer"]) for line in lines} <= known
        assert any("[across" in line["answer"] for line in lines if line["task"] == "vg")

    def test_the_page_shows_each_reply_on_its_picture_and_runs_nothing(self, out, bird):
        assert bird("review", out, "--each", 1)[0] == 0
        page = (out / "review" / "replies.html").read_text()
        lines = table(out / "review" / "replies.csv")
        assert page.count('src="data:image/jpeg;base64,') == page.count("<figure>") == len(lines)
        assert all(line["key"][:12] in page for line in lines)
        assert "<script" not in page and "default-src 'none'" in page and "<ref>" not in page

    def test_pictures_that_the_build_does_not_hold_come_from_the_source(self, source, tmp_path, bird):
        out = tmp_path / "out"
        build(source, out, replace(SETTINGS, pixels=False), 1)
        page = out / "review" / "replies.html"
        assert bird("review", out, "--each", 1)[0] == 0 and "<img" not in page.read_text()
        assert bird("review", out, "--each", 1, "--source", source)[0] == 0
        assert page.read_text().count("<img") == page.read_text().count("<figure>")

    def test_a_build_that_stopped_before_the_words_has_names_to_review(self, source, tmp_path, bird):
        class Mute(TemplateTeacher):
            def dialogues(self, records):
                raise ValueError("no connection")

        with pytest.raises(ValueError, match="no connection"):
            build(source, tmp_path, SETTINGS, 1, Mute(0))
        assert bird("review", tmp_path)[0] == 0
        assert table(tmp_path / "review" / "labels.csv") and not table(tmp_path / "review" / "replies.csv")

    def test_a_review_without_a_decision_changes_nothing(self, out, source, bird):
        before = published(out)
        assert bird("review", out)[0] == 0
        decide(out / "review" / "labels.csv", lambda line: True, decision="Accept", comment="fine")
        build(source, out, SETTINGS, 1)
        assert published(out) == before and manifest(out)["settings"]["review"] is None


class TestABuildHonours:
    def test_names_that_were_rejected_or_renamed(self, out, source, bird, tmp_path):
        assert bird("review", out)[0] == 0
        labels = out / "review" / "labels.csv"
        bad, *others = [line["name"] for line in table(labels) if line["modality"] == "ct"]
        gone = decide(
            labels, lambda line: line["modality"] == "dermoscopy" or line["name"] == bad, decision="reject"
        )
        decide(labels, lambda line: line["name"] in others, decision="rename", new_name="Odd_Organ_L")
        assert bird("build", source, "--out", out, "--workers", 1)[0] == 0
        made = rows(out)
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
        build(source, elsewhere, SETTINGS, 2)
        assert published(elsewhere) == published(out)

    def test_a_reply_that_was_rejected_is_never_used(self, out, source, bird):
        assert bird("review", out)[0] == 0
        replies = out / "review" / "replies.csv"
        before = words(out)
        (line, *_) = decide(
            replies, lambda line: line == table(replies)[0], decision="reject", comment="wrong"
        )
        build(source, out, SETTINGS, 1)
        (lost,) = before - words(out)
        assert (line["image_id"], line["question"], line["answer"]) == (lost[0], *map(readable, lost[1:]))
        assert manifest(out)["rejected_in_review"] == {"objects": 0, "turns": 1}

    def test_an_image_of_rejected_replies_alone_is_left_out_and_counted(self, out, source, bird):
        assert bird("review", out, "--each", 100)[0] == 0
        replies = out / "review" / "replies.csv"
        image_id = table(replies)[0]["image_id"]
        decide(replies, lambda line: line["image_id"] == image_id, decision="reject")
        build(source, out, SETTINGS, 1)
        assert manifest(out)["refused"] == {"rejected in review": 1}
        assert image_id not in {row["image_id"] for row in rows(out)}

    def test_decisions_stay_when_the_review_is_written_again(self, out, source, bird):
        assert bird("review", out)[0] == 0
        labels, replies = out / "review" / "labels.csv", out / "review" / "replies.csv"
        renamed = table(labels)[0]["key"]
        decide(
            labels, lambda line: line["key"] == renamed, decision="rename", new_name="thing", comment="=1+1"
        )
        decide(labels, lambda line: line["modality"] == "pet", decision="reject")
        gone = decide(replies, lambda line: line["modality"] == "mr", decision="reject", comment="no")
        build(source, out, SETTINGS, 1)
        wanted = table(labels)
        for line in wanted:
            line["comment"] = line["comment"].replace("=", "'=")
        assert bird("review", out)[0] == 0
        assert table(labels) == wanted
        again = {line["key"]: line for line in table(replies)}
        assert all(again[line["key"]] == line for line in gone)
        made = published(out)
        build(source, out, SETTINGS, 1)
        assert published(out) == made


INFO = ImageInfo("ct--d--1--2d_none", Modality.CT, "00", "body", Axis.PLANAR, None, "d", "d/1", True)
MASK = np.eye(8, dtype=bool)


class TestRules:
    REVIEW = Review({("d", "a"): "b", ("d", "b"): "b", ("d", "c"): None, ("d", "e"): "f", ("d", "g"): "g"})

    @pytest.mark.parametrize(
        ("present", "absent", "is_present", "is_absent"),
        [
            (["a", "g"], ["e"], ["b", "g"], ["f"]),
            (["a", "b"], [], ["b", "b"], []),  # two names that are one
            (["a"], ["b"], ["b"], []),  # what is there under one name is not absent under the other
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

    def test_an_image_of_rejected_objects_alone_is_left_out(self):
        with pytest.raises(FaultyImageError) as error:
            self.REVIEW.read(MaskedImage(INFO, MASK, (("c", MASK),), ("g",)))
        assert error.value.reason is Drop.REJECTED_IN_REVIEW
        assert self.REVIEW.listed(Candidate(INFO, ("c",), 0)) == LeftOut(
            INFO.image_id, Drop.REJECTED_IN_REVIEW
        )
        assert self.REVIEW.listed(Candidate(INFO, ("c", "a", "b"), 0)) == Candidate(INFO, ("b",), 0)
        assert self.REVIEW.listed(Candidate(INFO, (), 0)) == Candidate(INFO, (), 0)  # known when it is read

    def test_other_datasets_keep_their_names(self):
        image = MaskedImage(replace(INFO, dataset="other"), MASK, (("c", MASK),), ())
        assert self.REVIEW.read(image) == image

    @given(st.text(alphabet="'=+-@\t\ra", max_size=6))
    def test_no_cell_is_a_formula_and_every_cell_comes_back(self, cell):
        assert not escape(cell).startswith(tuple("=+-@\t\r")) and unescape(escape(cell)) == cell


class TestBadEdits:
    @pytest.mark.parametrize(
        ("file", "cells", "says"),
        [
            (
                "labels.csv",
                {"decision": "perhaps"},
                r"labels.csv, line 2: decision 'perhaps' is unknown; use accept",
            ),
            (
                "replies.csv",
                {"decision": "rename"},
                r"replies.csv, line 2: decision 'rename' is unknown; use accept",
            ),
            (
                "labels.csv",
                {"name": "unicorn"},
                r"line 2: the key is not that of 'unicorn' in .*, an unknown label",
            ),
            ("labels.csv", {"decision": "rename"}, r"line 2: a new_name and the decision rename go together"),
            ("labels.csv", {"new_name": "liver"}, r"line 2: a new_name and the decision rename go together"),
            (
                "labels.csv",
                {"decision": "rename", "new_name": "<ref>"},
                r"new_name '<ref>' is not a usable name",
            ),
            (
                "labels.csv",
                {"decision": "rename", "new_name": "class7"},
                r"is not a usable name \(unnamed_class\)",
            ),
            ("replies.csv", {"key": "7"}, r"replies.csv, line 2: the key was changed or occurs twice"),
        ],
    )
    def test_a_bad_edit_is_one_line_and_changes_nothing(self, out, source, bird, file, cells, says):
        assert bird("review", out, "--each", 1)[0] == 0
        path = out / "review" / file
        decide(path, lambda line: line == table(path)[0], **cells)
        before, edited = published(out), path.read_bytes()
        for command in (("build", source, "--out", out, "--workers", 1), ("review", out)):
            code, said, errors = bird(*command)
            assert (code, said, errors.count("\n")) == (2, "", 1)
            assert re.search(says, errors)
        assert published(out) == before and path.read_bytes() == edited

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a,b\n1,2\n", b"", b'"key'])
    def test_a_file_that_is_no_table_is_refused(self, tmp_path, content):
        (tmp_path / "labels.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"labels\.csv (is not a CSV table|has no column)"):
            read_review(tmp_path)

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_other_spreadsheets_ways_are_understood(self, tmp_path, delimiter):
        line = dict.fromkeys(LABEL_COLUMNS, "") | {"comment": "one, two; three\nfour"}
        write_table(tmp_path / "labels.csv", LABEL_COLUMNS, [line | {"key": "a" * 64}])
        (known,) = table(tmp_path / "labels.csv")
        with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([[*known], [*known.values()], []])
        assert read_table(tmp_path / "labels.csv", LABEL_COLUMNS) == [known]

    def test_a_folder_that_is_no_builds_is_refused(self, tmp_path, bird):
        code, said, errors = bird("review", tmp_path)
        assert (code, said, errors.count("\n")) == (2, "", 1) and "is not the folder of a build" in errors
        assert not [*tmp_path.iterdir()]
