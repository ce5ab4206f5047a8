"""Questions alone: what they are about, where that is said, and that they are what they are with their answers."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from bird_hf.train.collate import GroundingCollator
from bird_hf.train.questions import Asked, QuestionReader, lower_layers, question_targets, without_answers
from bird_hf.train.slots import BACKGROUND, UNKNOWN

QUERIES = 4  # of the tiny checkpoint: 2 x 2 slots
KIDNEY, LEFT_KIDNEY = 1, 2
CLASSES = {"kidney": KIDNEY, "left kidney": LEFT_KIDNEY}
CORNER, ELSEWHERE = (0.0, 0.0, 0.2, 0.2), (0.8, 0.8, 1.0, 1.0)
OBJECTS = [
    {"label": "kidney", "box": list(ELSEWHERE), "present": True},
    {"label": "left kidney", "box": list(CORNER), "present": True},
    {"label": "spleen", "box": None, "present": False},
]
TURNS = (
    ("Where is the left kidney?", "Here is the <ref>left kidney</ref><box>(0,0),(200,200)</box>."),
    ("What is <ref>this</ref><box>(800,800),(1000,1000)</box> called?", "This is the kidney."),
    ("Find the spleen, please.", "There is no spleen."),
)


def row(image_id, turns):
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    image = Image.new("RGB", (20, 20), (90, 60, 30))
    return {
        "image_id": image_id,
        "image": image,
        "independent": True,
        "messages": messages,
        "objects": OBJECTS,
    }


@pytest.fixture
def collator(tiny_processor):
    return GroundingCollator(tiny_processor, classes=CLASSES, reads_questions=True)


# --- what is asked --------------------------------------------------------------------------------------------


def asked_in(processor, text, objects=OBJECTS):
    """What a text asks about, each with the part of the text that says it."""
    ids = processor.tokenizer.encode(text, add_special_tokens=False)
    things = QuestionReader(processor.tokenizer).asked(ids, objects)
    return [(processor.tokenizer.decode(ids[: thing.end + 1]), thing.label, thing.boxes) for thing in things]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Where is the kidney?", [("Where is the kidney", "kidney", (ELSEWHERE,))]),
        ("Where is the left kidney?", [("Where is the left kidney", "left kidney", (CORNER,))]),
        ("Is the spleen there?", [("Is the spleen", "spleen", ())]),
        ("Describe this image.", []),
        (
            "Name <box>(800,800),(1000,1000)</box>.",
            [("Name <box>(800,800),(1000,1000)</box>", "kidney", (ELSEWHERE,))],
        ),
        (
            "Name <box>(1,2),(3,4)</box>.",
            [("Name <box>(1,2),(3,4)</box>", None, ((0.001, 0.002, 0.003, 0.004),))],
        ),
        ("A stray </box> and <box>(1,2)</box>", []),
    ],
)
def test_a_name_or_a_box_is_asked_about_where_it_has_been_said(tiny_processor, text, expected):
    assert asked_in(tiny_processor, text) == expected


def test_a_name_of_several_things_has_all_their_boxes(tiny_processor):
    twice = [OBJECTS[0], {"label": "kidney", "box": list(CORNER), "present": True}]
    assert asked_in(tiny_processor, "Find the kidney.", twice) == [
        ("Find the kidney", "kidney", (ELSEWHERE, CORNER))
    ]


def test_a_question_looks_at_the_slots_of_what_it_is_about_and_then_knows_it():
    things = [
        Asked(2, 2, "left kidney", (CORNER,)),
        Asked(3, 5, None, (ELSEWHERE,)),  # of no known name
        Asked(6, 6, "spleen", ()),
        Asked(7, 7, "kidney", (CORNER, ELSEWHERE)),  # of no one box
    ]
    looks, known, boxes = question_targets(things, 9, CLASSES, QUERIES)
    nowhere, first, last, past = [0] * 5, [1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]
    both = [1, 0, 0, 1, 0]
    assert looks.int().tolist() == [nowhere, nowhere, first, last, last, last, past, both, nowhere]
    assert known.tolist() == [UNKNOWN] * 2 + [LEFT_KIDNEY] + [UNKNOWN] * 3 + [BACKGROUND] + [UNKNOWN] * 2
    assert boxes[2].tolist() == [0, 0, 200, 200] and boxes.count_nonzero() == 2


# --- questions without their answers --------------------------------------------------------------------------


def test_a_box_that_is_opened_in_one_question_and_closed_in_another_is_none(collator):
    """What lies between them is an answer."""
    stray = [("What is <box>(1,2)?", "Nothing."), ("And ),(3,4)</box></box>?", "Nothing.")]
    assert (collator([row("ct--a", stray)])["asked_classes"] == UNKNOWN).all()


def test_what_answers_name_is_not_asked(collator):
    batch = collator([row("ct--a", TURNS)])
    assert not (batch["slot_looks"].any(-1) & ~batch["is_question"]).any()
    assert batch["asked_classes"][batch["asked_classes"] != UNKNOWN].tolist() == [
        LEFT_KIDNEY,
        KIDNEY,
        BACKGROUND,
    ]


@torch.no_grad()
def test_questions_are_what_they_are_with_their_answers(collator, tiny_model):
    """Rows of different lengths, in one batch with and without the answers."""
    batch = collator([row("ct--a", TURNS), row("ct--b", TURNS[2:])])
    cut = without_answers(batch)
    assert cut["input_ids"].shape[1] == batch["is_question"].sum(-1).max() < batch["input_ids"].shape[1]
    states = [
        tiny_model.model(
            **{name: each[name] for name in ("input_ids", "position_ids", "attention_mask", "pixel_values")}
        ).last_hidden_state
        for each in (batch, cut)
    ]
    for number, kept in enumerate(batch["is_question"]):
        count = int(kept.sum())
        torch.testing.assert_close(states[1][number, :count], states[0][number, kept], atol=3e-5, rtol=1e-5)
        for name in ("slot_looks", "asked_classes", "asked_boxes"):
            assert torch.equal(cut[name][number, :count], batch[name][number, kept])
            assert (cut["asked_classes"][number, count:] == UNKNOWN).all()
            assert not cut["slot_looks"][number, count:].any()


def test_only_the_lower_layers_run_and_all_are_there_again(tiny_model):
    language_model = tiny_model.model.language_model
    layers, seen = language_model.layers, []
    hooks = [
        layer.register_forward_hook(lambda *args, at=at: seen.append(at)) for at, layer in enumerate(layers)
    ]
    try:
        with lower_layers(language_model, 1):
            tiny_model(input_ids=torch.tensor([[5, 6]]))
        assert seen == [0] and language_model.layers is layers
        with pytest.raises(ZeroDivisionError), lower_layers(language_model, 1):
            raise ZeroDivisionError
        assert language_model.layers is layers and len(layers) > 1
    finally:
        for hook in hooks:
            hook.remove()
