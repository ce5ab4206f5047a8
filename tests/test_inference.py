"""Asking a model: from words and a box to a prompt, from batches of prompts to answers, and loading checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bird_hf
from bird_hf.answering import Decoding
from bird_hf.checkpoint.load import find_checkpoint
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Issue, Span, read
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.inference import (
    Answer,
    GroundingModel,
    Query,
    ask,
    load,
    span_json,
)
from bird_hf.questions import tagged_question

BOX = Box(0.1, 0.2, 0.3, 0.4)
TAGS = "<box>(100,200),(300,400)</box>"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is this?", f"What is <ref>this</ref>{TAGS}?"),
        ("This is what?", f"<ref>This</ref>{TAGS} is what?"),
        ("Describe this region.", f"Describe <ref>this region</ref>{TAGS}."),
        ("Name this structure, this one!", f"Name <ref>this structure</ref>{TAGS}, this one!"),
        ("Name this.\n", f"Name <ref>this</ref>{TAGS}."),
        ("What is it?", f"What is it? <ref>this region</ref>{TAGS}"),  # no "this": at the end
        ("Is thistle here?", f"Is thistle here? <ref>this region</ref>{TAGS}"),  # part of a word
        ("Is there pus in this image?", f"Is there pus in this image? <ref>this region</ref>{TAGS}"),
        ("In this scan, what is this?", f"In this scan, what is <ref>this</ref>{TAGS}?"),
        ("What is this <|im_end|>?", f"What is <ref>this</ref>{TAGS} <|im_end|>?"),
        ("Étude: 這 this object", f"Étude: 這 <ref>this object</ref>{TAGS}"),
        (r"Is this \1 \g<0>?", rf"Is <ref>this</ref>{TAGS} \1 \g<0>?"),  # not a template of re.sub
    ],
)
def test_a_box_stands_behind_the_words_that_point_or_at_the_end(question: str, expected: str) -> None:
    assert tagged_question(question, BOX) == expected


def test_without_a_box_a_question_stays_as_it_is() -> None:
    assert tagged_question("  Where is this?\n") == "Where is this?"


@pytest.mark.parametrize("box", [None, BOX])
@pytest.mark.parametrize("question", ["", "   ", "\n\t\u00a0"])
def test_an_empty_question_is_refused(question: str, box: Box | None) -> None:
    with pytest.raises(ValueError, match="the question is empty"):
        tagged_question(question, box)


def test_a_spans_boxes_are_given_in_both_frames() -> None:
    shown = span_json(Span("nodule", 2, 8, (Box(0, 0, 1, 1), Box(0.25, 0.5, 0.5, 1))), (400, 100))
    assert shown["boxes_unit"] == [[0, 0, 1, 1], [0.25, 0.5, 0.5, 1]]
    assert shown["boxes_px"] == [[0, 0, 400, 100], [100, 50, 200, 100]]


def ids_read(monkeypatch: pytest.MonkeyPatch, folder: Path, path: Path, question: str) -> torch.Tensor:
    """The ids that the model gets for a question."""
    seen: list[torch.Tensor] = []

    def generate(_self: Any, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        seen.append(input_ids)
        return input_ids  # no new token

    monkeypatch.setattr(BirdForConditionalGeneration, "generate", generate)
    answer = ask(path, question, (0, 0, 8, 8), folder)
    assert (answer.raw, answer.image_wh, answer.image.size) == ("", (16, 24), (16, 24))
    return seen[0][0]


@pytest.mark.parametrize(
    "typed", ["<imgpad>", "<|im_end|>", "<img><imgpad></img>", "<|im_start|>system", "</img>"]
)
def test_typed_control_tokens_take_no_part_in_the_conversation(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, tiny_processor: Any, tmp_path: Path, typed: str
) -> None:
    path = tmp_path / "image.png"
    Image.new("L", (16, 24)).save(path)
    plain, odd = (
        ids_read(monkeypatch, tiny_checkpoint, path, f"What is this {words}?") for words in ("here", typed)
    )
    names = ["<imgpad>", "<img>", "</img>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    for token in tiny_processor.tokenizer.convert_tokens_to_ids(names):
        assert (plain == token).sum() == (odd == token).sum()
    assert (odd == tiny_processor.image_token_id).sum() == tiny_processor.num_queries


# --- batches ----------------------------------------------------------------------------------------------

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
    return GroundingModel(model, processor).generate(queries, **{"max_new_tokens": 10} | options)


@pytest.fixture(scope="module")
def alone(tiny_checkpoint, tiny_processor):
    model = load(tiny_checkpoint).model
    return [text for query in QUERIES for text in answers(model, tiny_processor, [query])]


def test_the_answers_differ(alone):
    """Otherwise the tests below could not tell the answers apart."""
    assert len(set(alone)) == len(QUERIES)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_batch_answers_as_each_alone_in_order(tiny_model, tiny_processor, alone, batch_size):
    assert answers(tiny_model, tiny_processor, QUERIES, batch_size=batch_size) == alone
    backwards = answers(tiny_model, tiny_processor, QUERIES[::-1], batch_size=batch_size)
    assert backwards == alone[::-1]


def test_an_image_is_computed_once_for_all_questions_of_a_batch(tiny_model, tiny_processor):
    seen = []
    tiny_model.model.vision_tower.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    answers(tiny_model, tiny_processor, QUERIES)
    assert seen == [len({id(query.image) for query in QUERIES if query.image is not None})]
    assert sum(query.image is not None for query in QUERIES) > seen[0]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_samples_stand_with_their_question_and_repeat(tiny_model, tiny_processor, batch_size):
    """The texts of a batch come one after the other, three for each question, in the order of their length."""
    model = GroundingModel(tiny_model, tiny_processor)
    decoding = Decoding(n=3, temperature=1.0, max_new_tokens=4, seed=7)
    said = model.sample(QUERIES, decoding, batch_size)
    assert [len(texts) for texts in said] == [3] * len(QUERIES)
    assert len({*said}) == len(QUERIES)
    assert model.sample(QUERIES, decoding, batch_size) == said
    assert model.sample(QUERIES, replace(decoding, seed=8), batch_size) != said


def test_nothing_asked_gives_nothing(tiny_model, tiny_processor):
    assert answers(tiny_model, tiny_processor, []) == []


def test_answers_are_greedy_continuations(tiny_model, tiny_processor, alone):
    """Compared with single steps, without a cache or a batch, that take the most likely token."""
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
    """As an image token, <imgpad> would raise an error: there are pixels for one image only."""
    assert answers(tiny_model, tiny_processor, [Query("What is <imgpad><|im_end|>?", RED)])


# --- loading -------------------------------------------------------------------------------------------------


def test_any_other_name_is_left_to_the_loader_to_refuse() -> None:
    assert find_checkpoint("bird-that-is-missing") == Path("bird-that-is-missing")
    with pytest.raises(ValueError, match=r"^bird-that-is-missing: no such folder; run `bird quickstart`"):
        load("bird-that-is-missing")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders that are loaded; their models answer every question with KIDNEY."""
    folders: list[Path] = []

    def load_fake(folder: Path) -> GroundingModel:
        folders.append(folder)
        return GroundingModel(None, SimpleNamespace(known_names=()))

    inference = bird_hf.inference
    inference._load_cached.cache_clear()
    monkeypatch.setattr(inference, "load", load_fake)
    monkeypatch.setattr(GroundingModel, "sample", lambda _self, queries, *_: [(KIDNEY,)] * len(queries))
    yield folders
    inference._load_cached.cache_clear()


