"""Rows as questions and answers in a dialect: tasks, names, absent objects, and what is left out by name."""

from __future__ import annotations

import re

import pytest
from datasets import IterableDataset
from PIL import Image

from bird_hf import dialects
from bird_hf.dialects import View
from bird_hf.train.any_vlm.load import shown_part
from bird_hf.train.any_vlm.rows import examples_of, turns_of

from .conftest import dataset_of

SPLEEN = {"label": "spleen", "box": [0.25, 0.15, 0.625, 0.55], "present": True}
LIVER = {"label": "liver", "box": None, "present": False}
FOUND = "Here is the <ref>spleen</ref><box>(250,150),(625,550)</box>."
CONTROL = re.compile(r"<\|im_end\|>")


def row(question, answer, **columns):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {
        "image_id": "ct_1",
        "image": Image.new("L", (8, 6)),
        "image_wh": [800, 600],
        "messages": messages,
        "objects": [SPLEEN, LIVER],
        "independent": True,
    } | columns


def examples(name, *rows, shown=lambda size: None):
    return examples_of(dataset_of([*rows]), dialects.get(name), CONTROL, shown, lambda number: (8, 6))


@pytest.mark.parametrize(
    ("name", "question", "answer", "columns", "asked", "said"),
    [
        (
            "qwen3-vl",
            "Where is the spleen?",
            FOUND,
            {"task": "vg"},
            "Locate the spleen in this image and output the bbox coordinates in JSON format.",
            '[{"bbox_2d": [250, 150, 625, 550], "label": "spleen"}]',
        ),
        # Without a task, a box in the answer alone is a grounding question.
        (
            "paligemma",
            "Where is the spleen?",
            FOUND,
            {},
            "detect spleen",
            "<loc0153><loc0256><loc0563><loc0639> spleen",
        ),
        # The form of the question tells the task of a chat row.
        (
            "paligemma",
            "Describe <ref>this</ref><box>(250,150),(625,550)</box>.",
            "A large spleen.",
            {"task": "chat", "forms": ["rc/1"]},
            "caption <loc0153><loc0256><loc0563><loc0639>",
            "A large spleen.",
        ),
        (
            "qwen3-vl",
            "Which modality is this?",
            "A CT image.",
            {"task": "mia"},
            "Which modality is this?",
            "A CT image.",
        ),
        # An absent object in the dialect's own way, or in the row's own words.
        (
            "qwen3-vl",
            "Where is the liver?",
            "There is no liver in this image.",
            {"task": "vg"},
            "Locate the liver in this image and output the bbox coordinates in JSON format.",
            "[]",
        ),
        (
            "paligemma",
            "Where is the liver?",
            "There is no liver here.",
            {"task": "vg"},
            "detect liver",
            "There is no liver here.",
        ),
    ],
)
def test_a_row_is_asked_and_answered_in_the_dialect(name, question, answer, columns, asked, said):
    (example,), left_out = examples(name, row(question, answer, **columns))
    assert (example.question, example.answer, left_out) == (asked, said, [])
    assert example.reference == answer and example.history == []


@pytest.mark.parametrize(
    ("name", "question", "answer", "columns", "reason", "detail"),
    [
        # MAIRA-2 sees the middle of the picture.
        (
            "maira-2",
            "Where is the spleen?",
            FOUND.replace("250", "0"),
            {"task": "vg"},
            "not_visible",
            "not wholly inside",
        ),
        (
            "paligemma",
            "Where is it?",
            "There is no such thing here.",
            {"task": "vg"},
            "not_said",
            "by their names",
        ),
        ("qwen3-vl", "Say <|im_end|>", "No.", {"task": "mia"}, "not_said", r"control token <\|im_end\|>"),
        ("qwen3-vl", "What is it?", " ", {"task": "mia"}, "not_said", "the answer is empty"),
        ("qwen3-vl", "Where?", "At <box>(1,2)</box>.", {"task": "vg"}, "not_said", "has not_four_numbers"),
        (
            "qwen2.5-vl",
            "What is it?",
            "A line.",
            {"task": "mia", "image_wh": [2000, 5]},
            "not_asked",
            "ratio above 200",
        ),
    ],
)
def test_what_cannot_be_said_is_left_out_by_name(name, question, answer, columns, reason, detail):
    good = row("Where is the spleen?", FOUND, task="vg", image_id="ct_2")
    (found,), (left,) = examples(name, row(question, answer, **columns), good)
    assert found.image_id == "ct_2"
    assert (left.image, left.reason) == ("ct_1", reason) and re.search(detail, left.detail), left


def test_turns_that_refer_to_each_other_keep_what_was_said_before():
    messages = [
        {"role": "user", "content": "Where is the spleen?"},
        {"role": "assistant", "content": FOUND},
        {"role": "user", "content": "Is it large?"},
        {"role": "assistant", "content": "Yes."},
    ]
    together = row("", "", messages=messages, independent=False, task="chat", forms=["vg/0", "presence/0"])
    (first, second), _ = examples("qwen3-vl", together)
    assert second.history == [[first.question, first.answer]]
    (_, second), _ = examples("qwen3-vl", together | {"independent": True})
    assert second.history == []


@pytest.mark.parametrize(
    "messages",
    [[], [{"role": "user", "content": "Where?"}], [{"role": "assistant", "content": "Here."}] * 2],
)
def test_messages_that_are_no_pairs_are_refused(messages):
    with pytest.raises(ValueError, match="not pairs of user and assistant"):
        turns_of({"messages": messages})


def test_streamed_rows_are_refused():
    with pytest.raises(ValueError, match="set dataset_streaming: false"):
        examples_of(IterableDataset.from_generator(lambda: iter([])), None, CONTROL, None, None)


class Images:
    """The settings of an image processor."""

    def __init__(self, **settings):
        self.__dict__.update(settings)


SQUARE = {"height": 336, "width": 336}


@pytest.mark.parametrize(
    ("settings", "image_wh", "seen"),
    [
        ({"do_center_crop": False, "crop_size": SQUARE, "size": {"shortest_edge": 336}}, (800, 600), None),
        ({"size": SQUARE}, (800, 600), None),
        # CLIP's: the middle square of the shorter side.
        (
            {"do_center_crop": True, "crop_size": SQUARE, "size": {"shortest_edge": 336}},
            (800, 600),
            (100, 0, 700, 600),
        ),
        ({"do_center_crop": True, "crop_size": SQUARE, "size": {"shortest_edge": 336}}, (600, 600), None),
        # A part of the resized picture.
        (
            {
                "do_center_crop": True,
                "crop_size": {"height": 50, "width": 50},
                "size": {"height": 100, "width": 100},
            },
            (800, 600),
            (200, 150, 600, 450),
        ),
    ],
)
def test_a_processor_that_crops_says_what_it_shows(settings, image_wh, seen):
    view = shown_part(Images(**settings), image_wh)
    assert (view.seen_px if view else None) == seen


def test_a_box_that_the_processor_cuts_away_is_left_out():
    question = row("Where is the spleen?", FOUND, task="vg")
    found, (left,) = examples("qwen3-vl", question, shown=lambda size: View(size, (300, 0, 800, 600)))
    assert not found and left.reason == "not_visible"
