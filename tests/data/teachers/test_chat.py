"""The chat teacher with a scripted server: dialogues, repeated requests, failed calls, stored replies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bird_hf.data.records import Dialogue, Task, dialogue_row
from bird_hf.data.teachers.base import Refusal
from bird_hf.data.teachers.chat import ChatSettings, converse
from bird_hf.data.teachers.plan import plan_turns
from bird_hf.data.teachers.reply_store import Reply, Request

from .example_records import ALL, CYSTS, LEFT, NO_SPLEEN, RIGHT, record, records
from .scripted_server import Answer, changed_reply, good_reply, meta_in, result_for, teacher_for


class TestGoodReplies:
    def test_a_caption_is_asked_first_and_then_a_turn_for_each_task(self, teacher, server):
        dialogue = result_for(teacher, record(LEFT, RIGHT))
        assert [turn.task for turn in dialogue.turns] == ["vg", "roc", "rc", "mia"]
        assert dialogue.record.caption == "a CT image of the abdomen that shows the left kidney."
        assert dialogue.teacher == teacher.name == "scripted"
        first, second = map(meta_in, server.calls)
        assert "turns" not in first and second["caption"] == dialogue.record.caption

    def test_code_puts_the_boxes_in(self, teacher):
        image = record(LEFT)
        turns = {turn.task: turn for turn in result_for(teacher, image).turns}
        (answer,) = turns[Task.VISUAL_GROUNDING].answer_spans
        assert answer.phrase == "left kidney" and answer.boxes == (LEFT.box,)
        (question,) = turns[Task.REFERRING_CAPTION].question_spans
        assert question.phrase == "this region" and question.boxes == (LEFT.box,)
        row = dialogue_row(result_for(teacher, image))
        assert row["messages"][1]["content"] == (
            "Here is the <ref>left kidney</ref><box>(700,600),(900,800)</box>."
        )

    def test_every_turn_is_about_what_the_plan_says(self, teacher):
        images = records(12)
        for image, dialogue in zip(images, teacher.dialogues(images), strict=True):
            plan = plan_turns(image, 0)
            assert [turn.task for turn in dialogue.turns] == [wanted.task for wanted in plan]
            for wanted, turn in zip(plan, dialogue.turns, strict=True):
                about = {item.instance_id for item in ALL if wanted.about in (item.label, item.instance_id)}
                assert {*turn.instance_ids} == about

    def test_results_come_in_the_order_of_the_records_and_calls_are_bounded(self, server, tmp_path):
        together = threading.Barrier(3)  # the first three calls are answered when all of them have come

        def script(payload, number):
            if number < 3:
                together.wait(timeout=60)
            return Answer(good_reply(payload), delay=0.01 if number % 3 else 0.1)

        server.script = script
        images = records(12)
        shown = list(teacher_for(server, tmp_path, concurrency=3).dialogues(images))
        assert [dialogue.record.info.image_id for dialogue in shown] == [
            image.info.image_id for image in images
        ]
        assert server.most_at_once == 3

    def test_words_in_a_code_fence_are_taken(self, teacher, server):
        server.script = lambda payload, _: Answer(f"```json\n{good_reply(payload)}\n```")
        assert isinstance(result_for(teacher, record(*ALL)), Dialogue)


class TestRepeatedRequests:
    @pytest.mark.parametrize(
        ("task", "question", "answer", "reason"),
        [
            ("vg", "Where is it?", "Here is the [[left kidney|kidney_9]].", "unknown id 'kidney_9'"),
            (
                "rc",
                "Describe [[this|left_kidney_0]].",
                "The left kidney, on the patient's right.",
                "wrong side",
            ),
            ("mia", "Which modality is this?", "This is a PET image.", "'pet' is not the modality"),
            ("mia", "Is there a tumor?", "Yes, a large tumor.", "'tumor' is not in the meta information"),
        ],
    )
    def test_a_turn_that_stays_false_drops_the_image(self, teacher, server, task, question, answer, reason):
        server.script = lambda payload, _: Answer(changed_reply(payload, **{task: (question, answer)}))
        refused = result_for(teacher, record(LEFT))
        assert refused.image_id == "ct_00--set--case--x_0003" and reason in refused.reason
        assert len(server.calls) == 1 + 3  # the caption, then the turns and twice again

    def test_a_faulty_reply_is_asked_again_with_its_reason(self, teacher, server):
        wrong = json.dumps({"caption": "A PET image of the abdomen."})
        server.script = lambda payload, number: Answer(wrong if number == 0 else good_reply(payload))
        assert isinstance(result_for(teacher, record(*ALL)), Dialogue)
        assert "'pet' is not the modality" in meta_in(server.calls[1])["refused_because"][0]

    def test_an_image_without_objects_is_refused_before_anything_is_paid(self, teacher, server):
        assert result_for(teacher, record(NO_SPLEEN)) == Refusal(
            "ct_00--set--case--x_0003", "no object is in the image"
        )
        assert not server.calls


class TestTransport:
    @pytest.mark.parametrize(
        "failure",
        [
            Answer("slow down", 429),
            Answer("oops", 500),
            Answer("unused", drop=True),
            Answer(body="", status=503),
        ],
    )
    def test_a_failed_call_is_tried_again(self, teacher, server, failure):
        server.script = lambda payload, number: failure if number == 0 else Answer(good_reply(payload))
        assert isinstance(result_for(teacher, record(*ALL)), Dialogue)
        assert len(server.calls) == 3

    def test_a_slow_answer_is_tried_again(self, server, tmp_path):
        server.script = lambda payload, number: Answer(good_reply(payload), delay=0 if number else 1.0)
        assert isinstance(result_for(teacher_for(server, tmp_path, timeout=0.5), record(*ALL)), Dialogue)

    @pytest.mark.parametrize("failure", [Answer("no credit", 429), Answer("oops", 500), Answer("what?", 404)])
    def test_a_failure_that_stays_is_one_line_and_drops_no_image(self, teacher, server, failure):
        server.script = lambda payload, number: Answer(good_reply(payload)) if number < 2 else failure
        results = teacher.dialogues(records(3))
        with pytest.raises(
            ValueError, match=r"127\.0\.0\.1 does not answer: .*run again to continue"
        ) as error:
            list(results)
        assert "\n" not in str(error.value)
        paid = 2
        server.script, server.calls = (lambda payload, number: Answer(good_reply(payload))), []
        assert len(list(teacher.dialogues(records(3)))) == 3
        assert len(server.calls) == 6 - paid

    def test_without_a_key_nothing_is_asked(self, teacher, server, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(ValueError, match="set OPENAI_API_KEY"):
            result_for(teacher, record(*ALL))


class TestNothingIsPaidTwice:
    def test_a_second_run_asks_nothing_needs_no_key_and_says_the_same(self, teacher, server, monkeypatch):
        wrong = ("Where is the spleen?", "It is marked.")
        server.script = lambda payload, number: Answer(
            changed_reply(payload, vg=wrong)
            if meta_in(payload)["objects"][0]["id"] == "cyst_0"
            else good_reply(payload)
        )
        images = [*records(3), record(CYSTS[0], NO_SPLEEN)]
        first = list(teacher.dialogues(images))
        assert isinstance(first[3], Refusal) and len(server.calls) == 6 + 4
        monkeypatch.delenv("OPENAI_API_KEY")
        assert list(teacher.dialogues(images)) == first
        assert len(server.calls) == 10

    def test_an_image_that_comes_twice_at_once_is_paid_once(self, teacher, server):
        server.script = lambda payload, _: Answer(good_reply(payload), delay=0.1)
        first, second = teacher.dialogues([record(*ALL)] * 2)
        assert first == second and len(server.calls) == 2

    def test_calls_under_way_are_kept_when_the_reader_stops(self, server, tmp_path):
        server.script = lambda payload, number: Answer(good_reply(payload), delay=0.2 if number else 0)
        results = teacher_for(server, tmp_path, concurrency=2).dialogues(records(8))
        next(results)
        results.close()
        assert len([*tmp_path.rglob("*.json")]) == len(server.calls) < 16

    @pytest.mark.slow
    def test_a_killed_run_goes_on_where_it_was(self, server, tmp_path):
        server.script = lambda payload, number: Answer(good_reply(payload), delay=0.05)
        code = (
            "from pathlib import Path\n"
            "from example_records import records\n"
            "from bird_hf.data.teachers.chat import ChatSettings, ChatTeacher\n"
            f"settings = ChatSettings('scripted', base_url={server.url!r}, concurrency=2)\n"
            f"list(ChatTeacher(settings, Path({str(tmp_path / 'replies')!r})).dialogues(records(40)))\n"
        )
        here = str(Path(__file__).parent)
        path = os.pathsep.join([here, *filter(None, sys.path)])
        child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
        deadline = time.monotonic() + 60
        while len(server.calls) < 12 and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        time.sleep(0.3)
        killed, kept = len(server.calls), len([*tmp_path.rglob("*.json")])
        assert killed >= 12 and kept >= killed - 2  # only calls that were running at the kill are lost
        teacher = teacher_for(server, tmp_path)
        assert all(isinstance(result, Dialogue) for result in teacher.dialogues(records(40)))
        assert len(server.calls) == killed + 80 - kept


def reply_to(request: Request) -> Reply:
    return Reply(200, Answer(good_reply(request.payload())).document())


def test_a_conversation_needs_no_network():
    conversation = converse(ChatSettings("m"), record(*ALL))
    request = next(conversation)
    request = conversation.send(reply_to(request))
    with pytest.raises(StopIteration) as end:
        conversation.send(reply_to(request))
    assert isinstance(end.value.value, Dialogue)


@pytest.mark.parametrize(
    ("setting", "value"), [("model", ""), ("concurrency", 0), ("max_tokens", -1), ("timeout", 0)]
)
def test_settings_that_cannot_work_are_refused(setting, value):
    with pytest.raises(ValueError, match="model name" if setting == "model" else setting):
        ChatSettings(**{"model": "m", setting: value})
