"""Questions of the checks: paired, the same every time, never about forms or words of the training."""

from __future__ import annotations

from collections import Counter
from string import capwords

import numpy as np
import pytest

from bird_hf.data.embedded.cases import embedded_names
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Dialogue, Modality, Task, Turn, dialogue_row
from bird_hf.data.teachers.positions import describes
from bird_hf.data.teachers.templates import classify, ground
from bird_hf.data.teachers.wordings import Kind, fill, unknown_words, varied_forms
from bird_hf.eval.checks import Check, check_questions, checks_of_rows
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import read


@pytest.fixture(scope="module")
def records():
    return [record_of(draw_phantom(modality, seed, 96), 0.003) for modality in Modality for seed in range(3)]


@pytest.fixture(scope="module")
def asked(records):
    return check_questions(records, embedded_names())


def of(asked, check):
    return [each for each in asked if each.facts["check"] == check]


def test_every_check_is_asked_and_the_questions_are_the_same_every_time(records, asked):
    assert {each.facts["check"] for each in asked} == {check.value for check in Check}
    assert [each.id for each in asked] == list(range(len(asked)))
    assert check_questions(records, embedded_names()) == asked
    last = check_questions(records[-1:], embedded_names())
    assert [each.question for each in last] == [each.question for each in asked[-len(last) :]]


def test_vg_asks_for_the_same_boxes_in_each_wording(asked):
    plain = of(asked, Check.VG_PLAIN)
    for check in Check:
        if check.startswith("vg"):
            others = of(asked, check)
            assert [(each.image, each.annotation) for each in others] == [
                (each.image, each.annotation) for each in plain
            ]
            assert (check is Check.VG_PLAIN) or not {each.question for each in others} & {
                each.question for each in plain
            }


def test_letter_case_and_punctuation_keep_the_words(asked):
    plain = [each.question for each in of(asked, Check.VG_PLAIN)]
    assert [each.question for each in of(asked, Check.VG_LOWER)] == [text.lower() for text in plain]
    assert [each.question for each in of(asked, Check.VG_CAPITALS)] == [text.upper() for text in plain]
    assert [each.question for each in of(asked, Check.VG_NO_PUNCTUATION)] == [text[:-1] for text in plain]
    for each, text in zip(of(asked, Check.VG_TITLE_NAME), plain, strict=True):
        (span,) = read(each.annotation).spans
        assert each.question == text.replace(span.phrase, capwords(span.phrase, " "))


@pytest.mark.parametrize(
    ("check", "kind"), [(Check.VG_UNSEEN, Kind.GROUND), (Check.ROC_UNSEEN, Kind.CLASSIFY)]
)
def test_wordings_never_seen_are_held_out_forms(asked, check, kind):
    for each in of(asked, check):
        names = [span.phrase for span in read(each.annotation).spans]
        texts = _held_out(kind, names)
        assert read(each.question).text in texts


def _held_out(kind, names):
    found = set()
    for form in varied_forms(kind, "held_out"):
        try:
            found.add(fill(form, names).text)
        except ValueError:  # the name has no plural
            continue
    return found


def test_foreign_names_are_of_other_modalities_and_unknown_words_are_held_out(asked):
    known = embedded_names()
    foreign = of(asked, Check.FOREIGN)
    assert len({each.facts["name"] for each in foreign}) > 10
    for each in foreign:
        assert each.facts["name"] not in known[each.modality]
        assert each.facts["name"] in each.question and not read(each.annotation).boxes
    for each in of(asked, Check.UNKNOWN):
        assert each.facts["name"] in unknown_words("held_out") and each.facts["name"] in each.question


def test_yes_and_no_and_numbers_are_those_of_the_image(records, asked):
    present = {
        f"{record.info.image_id}.png": Counter(item.label for item in record.present) for record in records
    }
    absent = {f"{record.info.image_id}.png": {item.label for item in record.absent} for record in records}
    answers = Counter(each.facts["present"] for each in of(asked, Check.PRESENCE))
    assert min(answers[True], answers[False]) > 10
    for each in of(asked, Check.PRESENCE):
        names = present[each.image] if each.facts["present"] else absent[each.image]
        assert any(f" {name} " in each.question for name in names)
    numbers = of(asked, Check.COUNT)
    assert {each.facts["count"] for each in numbers} >= {0, 1, 2}
    for each in numbers:
        counts = [present[each.image][name] for name in (*present[each.image], *absent[each.image])
                  if each.question[:-1].endswith(f"labelled {name}")]  # fmt: skip
        assert counts == [each.facts["count"]]


def test_references_of_descriptions_are_right_about_size_and_place(asked):
    described = of(asked, Check.DESCRIPTION)
    assert len(described) > 10
    for each in described:
        box, axis = Box(*each.facts["box"]), each.facts["axis"]
        assert all(describes(each.annotation, box, each.facts["area"], axis).values())


def rows_of(records, teacher="templates"):
    """Rows with a VG question about every label of each image, and one ROC question."""
    rng = np.random.default_rng(0)
    for record in records:
        labels = dict.fromkeys(item.label for item in record.instances)
        turns: list[Turn] = [ground(record, label, rng) for label in labels]
        turns.append(classify(record, record.present[0], rng))
        for turn in turns:
            yield dialogue_row(Dialogue(record, (turn,), teacher))


def test_rows_give_the_questions_of_their_images(records):
    names = {modality: set() for modality in Modality}
    for record in records:
        names[record.info.modality] |= {item.label for item in record.present}
    vocabulary = {modality: tuple(sorted(found)) for modality, found in names.items()}
    from_rows, from_records = checks_of_rows(rows_of(records)), check_questions(records, vocabulary)
    assert [each.id for each in from_rows] == list(range(len(from_rows)))
    assert Counter(map(_about, from_rows)) == Counter(map(_about, from_records))


def _about(asked):
    return (asked.image, asked.facts["check"])


def test_objects_of_other_teachers_are_not_counted(records):
    assert not of(checks_of_rows(rows_of(records, "chat")), Check.COUNT)
    assert of(checks_of_rows(rows_of(records, "chat")), Check.VG_PLAIN)


def test_labels_of_which_single_objects_are_mentioned_are_not_asked_for(records):
    rows = [row for row in rows_of(records) if row["task"] == Task.REFERRING_CLASSIFICATION]
    found = {each.facts["check"] for each in checks_of_rows(rows)}
    assert found == {Check.FOREIGN.value, Check.UNKNOWN.value}
