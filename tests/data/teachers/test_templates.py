"""The offline teacher: every box is an object's, every word about a side is the patient's."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import (
    Axis,
    Dialogue,
    ImageRecord,
    Modality,
    Task,
    Turn,
    dialogue_row,
)
from bird_hf.data.teachers.analysis import analyse
from bird_hf.data.teachers.positions import is_borderline
from bird_hf.data.teachers.style import Style
from bird_hf.data.teachers.templates import (
    TemplateTeacher,
    caption_of,
    classify,
    describe,
    ground,
    ground_pair,
    write_dialogue,
)
from bird_hf.data.teachers.wordings import (
    Kind,
    Wordings,
    fill,
    is_held_out,
    plain_forms,
    synonyms_of,
    unknown_words,
)
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import read

from .example_records import AORTA, CYSTS, LEFT, NO_SPLEEN, RIGHT, record

WANTED = {
    Task.VISUAL_GROUNDING: 4,
    Task.REFERRING_CLASSIFICATION: 3,
    Task.REFERRING_CAPTION: 3,
    Task.IMAGE_ANALYSIS: 6,
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    """Dialogues about phantoms of every modality."""
    made = []
    for number, modality in enumerate(Modality):
        for seed in range(3):
            phantom = record_of(draw_phantom(modality, 10 * number + seed, 96))
            made.append(write_dialogue(phantom, np.random.default_rng(seed), WANTED, absent=2, pairs=1))
    made.append(
        write_dialogue(record(LEFT, RIGHT, *CYSTS, NO_SPLEEN), np.random.default_rng(1), WANTED, 1, 1)
    )
    return made


def turns(dialogues: list[Dialogue]) -> Iterator[tuple[ImageRecord, Turn]]:
    return ((dialogue.record, turn) for dialogue in dialogues for turn in dialogue.turns)


class TestEveryTurn:
    def test_reads_back_to_itself_without_an_issue(self, dialogues):
        for _, turn in turns(dialogues):
            question, answer = map(read, turn.tagged())
            assert (question.text, answer.text) == (turn.question, turn.answer)
            assert question.issues == answer.issues == ()

    def test_boxes_are_those_of_the_rows_objects(self, dialogues):
        for dialogue in dialogues:
            for turn in dialogue.turns:
                row = dialogue_row(replace(dialogue, turns=(turn,)))
                own = {Box(*item["box"]).to_thousandths() for item in row["objects"] if item["present"]}
                said = [box for message in row["messages"] for box in read(message["content"]).boxes]
                assert {box.to_thousandths() for box in said} <= own

    def test_what_it_speaks_of_is_in_the_record(self, dialogues):
        for image, turn in turns(dialogues):
            assert set(turn.instance_ids) <= {item.instance_id for item in image.instances}

    def test_each_task_has_its_boxes_where_the_paper_has_them(self, dialogues):
        for image, turn in turns(dialogues):
            question, answer = (read(text).boxes for text in turn.tagged())
            absent = {item.instance_id for item in image.absent}
            match turn.task:
                case Task.VISUAL_GROUNDING:
                    assert not question
                    assert bool(answer) == (not absent.intersection(turn.instance_ids))
                case Task.REFERRING_CLASSIFICATION | Task.REFERRING_CAPTION:
                    assert (len(question), len(answer)) == (1, 0)
                case Task.IMAGE_ANALYSIS:
                    assert not question
                    assert not answer

    def test_all_kinds_were_seen(self, dialogues):
        assert {turn.task for _, turn in turns(dialogues)} == set(WANTED)
        assert any(turn.answer.startswith("There is no ") for _, turn in turns(dialogues))
        assert len({dialogue.record.info.modality for dialogue in dialogues}) == len(Modality)


class TestGround:
    def test_where_is_the_x_is_one_of_the_wordings(self):
        assert "Where is the liver?" in {fill(form, ("liver",)).text for form in plain_forms(Kind.GROUND)}

    def test_every_wording_is_used(self, rng):
        asked = {ground(record(LEFT), "left kidney", rng).question for _ in range(200)}
        assert asked == {fill(form, ("left kidney",)).text for form in plain_forms(Kind.GROUND)}

    def test_one_object(self, rng):
        turn = ground(record(LEFT, RIGHT), "left kidney", rng)
        assert turn.tagged()[1] == "Here is the <ref>left kidney</ref><box>(700,600),(900,800)</box>."
        assert turn.instance_ids == ("left_kidney_0",)

    def test_all_objects_of_a_name_are_one_answer(self, rng):
        turn = ground(record(LEFT, *CYSTS), "cyst", rng)
        (span,) = read(turn.tagged()[1]).spans
        assert (span.phrase, len(span.boxes)) == ("cyst", 3)
        assert turn.instance_ids == ("cyst_0", "cyst_1", "cyst_2")

    def test_an_absent_object_has_no_box_and_is_named(self, rng):
        turn = ground(record(LEFT, NO_SPLEEN), "spleen", rng)
        assert turn.tagged()[1] == "There is no spleen in this image."
        assert turn.instance_ids == ("spleen_0",)

    @pytest.mark.parametrize("labels", [("left kidney", "right kidney"), ("kidney", "left kidney")])
    @pytest.mark.parametrize("turned", [False, True])
    def test_a_pair_gives_each_phrase_its_own_box(self, labels, turned, rng):
        first, second = replace(LEFT, label=labels[0]), replace(RIGHT, label=labels[1])
        asked = labels[::-1] if turned else labels
        spans = read(ground_pair(record(first, second), asked, rng).tagged()[1]).spans
        own = {labels[0]: LEFT.box, labels[1]: RIGHT.box}
        assert [(span.phrase, span.boxes) for span in spans] == [(label, (own[label],)) for label in asked]


class TestReferring:
    def test_the_box_stands_behind_the_pointing_words(self, rng):
        for _ in range(30):
            for turn in (classify(record(LEFT), LEFT, rng), describe(record(LEFT), LEFT, rng)):
                (span,) = read(turn.tagged()[0]).spans
                assert span.phrase.startswith("this")
                assert span.boxes == (LEFT.box,)

    def test_the_answer_is_the_name(self, rng):
        assert classify(record(LEFT), LEFT, rng).answer == "This is the left kidney."

    def test_size_name_and_place(self, rng):
        assert describe(record(LEFT), LEFT, rng).answer == (
            "A small left kidney, posterior and on the patient's left."
        )
        assert describe(record(AORTA), AORTA, rng).answer == "A tiny aorta, in the middle."

    @pytest.mark.parametrize(
        ("area", "size"),
        [(0.009, "A tiny"), (0.01, "A small"), (0.04, "A medium-sized"), (0.15, "A large"), (1.0, "A large")],
    )
    def test_sizes_are_shares_of_the_image(self, area, size, rng):
        assert describe(record(LEFT), replace(LEFT, area=area), rng).answer.startswith(size + " ")


class TestDialogue:
    def test_it_has_as_many_turns_as_were_wanted(self, rng):
        made = write_dialogue(record(LEFT, RIGHT, *CYSTS, AORTA, NO_SPLEEN), rng, WANTED, absent=1, pairs=1)
        counts = {task: sum(turn.task is task for turn in made.turns) for task in WANTED}
        assert counts == WANTED | {Task.VISUAL_GROUNDING: 4 + 1 + 1}

    def test_it_has_fewer_where_there_are_fewer_objects(self, rng):
        made = write_dialogue(record(LEFT), rng, WANTED, absent=5, pairs=5)
        counts = [sum(turn.task is task for turn in made.turns) for task in WANTED]
        assert counts == [1, 1, 1, 6]

    def test_the_seed_decides_everything(self):
        image = record(LEFT, RIGHT, *CYSTS, NO_SPLEEN)
        one, again, other = (
            write_dialogue(image, np.random.default_rng(seed), WANTED, 1) for seed in (3, 3, 4)
        )
        assert one == again
        assert one != other


@pytest.mark.parametrize(
    ("instances", "axis", "caption"),
    [
        ((), Axis.AXIAL, "A CT image of the abdomen, axial plane."),
        ((LEFT,), Axis.PLANAR, "A CT image of the abdomen, showing the left kidney."),
        (
            (AORTA, LEFT),
            Axis.CORONAL,
            "A CT image of the abdomen, coronal plane, showing the left kidney and the aorta.",
        ),
        (
            (*CYSTS, AORTA, LEFT, RIGHT, NO_SPLEEN),
            Axis.AXIAL,
            "A CT image of the abdomen, axial plane, showing the left kidney, the right kidney and the aorta.",
        ),
    ],
)
def test_a_caption_names_the_largest_objects(instances, axis, caption):
    assert caption_of(record(*instances, axis=axis)) == caption


@pytest.fixture(scope="module")
def varied() -> list[Dialogue]:
    style = Style(Wordings.VARIED, unknown_words=unknown_words("train"), presence_share=0.6)
    made = []
    for modality in Modality:
        for seed in range(20):
            image = record_of(draw_phantom(modality, seed, 64))
            rng = np.random.default_rng([seed, len(made)])
            made.append(write_dialogue(image, rng, WANTED, 1, 1, style, foreign=2, unknown=1))
    return made


class TestVaried:
    """Varied dialogues: more wordings, and more names to deny."""

    @pytest.mark.slow
    def test_every_turn_reads_back_to_itself_without_an_issue(self, varied):
        for _, turn in turns(varied):
            question, answer = map(read, turn.tagged())
            assert (question.text, answer.text) == (turn.question, turn.answer)
            assert question.issues == answer.issues == ()

    def test_boxes_are_where_the_task_has_them(self, varied):
        for image, turn in turns(varied):
            question, answer = (read(text).boxes for text in turn.tagged())
            assert len(question) == (turn.task in (Task.REFERRING_CLASSIFICATION, Task.REFERRING_CAPTION))
            present = {item.instance_id for item in image.present}
            grounds = turn.task is Task.VISUAL_GROUNDING and bool(present.intersection(turn.instance_ids))
            assert bool(answer) is grounds

    def test_forms_are_those_of_training_and_of_their_task(self, varied):
        kinds = {Task.VISUAL_GROUNDING: {"vg", "vg_pair"}, Task.REFERRING_CLASSIFICATION: {"roc"}}
        kinds[Task.REFERRING_CAPTION] = {"rc"}
        for _, turn in turns(varied):
            assert not is_held_out(turn.form)
            allowed = kinds.get(turn.task, {"modality", "view", "presence", "count", "side"})
            assert turn.form.split("/")[0] in allowed

    def test_names_that_are_not_in_the_image_are_denied(self, varied):
        words = set(unknown_words("train"))
        others = {other for word in words for other in synonyms_of(word)}
        denied = {"unknown": 0, "foreign": 0}
        for image, turn in turns(varied):
            listed = {item.label for item in image.instances}
            if turn.answer == "I do not know this name.":
                assert not turn.instance_ids and any(word in turn.question.lower() for word in words | others)
                denied["unknown"] += 1
            elif found := re.fullmatch(r"(?:No, t|T)here is no (.+) in this image\.", turn.answer):
                assert found[1] not in {item.label for item in image.present}
                denied["foreign"] += found[1] not in listed
        assert denied["unknown"] > 160 and denied["foreign"] > 300

    def test_answers_keep_the_label_whatever_the_question_calls_it(self, varied):
        for image, turn in turns(varied):
            labels = {item.label for item in image.instances}
            for span in turn.answer_spans:
                assert span.phrase in labels

    def test_counts_run_from_none_to_many(self, varied):
        answers = {turn.answer for _, turn in turns(varied) if turn.form.startswith("count/")}
        assert {"There are none.", "There is one.", "There are two."} <= answers

    def test_counts_are_true(self, varied):
        words = ("none", "one", "two", "three", "four", "five", "six")
        for image, turn in turns(varied):
            if turn.form.startswith("count/"):
                ids = set(turn.instance_ids)
                count = sum(item.instance_id in ids for item in image.present)
                assert turn.answer == f"There {'is' if count == 1 else 'are'} {words[count]}."

    def test_described_objects_are_not_at_a_border(self, varied):
        for image, turn in turns(varied):
            if turn.task is Task.REFERRING_CAPTION:
                (item,) = (item for item in image.present if item.instance_id in turn.instance_ids)
                assert not is_borderline(item.box, item.area, image.info.axis)

    def test_an_image_without_absent_labels_is_asked_for_names_of_other_modalities(self):
        asked = [
            analyse(record(LEFT), np.random.default_rng(seed), Style(Wordings.VARIED, presence_share=1.0))
            for seed in range(200)
        ]
        answers = {turn.answer.split(",")[0] for turn in asked if turn.form.startswith("presence/")}
        assert answers == {"Yes", "No"}


class TestTeacher:
    def test_plain_is_the_default_and_what_it_always_wrote(self):
        images = [
            record(LEFT, RIGHT, *CYSTS, NO_SPLEEN, name=f"ct_00--set--case--x_{n:04d}") for n in range(40)
        ]
        plain = list(TemplateTeacher(3).dialogues(images))
        assert plain == list(TemplateTeacher(3).dialogues(images, Wordings.PLAIN))
        assert all("/plain/" in turn.form for made in plain for turn in made.turns)
        rows = [dialogue_row(made) for made in plain]
        text = json.dumps([[message["content"] for message in row["messages"]] for row in rows])
        assert hashlib.sha256(text.encode()).hexdigest().startswith("58cd6789881c8591")

    def test_varied_wordings_have_no_unknown_words(self):
        images = [record(LEFT, RIGHT, name=f"ct_00--set--case--x_{n:04d}") for n in range(80)]
        made = [turn for one in TemplateTeacher(3).dialogues(images, Wordings.VARIED) for turn in one.turns]
        assert not [turn for turn in made if "do not know" in turn.answer]
        assert any("/plain/" not in turn.form for turn in made)
        # The source lists no absent label, so those that are denied are names of other modalities.
        assert sum(turn.answer.startswith("There is no ") for turn in made) > 20
