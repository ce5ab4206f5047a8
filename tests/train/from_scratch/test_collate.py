"""Loss weights of tokens, and the image tokens that each token of a box should attend to."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from bird_hf.hub.image_processing_bird import BirdImageProcessor
from bird_hf.hub.processing_bird import BirdProcessor
from bird_hf.train.collate import IGNORED
from bird_hf.train.from_scratch.collate import LossWeights, SupervisedCollator
from bird_hf.train.from_scratch.tokenizer import train_tokenizer

pytestmark = pytest.mark.slow

QUERIES = 4  # of the tiny checkpoint
RED = Image.new("RGB", (40, 20), (200, 30, 30))
TURNS = (
    ("Where is the left kidney?", "<ref>left kidney</ref><box>(7,45),(1000,999)</box>"),
    ("What is <ref>this</ref><box>(12,345),(678,900)</box>?", "A tumor."),
)
WEIGHTS = LossWeights(punctuation=2.0, text=3.0)


def row(*turns: tuple[str, str], **cells):
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return {"image_id": "ct--x", "image": RED, "independent": True, "messages": messages} | cells


@pytest.fixture(scope="module")
def with_coordinate_tokens():
    tokenizer = train_tokenizer([answer for _, answer in TURNS], 600, coordinate_tokens=True)
    return BirdProcessor(BirdImageProcessor(size={"height": 32, "width": 32}), tokenizer, num_queries=QUERIES)


# --- loss weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processor", ["tiny_processor", "with_coordinate_tokens"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        # one letter a character: c = coordinates; p = punctuation; x = text
        ("<box>(7,45),(1000,999)</box>", "<pcpccpppccccpcccp>"),
        ("<box>(0,10),(100,20)</box>", "<pcpccpppcccpccp>"),
        ("<box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>", "<pcpcpppcpcp><pcpcpppcpcp>"),
        ("12 mm, (3,4)", "xxxxxxxxxxxx"),  # digits outside a box are text
    ],
)
def test_tokens_of_a_box_have_weights_of_their_own(request, processor, answer, expected):
    collator = SupervisedCollator(request.getfixturevalue(processor), weights=WEIGHTS)
    packed = collator.pack(row(("Where?", answer)))
    learnt = [index for index, label in enumerate(packed.labels) if label != IGNORED][:-1]  # without the end
    meaning = {"c": 1.0, "p": 2.0, "x": 3.0, "<": 3.0, ">": 3.0}
    weights, of_tokens = [], collator.loss_weights(packed)
    for index in learnt:
        token = collator.processor.tokenizer.decode([packed.input_ids[index]])
        weights += [of_tokens[index]] * len(_characters(token))
    assert weights == [meaning[kind] for kind in expected]


def _characters(text: str) -> list[str]:
    """Characters, a tag counting as one."""
    return list(text.replace("<box>", "<").replace("</box>", ">"))


def test_weights_are_ones_by_default(tiny_processor):
    collator = SupervisedCollator(tiny_processor)
    assert set(collator.loss_weights(collator.pack(row(*TURNS)))) == {1.0}


def test_padding_has_no_weight(tiny_processor):
    collator = SupervisedCollator(tiny_processor, weights=WEIGHTS)
    short = row(TURNS[1])
    batch, length = collator([short, row(*TURNS)]), len(collator.pack(short).input_ids)
    assert (batch["loss_weights"][0, length:] == 0).all()
    assert batch["loss_weights"][0, :length].tolist() == collator.loss_weights(collator.pack(short))


# --- attention targets ----------------------------------------------------------------------------------------


def test_an_answer_attends_to_its_boxes_or_past_the_image_and_a_question_to_its_own_box(tiny_processor):
    collator = SupervisedCollator(tiny_processor, classes={"left kidney": 1, "kidney": 2})
    turns = (
        (
            "Where is the kidney?",
            "Here: <ref>kidney</ref><box>(0,0),(200,200)</box><box>(800,0),(999,99)</box>.",
        ),
        ("What is <ref>this</ref><box>(800,800),(990,990)</box>?", "A tumor."),
        ("Is there a right kidney?", "No."),
        ("Is there a left kidney?", "Yes."),
    )
    objects = [
        {"label": "left kidney", "box": [0.0, 0.0, 0.2, 0.2], "present": True},
        {"label": "kidney", "box": [0.0, 0.0, 0.2, 0.2], "present": True},
        {"label": "right kidney", "box": None, "present": False},
    ]
    packed_row = row(*turns, objects=objects)
    targets, packed = collator([packed_row])["attention_targets"][0], collator.pack(packed_row)
    convert = tiny_processor.tokenizer.convert_tokens_to_ids
    opened = [index for index, token in enumerate(packed.input_ids) if token == convert("<box>")]
    closed = [index for index, token in enumerate(packed.input_ids) if token == convert("</box>")]
    begun = next(index for index, label in enumerate(packed.labels) if label != IGNORED) - 1
    expected = torch.zeros(len(packed.input_ids), QUERIES + 1, dtype=torch.bool)
    expected[begun : closed[0], 0] = True  # the 2 x 2 image tokens row by row
    expected[closed[0] : closed[1], 1] = True
    expected[opened[2] : closed[2], 3] = True
    absent = [index for index, turn in enumerate(packed.turns) if turn == 3]
    answer = [index for index in absent if packed.labels[index] != IGNORED]
    expected[answer[0] - 1 : answer[-1], QUERIES] = True
    assert torch.equal(targets, expected)
