"""A batch of questions is answered as each would be alone, in the order they were asked."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from bird_hf.eval.predict import Query, generate_answers

RED = Image.new("RGB", (40, 20), (200, 30, 30))
BLUE = Image.new("RGB", (10, 30), (20, 40, 220))
QUERIES = [
    Query("Where is the left kidney in this image, and is there a nodule, or a tumor, anywhere else?", RED),
    Query("What?", BLUE),
    Query("What is <ref>this</ref><box>(12,345),(678,900)</box>?", RED),
    Query("What?", RED),
    Query("Where is the left kidney?", None),
]


def answers(model, processor, queries, **options):
    return generate_answers(model, processor, queries, **{"max_new_tokens": 10} | options)


@pytest.fixture(scope="module")
def alone(tiny_checkpoint, tiny_processor):
    from bird_hf.checkpoint import load_checkpoint

    model, _ = load_checkpoint(tiny_checkpoint)
    return [text for query in QUERIES for text in answers(model, tiny_processor, [query])]


def test_the_answers_differ(alone):
    """Else the tests below could not tell an answer from another."""
    assert len(set(alone)) == len(QUERIES)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_batch_answers_as_each_alone_in_order(tiny_model, tiny_processor, alone, batch_size):
    assert answers(tiny_model, tiny_processor, QUERIES, batch_size=batch_size) == alone
    backwards = answers(tiny_model, tiny_processor, QUERIES[::-1], batch_size=batch_size)
    assert backwards == alone[::-1]


def test_nothing_asked_gives_nothing(tiny_model, tiny_processor):
    assert answers(tiny_model, tiny_processor, []) == []


def test_answers_are_greedy_continuations(tiny_model, tiny_processor, alone):
    """Step by step, without a cache or a batch: the likeliest token of the whole text so far."""
    query = QUERIES[1]
    content = [{"type": "image", "image": query.image}, {"type": "text", "text": query.question}]
    inputs = tiny_processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    ids, prompt = inputs["input_ids"], inputs["input_ids"].shape[1]
    with torch.no_grad():
        for _ in range(10):
            logits = tiny_model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
            if ids[0, -1] == tiny_model.generation_config.eos_token_id:
                break
    assert tiny_processor.tokenizer.decode(ids[0, prompt:], skip_special_tokens=True) == alone[1]


def test_max_new_tokens_ends_an_answer(tiny_model, tiny_processor, alone):
    (short,) = answers(tiny_model, tiny_processor, QUERIES[:1], max_new_tokens=3)
    assert alone[0].startswith(short.rstrip("�")) and len(short) < len(alone[0])


def test_control_tokens_of_a_question_are_plain_text(tiny_model, tiny_processor):
    """Were the slot a slot, the model would refuse the text: it has pixels for one image only."""
    assert answers(tiny_model, tiny_processor, [Query("What is <imgpad><|im_end|>?", RED)])
