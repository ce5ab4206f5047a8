"""What a question in free words asks for."""

from __future__ import annotations

import time

import pytest

from bird_hf import Box, Query
from bird_hf.asking.tasks import names_in, task_of
from bird_hf.data.teachers.wordings import Kind, fill, plain_forms
from bird_hf.hub.grounding import read
from bird_hf.questions import tagged_question

BOX = Box(0.1, 0.2, 0.5, 0.9)


@pytest.mark.parametrize(
    ("question", "box", "task", "names"),
    [
        ("Where is the left kidney?", None, "vg", ("left kidney",)),
        ("where is left kidney", None, "vg", ("left kidney",)),
        ("Where are the spleen and the liver?", None, "vg", ("spleen", "liver")),
        ("Give the bounding box of the optic disc.", None, "vg", ("optic disc",)),
        ("Where could one look for a fracture, if at all?", None, "vg", ()),  # no template: no name
        ("What is this?", BOX, "roc", ()),
        ("Where is this?", BOX, "roc", ()),
        ("Which modality is this?", None, "mia", ()),
        ("Is there a nodule?", None, "mia", ()),
    ],
)
def test_the_words_and_the_box_tell_the_task(
    question: str, box: Box | None, task: str, names: tuple[str, ...]
) -> None:
    tagged = tagged_question(question, box)
    assert task_of(Query(tagged, None), read(tagged)) == (task, names)


def test_what_the_query_says_is_taken() -> None:
    query = Query("Where is it?", None, task="mia", names=("spleen",))
    assert task_of(query, read(query.question)) == ("mia", ("spleen",))
    query = Query("Is it there?", None, names=("spleen",))
    assert task_of(query, read(query.question)) == ("vg", ("spleen",))


@pytest.mark.parametrize("form", plain_forms(Kind.GROUND), ids=lambda form: form.id)
def test_the_name_in_every_template_is_found(form: object) -> None:
    assert names_in(fill(form, ("left upper lobe",)).text) == ("left upper lobe",)


def test_a_long_question_takes_no_time() -> None:
    start = time.process_time()
    assert names_in("Where are " + "the and " * 50_000) == ()
    assert time.process_time() - start < 2