def test_a_checkpoint_is_loaded_once_until_its_files_change(
    loads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "mine" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_text("first")
    for name in ("mine", tmp_path / "mine", str(tmp_path / "mine")):
        ask(RED, "Where?", model=name)
    assert loads == [tmp_path / "mine"]
    weights.write_text("second")
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    ask(RED, "Where?", model="mine")
    assert loads == [tmp_path / "mine"] * 2


def test_a_loaded_model_is_asked_as_it_is(loads: list[Path]) -> None:
    assert ask(RED, "Where?", model=GroundingModel(None, SimpleNamespace(known_names=()))).raw == KIDNEY
    assert loads == []


# --- answers -------------------------------------------------------------------------------------------------

KIDNEY = "The <ref>left kidney</ref><box>(100,250),(500,1000)</box> is here. <box>(1,2)</box>"


def test_an_answer_holds_words_boxes_and_issues() -> None:
    answer = Answer.from_raw(KIDNEY, Image.new("RGB", (200, 80)))
    assert answer.text == "The left kidney is here. "
    assert answer.spans == (Span("left kidney", 4, 15, (Box(0.1, 0.25, 0.5, 1),)),)
    assert answer.boxes == answer.spans[0].boxes
    assert answer.boxes_px == ((20, 20, 100, 80),)
    assert (answer.issues, answer.image_wh) == ((Issue.NOT_FOUR_NUMBERS,), (200, 80))
    assert answer.to_json() == {
        "text": answer.text,
        "raw": KIDNEY,
        "spans": [span_json(answer.spans[0], (200, 80))],
        "issues": ["not_four_numbers"],
        "remarks": [],
        "question": "",
        "question_boxes_unit": [],
        "question_boxes_px": [],
        "image_wh": [200, 80],
        "model": "",
    }


def test_an_answer_holds_its_question_and_its_model(tiny_checkpoint: Path) -> None:
    answer = load(tiny_checkpoint).ask(RED, "What is this?", box=(10, 5, 30, 20))
    shown = answer.to_json()
    assert (answer.question.text, answer.model) == ("What is this?", str(tiny_checkpoint))
    assert shown["question"] == "What is this?"
    assert shown["question_boxes_unit"] == [[0.25, 0.25, 0.75, 1.0]]
    assert shown["question_boxes_px"] == [[10.0, 5.0, 30.0, 20.0]]
    assert (shown["image_wh"], shown["model"]) == ([40, 20], str(tiny_checkpoint))


def test_the_box_of_the_question_is_drawn_too(tiny_checkpoint: Path) -> None:
    black = Image.new("RGB", (600, 600))
    question = read("What is <ref>this</ref><box>(500,500),(900,900)</box>?")
    drawn = Answer.from_raw(KIDNEY, black, question=question).draw()
    assert drawn.getpixel((300, 400)) != (0, 0, 0) != drawn.getpixel((60, 400))
    assert (
        Answer.from_raw(KIDNEY, black).draw().getpixel((539, 400)) == (0, 0, 0) != drawn.getpixel((539, 400))
    )


@pytest.mark.parametrize(
    ("known", "answered", "remarks"),
    [
        (
            {"ct": ["left kidney", "liver"]},
            KIDNEY,
            (
                "the answer is about 'left kidney', not 'unicorn'",
                "'unicorn' is not among the 2 names this model was trained on",
            ),
        ),
        (
            {},
            KIDNEY,
            ("the answer is about 'left kidney', not 'unicorn'",),
        ),  # converted: its names are not known
        ({"ct": ["unicorn"]}, "There is no unicorn in this image.", ()),
    ],
)
def test_answers_have_remarks_on_their_names(
    tiny_model, tiny_processor, monkeypatch, known, answered, remarks
):
    processor = copy(tiny_processor)
    processor.label_names = known
    model = GroundingModel(tiny_model, processor)
    monkeypatch.setattr(model, "sample", lambda queries, *_: [(answered,)] * len(queries))
    answer = model.ask(RED, "Where is the unicorn?")
    assert (answer.text, answer.remarks) == (read(answered).text, remarks)
    assert answer.to_json()["remarks"] == list(remarks)


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.5, 0.9), (0, 0, 1, 1), np.array([0.1, 0.2, 0.5, 0.9])])
def test_fractions_are_not_taken_for_pixels(box: Any) -> None:
    with pytest.raises(ValueError, match=r"boxes are in pixels; for fractions of the image use bird_hf.Box"):
        Query.about(RED, "What is this?", box)


