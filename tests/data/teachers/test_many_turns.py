"""`--turns N`: how many turns of which task the templates write, and that none is asked twice."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task
from bird_hf.data.teachers.open import open_teacher
from bird_hf.data.teachers.style import PLAIN_STYLE, VARIED_STYLE
from bird_hf.data.teachers.templates import TURNS, TemplateTeacher, share_turns, write_turns
from bird_hf.data.teachers.wordings import Wordings

from .example_records import ALL, AORTA, LEFT, NO_SPLEEN, record

VG, ROC, RC, MIA = TURNS
MANY = dict.fromkeys(TURNS, 99)


@pytest.mark.parametrize(
    ("total", "most", "expected"),
    [
        (0, MANY, (0, 0, 0, 0)),
        (1, MANY, (1, 0, 0, 0)),
        (4, MANY, (2, 1, 1, 0)),
        (5, MANY, (2, 1, 1, 1)),  # the usual number
        (10, MANY, (4, 2, 2, 2)),
        (12, MANY, (6, 2, 2, 2)),
        (5, MANY | {VG: 1}, (1, 2, 1, 1)),  # what one task cannot take goes to the others
        (20, MANY | {VG: 1, MIA: 4}, (1, 8, 7, 4)),
        (20, {VG: 1, ROC: 1, RC: 1, MIA: 4}, (1, 1, 1, 4)),  # fewer, if no task can take more
        (20, {VG: 0, ROC: 0, RC: 0, MIA: 4}, (0, 0, 0, 4)),
        (20, dict.fromkeys(TURNS, 0), (0, 0, 0, 0)),
    ],
)
def test_turns_are_shared_in_the_usual_ratio(
    total: int, most: dict[Task, int], expected: tuple[int, ...]
) -> None:
    assert tuple(share_turns(total, most).values()) == expected


@pytest.mark.parametrize("style", [PLAIN_STYLE, VARIED_STYLE])
@pytest.mark.parametrize("total", [1, 2, 5, 6, 12, 40])
@pytest.mark.parametrize("modality", list(Modality))
def test_no_more_turns_than_asked_for_and_none_twice(modality: Modality, total: int, style) -> None:
    image = record_of(draw_phantom(modality, 1, 64), 0.0015)
    turns = write_turns(image, np.random.default_rng(4), total, style).turns
    assert 1 <= len(turns) <= total
    if total > 5 and len(image.present) >= 4:
        assert len(turns) > 5
    asked_for = Counter(
        (turn.task, turn.answer, turn.instance_ids)
        for turn in turns
        if turn.task is not Task.VISUAL_GROUNDING
    )
    assert max(asked_for.values(), default=1) == 1
    grounded = Counter(
        (turn.answer, turn.instance_ids) for turn in turns if turn.task is Task.VISUAL_GROUNDING
    )
    assert max(grounded.values(), default=1) == 1


def test_enough_turns_ask_for_every_object() -> None:
    dialogue = write_turns(record(*ALL, AORTA), np.random.default_rng(0), 60, PLAIN_STYLE)
    tasks = Counter(turn.task for turn in dialogue.turns)
    assert tasks[ROC] == tasks[RC] == 6
    assert tasks[VG] == 4 + 1  # four names, and the spleen, which is absent
    assert {name for turn in dialogue.turns for name in turn.instance_ids} == {
        item.instance_id for item in (*ALL, AORTA)
    }


def test_absent_objects_keep_their_share() -> None:
    absent = turns = 0
    for seed in range(400):
        written = write_turns(record(*ALL, AORTA), np.random.default_rng(seed), 5, PLAIN_STYLE).turns
        turns += len(written)
        absent += sum(
            turn.answer == "There is no spleen in this image." for turn in written if turn.task is VG
        )
    assert 0.08 < absent / turns < 0.12  # half of the images, five turns each


def test_an_image_with_one_object_has_few_turns() -> None:
    turns = write_turns(record(LEFT, NO_SPLEEN), np.random.default_rng(0), 12, PLAIN_STYLE).turns
    assert Counter(turn.task for turn in turns) in (
        Counter({VG: 2, ROC: 1, RC: 1, MIA: 3}),
        Counter({VG: 2, ROC: 1, RC: 1, MIA: 2}),
    )


@pytest.mark.parametrize("wordings", list(Wordings))
def test_the_teacher_writes_so_many(wordings: Wordings) -> None:
    images = [record(*ALL, AORTA, name=f"ct_00--set--case--x_{number:04d}") for number in range(9)]
    teacher = open_teacher("templates", 3, None, turns=12)  # type: ignore[arg-type]
    dialogues = list(teacher.dialogues(images, wordings))
    assert all(5 < len(dialogue.turns) <= 12 for dialogue in dialogues)
    assert dialogues == list(TemplateTeacher(3, 12).dialogues(images, wordings))
    usual = list(TemplateTeacher(3).dialogues(images, wordings))
    assert all(len(dialogue.turns) <= 6 for dialogue in usual)
