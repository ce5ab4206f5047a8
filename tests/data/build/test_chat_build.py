"""Builds with a chat teacher: reviews, and the Batch API."""

from __future__ import annotations

from bird_hf.data.build.review_files import REPLY_COLUMNS, read_table, write_table
from bird_hf.data.build.review_lines import readable
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.teachers.batch import IMAGES_PER_ROUND, BatchTeacher

from ..teachers.scripted_server import Answer, good_reply, meta_in
from .example_builds import manifest, rows_of


class TestInABuild:
    """`bird data build --teacher openai`, on phantoms."""

    def test_a_reply_that_people_reject_is_asked_again_with_their_reason(
        self, chat_build, bird, server, tmp_path
    ):
        out = tmp_path / "out"
        assert chat_build()[0] == 0
        assert bird("review", out, "--each", 100)[0] == 0
        replies = out / "review" / "replies.csv"
        lines = read_table(replies, REPLY_COLUMNS)
        bad = next(line for line in lines if line["task"] == "rc")
        bad |= {"decision": "reject", "comment": "too short"}
        write_table(replies, REPLY_COLUMNS, lines)
        asked = len(server.calls)
        server.script = lambda payload, _: Answer(
            good_reply(payload).replace("Describe [[", "Please describe [[")
        )
        code, _, errors = chat_build()
        assert code == 0, errors
        (call,) = server.calls[asked:]  # the others' replies were kept
        assert meta_in(call)["refused_because"] == ["rc: rejected in review: too short"]
        kept = {
            readable(row["messages"][0]["content"])
            for row in rows_of(out, "rc")
            if row["image_id"] == bad["image_id"]
        }
        assert kept and bad["question"] not in kept

    def test_a_model_that_never_does_better_loses_the_image(self, chat_build, bird, server, tmp_path):
        out = tmp_path / "out"
        assert chat_build()[0] == 0
        assert bird("review", out, "--each", 100)[0] == 0
        replies = out / "review" / "replies.csv"
        lines = read_table(replies, REPLY_COLUMNS)
        lines[0] |= {"decision": "reject"}
        write_table(replies, REPLY_COLUMNS, lines)
        assert chat_build()[0] == 0
        assert manifest(out)["refused"] == {f"turns: {lines[0]['task']}: rejected in review": 1}

    def test_the_batch_api_gives_the_same_rows(self, chat_build, server, tmp_path, monkeypatch):
        no_pause = (0.01, IMAGES_PER_ROUND)  # `poll` and `images`
        monkeypatch.setattr(BatchTeacher.__init__, "__defaults__", no_pause)
        assert chat_build("--batch")[0] == 0
        assert server.batches.batches
        assert set(open_folder(tmp_path / "out", "chat", "train")["teacher"]) == {"scripted"}