def test_a_dtype_and_a_device_may_be_chosen(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint, device="cpu", dtype="bfloat16")
    assert {(value.dtype, value.device.type) for value in model.model.parameters()} == {
        (torch.bfloat16, "cpu")
    }
    assert model.ask(RED, "Where?").image_wh == (40, 20)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"device": "gpu"}, "device 'gpu' cannot be used here; use cpu"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used here; use cpu"),
        ({"dtype": "int8"}, "dtype 'int8' is unknown; use float32, bfloat16, float16"),
        ({"dtype": "fast"}, "dtype 'fast' is unknown; use float32, bfloat16, float16"),
    ],
)
def test_an_unknown_device_or_dtype_is_refused(tiny_checkpoint: Path, options: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(tiny_checkpoint, **options)


def test_an_answer_is_drawn_on_its_image() -> None:
    answer = Answer.from_raw(KIDNEY, Image.new("RGB", (600, 300)))
    drawn = answer.draw()
    assert drawn.size == (600, 300)
    assert drawn.getpixel((60, 150)) != (0, 0, 0) == drawn.getpixel((200, 150))
    assert answer.image.getpixel((60, 150)) == (0, 0, 0)


def test_without_an_image_boxes_have_no_pixels() -> None:
    answer = Answer.from_raw(KIDNEY)
    assert (answer.image_wh, len(answer.boxes)) == (None, 1)
    for use in (lambda: answer.boxes_px, answer.to_json, answer.draw):
        with pytest.raises(ValueError, match="a question without an image"):
            use()


@pytest.mark.parametrize(
    "box", [(20, 8, 100, 80), [20.0, 8, 1e2, 80], Box(0.1, 0.1, 0.5, 1), np.array([20, 8, 100, 80])]
)
@pytest.mark.parametrize("form", ["path", "str", "bytes", "pil"])
def test_an_image_and_a_box_may_come_in_any_form(tmp_path: Path, form: str, box: Any) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.arange(16000, dtype=np.uint16).reshape(80, 200)).save(path)
    forms = {"path": path, "str": str(path), "bytes": path.read_bytes(), "pil": Image.open(path)}
    query = Query.about(forms[form], "What is this?", box)
    assert query.question == "What is <ref>this</ref><box>(100,100),(500,1000)</box>?"
    assert (query.image.mode, query.image.size) == ("RGB", (200, 80))
    assert query.image.getextrema()[0] == (0, 255)  # 16 bits are scaled, not cut off


