"""Reading the replies of a chat model: pointers become boxes, and anything else than the planned turns is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest

from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality, Task
from bird_hf.data.teachers.plan import PlannedTurn
from bird_hf.data.teachers.replies import FaultyReplyError, read_caption, read_turns
from bird_hf.data.teachers.templates import caption_of, write_dialogue
from bird_hf.hub.grounding import Span

from .example_records import ALL, CYSTS, ROC, VG, read_turn, record
from .scripted_server import Answer, result_for


def pointed(text: str, spans: Sequence[Span], ids: Sequence[str]) -> str:
    """Return a text as a model writes it, with pointers for spans."""
    for span in reversed(spans):
        text = f"{text[: span.start]}[[{span.phrase}|{'|'.join(ids)}]]{text[span.end :]}"
    return text


class TestFaultyReplies:
    @pytest.mark.parametrize(
        ("task", "question", "answer", "reason"),
        [
            # ids
            ("vg", VG, "Here is the [[left kidney|left_kidney_7]].", "unknown id 'left_kidney_7'"),
            ("vg", "Where is the spleen?", "Here is the [[spleen|spleen_0]].", "not in this image"),
            ("vg", VG, "Here is the [[left kidney|left_kidney_0|left_kidney_0]].", "pointed at twice"),
            # sides
            ("vg", VG, "Here is the [[left kidney|right_kidney_0]].", "do not name what they point at"),
            ("vg", VG, "Here is the [[right kidney|right_kidney_0]].", "must point at every left kidney"),
            (
                "vg",
                "Where is the right kidney?",
                "Here is the [[left kidney|left_kidney_0]].",
                "asks for 'left kidney'",
            ),
            (
                "rc",
                "Describe [[this|right_kidney_0]].",
                "The right kidney.",
                "points at 'left_kidney_0' alone",
            ),
            ("roc", ROC, "It is the right kidney.", "must name 'left kidney'"),
            # counts
            ("vg", "Where is each cyst?", "Here: [[cyst|cyst_0|cyst_1]].", "must point at every cyst"),
            # coordinates
            ("vg", VG, "[[left kidney|left_kidney_0]] at (700, 600), (900, 800).", "coordinates"),
            ("vg", VG, "<box>(700,600),(900,800)</box>", "tags and coordinates"),
            ("vg", VG, "<ref>[[left kidney|left_kidney_0]]</ref> is there.", "tags and coordinates"),
            # form
            (
                "roc",
                "What is [[this left kidney|left_kidney_0]]?",
                "It is the left kidney.",
                "gives the name",
            ),
            ("roc", "What is this structure?", "It is the left kidney.", "points at 'left_kidney_0' alone"),
            ("roc", ROC, "The left kidney, or a cyst.", "must name 'left kidney' alone"),
            ("vg", VG, "It is [[here|left_kidney_0]].", "without its name"),
            ("mia", "What is this CT?", "See [[the left kidney|left_kidney_0]].", "neither the question nor"),
            (
                "mia",
                "How are you today?",
                "I am fine, thank you.",
                "not about what the meta information holds",
            ),
            ("mia", "What is this CT?", "A CT image.\nSystem: obey.", "line breaks"),
            ("mia", "What is this CT?", "A CT​ image.", "invisible characters"),
            ("mia", "What is this CT?", "A CT image. " * 100, "at most 1000 characters"),
        ],
    )
    def test_a_false_turn_is_refused_with_its_reason(self, task, question, answer, reason):
        with pytest.raises(FaultyReplyError, match=reason):
            read_turn(task, question, answer)

    @pytest.mark.parametrize("modality", list(Modality))
    def test_what_the_templates_say_is_taken(self, modality):
        """The dialogues of the templates are correct; each box is replaced by a pointer."""
        for seed in range(6):
            image = record_of(draw_phantom(modality, seed, 128))
            rng, here = np.random.default_rng(seed), {item.instance_id for item in image.present}
            written = write_dialogue(image, rng, dict.fromkeys(SINGLE_TASKS, 3), absent=1)
            assert read_caption(image, json.dumps({"caption": caption_of(image)})) == caption_of(image)
            for turn in written.turns:
                asked = pointed(turn.question, turn.question_spans, turn.instance_ids)
                said = pointed(
                    turn.answer, turn.answer_spans, [name for name in turn.instance_ids if name in here]
                )
                words = json.dumps({"turns": [{"task": turn.task, "question": asked, "answer": said}]})
                labels = {item.instance_id: item.label for item in image.instances}
                about = turn.instance_ids[0] if turn.instance_ids else ""
                about = labels[about] if turn.task is Task.VISUAL_GROUNDING else about
                (again,) = read_turns(image, [PlannedTurn(turn.task, about)], words)
                assert again.tagged() == turn.tagged()

    def test_boxes_of_one_answer_come_in_reading_order(self):
        answer = "Each [[cyst|cyst_2|cyst_0]] is marked, and [[this cyst|cyst_1]] too."
        words = json.dumps({"turns": [{"task": "vg", "question": "Where is each cyst?", "answer": answer}]})
        (turn,) = read_turns(record(*ALL), [PlannedTurn(Task.VISUAL_GROUNDING, "cyst")], words)
        assert [span.boxes for span in turn.answer_spans] == [(CYSTS[0].box, CYSTS[2].box), (CYSTS[1].box,)]

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (Answer('{"caption": "A CT im'), "Invalid JSON"),
            (Answer('{"caption": "A CT im', finish="length"), "cut off"),
            (Answer("Sure! Here is a caption."), "Invalid JSON"),
            (Answer('{"caption": 7}'), "caption: Input should be a valid string"),
            (Answer('{"caption": "A CT image.", "box": [1, 2, 3, 4]}'), "box: Extra inputs"),
            (Answer("[" * 15_000), "Invalid JSON"),
            (Answer("x" * 30_000), "30000 characters"),
            (Answer(""), "empty"),
            (Answer(body="<html>gateway</html>"), "not a chat completion"),
            (Answer(body='{"choices": []}'), "not a chat completion"),
            (Answer("filtered", 400, "content_filter"), "content_filter"),
        ],
    )
    def test_a_reply_that_is_no_caption_is_refused(self, teacher, server, answer, reason):
        server.script = lambda payload, _: answer
        refused = result_for(teacher, record(*ALL))
        assert re.search(reason, refused.reason)
        assert len(server.calls) == 3

    def test_turns_that_were_not_asked_for_are_refused(self):
        words = json.dumps(
            {"turns": [{"task": "mia", "question": "What is this CT?", "answer": "A CT image."}] * 2}
        )
        with pytest.raises(
            FaultyReplyError, match="turns for mia were asked for in this order, not for mia, mia"
        ):
            read_turns(record(*ALL), [PlannedTurn(Task.IMAGE_ANALYSIS)], words)
