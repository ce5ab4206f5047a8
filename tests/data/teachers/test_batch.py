"""The Batch API: the same results as with single calls, and batches of killed runs are collected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bird_hf.data.teachers.batch import BatchTeacher
from bird_hf.data.teachers.chat import ChatSettings

from .example_records import NO_SPLEEN, record, records
from .scripted_server import Answer, ChatServer, changed_reply, good_reply, meta_in, teacher_for


class TestBatches:
    def teacher(self, server: ChatServer, folder: Path, images: int = 100) -> BatchTeacher:
        settings = ChatSettings("scripted", base_url=server.url, max_retries=0, timeout=20.0)
        return BatchTeacher(settings, folder / "replies", poll=0.01, images=images)

    @pytest.mark.slow
    def test_results_are_those_of_single_calls(self, server, tmp_path):
        wrong = ("Which modality is this?", "This is a PET image.")
        server.script = lambda payload, number: Answer(
            good_reply(payload)
            if "refused_because" in meta_in(payload)
            else changed_reply(payload, mia=wrong)
        )
        images = [*records(3), record(NO_SPLEEN)]
        batched = list(self.teacher(server, tmp_path / "batches").dialogues(images))
        assert len(server.batches.batches) == 3 and len(server.calls) == 9  # captions, turns, turns again
        assert batched == list(teacher_for(server, tmp_path / "calls").dialogues(images))

    @pytest.mark.slow
    def test_images_go_in_groups_and_nothing_is_asked_twice(self, server, tmp_path):
        first = list(self.teacher(server, tmp_path, images=2).dialogues(records(5)))
        assert len(server.batches.batches) == 6 and len(server.calls) == 10
        assert list(self.teacher(server, tmp_path).dialogues(records(5))) == first
        assert len(server.batches.batches) == 6

    def test_a_killed_run_collects_the_batch_that_it_left(self, server, tmp_path, monkeypatch):
        def killed(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("bird_hf.data.teachers.reply_store.ReplyStore.put", killed)
            with pytest.raises(KeyboardInterrupt):
                list(self.teacher(server, tmp_path).dialogues(records(2)))
        assert len(server.batches.batches) == 1 and len(server.calls) == 2
        assert len(list(self.teacher(server, tmp_path).dialogues(records(2)))) == 2
        assert len(server.batches.batches) == 2 and len(server.calls) == 4

    def test_what_expires_is_handed_in_again(self, server, tmp_path):
        server.batches.lost = 1
        results = self.teacher(server, tmp_path).dialogues(records(3))
        with pytest.raises(ValueError, match="came back without a reply"):
            list(results)  # one request of each batch is lost
        server.batches.lost = 0
        assert len(list(self.teacher(server, tmp_path).dialogues(records(3)))) == 3

    def test_a_batch_of_another_store_is_left_alone(self, server, tmp_path):
        list(self.teacher(server, tmp_path / "one").dialogues(records(1)))
        list(self.teacher(server, tmp_path / "two").dialogues(records(1)))
        assert len(server.calls) == 4

    def test_an_id_that_is_no_key_is_no_path(self, server, tmp_path):
        list(self.teacher(server, tmp_path).dialogues(records(1)))
        for name in [name for name, text in server.batches.files.items() if "response" in text]:
            row = {**json.loads(server.batches.files[name]), "custom_id": "../../evil"}
            server.batches.files[name] = json.dumps(row)
        for path in tmp_path.rglob("*.*"):
            path.unlink(missing_ok=True) if path.is_file() else None
        before = {*tmp_path.parent.rglob("evil*")}
        server.script = lambda payload, number: Answer("oops", 500)
        with pytest.raises(ValueError, match="status 500"):
            list(self.teacher(server, tmp_path).dialogues(records(1)))
        assert {*tmp_path.parent.rglob("evil*")} == before == set()