def test_boxes_refer_to_the_upright_image(tmp_path: Path) -> None:
    sideways = Image.new("RGB", (80, 200))
    sideways.getexif()[0x0112] = 6  # EXIF orientation: rotate by 90 degrees
    assert Query.about(sideways, "What is this?", (0, 0, 200, 80)).image.size == (200, 80)
    with pytest.raises(ValueError, match="pixels of a 200x80 image"):
        Query.about(sideways, "What is this?", (0, 0, 80, 200))


def test_the_public_function_asks_the_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    Image.new("L", (40, 30), 90).save(tmp_path / "scan.png")
    model = bird_hf.load(tiny_checkpoint)
    first = bird_hf.ask(tmp_path / "scan.png", "What is this?", box=(1, 2, 30, 20), model=tiny_checkpoint)
    assert first == model.ask(tmp_path / "scan.png", "What is this?", Box(0.025, 2 / 30, 0.75, 2 / 3))
    assert first.raw and isinstance(first, bird_hf.Answer)


def test_many_queries_give_an_answer_each(tiny_checkpoint: Path, alone: list[str]) -> None:
    found = load(tiny_checkpoint).answers(QUERIES, batch_size=2, max_new_tokens=10)
    assert [answer.raw for answer in found] == alone
    assert [answer.image_wh for answer in found] == [(40, 20), (10, 30), (40, 20), (40, 20), None]
