"""`bird probe`: the questions, what counts as right, the likelihood of references, and before beside after."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bird_hf.eval.probe import (
    Probed,
    probe,
    probe_document,
    read_questions,
    reference_likelihood,
    table_of_probe,
)
from bird_hf.eval.probe_checks import is_right
from bird_hf.inference import GroundingModel
from bird_hf.questions import Query

QUESTIONS = read_questions()


def test_there_are_forty_questions_in_words_and_twenty_about_pictures() -> None:
    counts = Counter(each.group for each in QUESTIONS)
    assert counts == {"arithmetic": 10, "facts": 10, "instructions": 10, "format": 10, "images": 20}
    assert all((each.image is not None) == (each.group == "images") for each in QUESTIONS)
    assert len({(each.question, str(each.image)) for each in QUESTIONS}) == 60


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: each.question[:40])
def test_a_reference_answer_is_right_and_a_wrong_one_is_not(question: Any) -> None:
    assert is_right(question.answer, question.checks)
    assert not is_right("I have nothing to say about that, I fear.", question.checks)
    assert not is_right("", question.checks)


@pytest.mark.parametrize(
    ("answer", "checks", "right"),
    [
        ("The answer is 12.", {"contains": ["12"]}, True),
        ("It is 112.", {"contains": ["12"]}, False),  # part of another number
        ("It is 12.5.", {"contains": ["12"]}, False),
        ("It is 0.12.", {"contains": ["12"]}, False),
        ("12, I think", {"contains": ["12"]}, True),
        ("TWELVE!", {"contains": ["twelve"]}, True),
        (" *Yellow*. ", {"exact": ["yellow"]}, True),
        ("Yellow, of course", {"exact": ["yellow"]}, False),
        ("a square, not a circle", {"contains": ["circle"], "without": ["square"]}, False),
        ('```json\n{"name": "Ann", "age": 30}\n```', {"keys": ["name", "age"]}, True),
        ('{"name": "Ann"}', {"keys": ["name", "age"]}, False),
        ("[" * 100_000, {"keys": ["name"]}, False),  # nesting that the JSON reader refuses
        ("apple\n\npear\nplum\n", {"lines": 3}, True),
        ("HELLO", {"upper": True}, True),
        ("Hello", {"upper": True}, False),
        ("**Certainly**, yes", {"starts": "certainly"}, True),
        ("Uncertainly", {"starts": "certainly"}, False),
    ],
)
def test_checks(answer: str, checks: dict[str, Any], right: bool) -> None:
    assert is_right(answer, checks) is right


def test_pictures_are_drawn_as_they_are_asked_about() -> None:
    pictures = {each.question: each.picture() for each in QUESTIONS if each.group == "images"}
    left = pictures["What colour is the shape on the left side of the picture?"]
    assert left is not None
    assert left.getpixel((64, 128)) == (255, 0, 0) and left.getpixel((192, 128)) == (0, 0, 255)
    assert left.getpixel((2, 2)) == (255, 255, 255)
    assert all(picture is not None and picture.mode == "RGB" for picture in pictures.values())


@pytest.fixture
def tiny(tiny_model: Any, tiny_processor: Any) -> GroundingModel:
    return GroundingModel(tiny_model, tiny_processor, "tiny")


@pytest.mark.parametrize("with_image", [False, True])
def test_likelihood_is_that_of_the_models_own_loss(tiny: GroundingModel, with_image: bool) -> None:
    question = QUESTIONS[-1] if with_image else QUESTIONS[0]
    found, tokens = reference_likelihood(tiny, Query(question.question, question.picture()), question.answer)
    content: list[dict[str, Any]] = [{"type": "text", "text": question.question}]
    if with_image:
        content.insert(0, {"type": "image", "image": question.picture()})
    talk = [{"role": "user", "content": content}, {"role": "assistant", "content": question.answer}]
    inputs = tiny.processor.apply_chat_template(talk, tokenize=True, return_dict=True, return_tensors="pt")
    ids = inputs["input_ids"]
    end = len(ids[0]) - 1  # the line feed after the answer is not scored
    labels = torch.full_like(ids, -100)
    labels[:, end - tokens : end] = ids[:, end - tokens : end]
    with torch.no_grad():
        loss = tiny.model(**inputs, labels=labels).loss.item()
    assert found == pytest.approx(-loss * tokens, rel=1e-4)
    assert (
        tiny.processor.tokenizer.decode(ids[0, end - tokens : end]).removesuffix("<|im_end|>")
        == question.answer
    )


def test_a_probe_of_the_tiny_model_is_complete_and_repeats(tiny: GroundingModel) -> None:
    asked = [QUESTIONS[0], QUESTIONS[33], QUESTIONS[-1]]
    first = probe(tiny, asked)
    assert [each.question for each in first] == [each.question for each in asked]
    again = probe_document("again", probe(tiny, asked), probe_document("tiny", first))
    for group, measures in again["groups"].items():
        assert measures["changed"] == 0
        assert measures["perplexity"] == pytest.approx(again["before"]["groups"][group]["perplexity"])
        assert math.isfinite(measures["log_likelihood_per_token"])
    json.dumps(again)


def answered(group: str, answer: str, **fields: Any) -> Probed:
    given = {"right": False, "unreadable": False, "boxes": 0, "log_likelihood": -2.0, "tokens": 2}
    return Probed(group=group, question=f"{group}?", reference="yes", answer=answer, **given | fields)


def test_measures_are_shares_of_the_answers_of_a_group() -> None:
    before = [answered("facts", "yes", right=True), answered("images", "a")]
    after = [answered("facts", "no", boxes=2, log_likelihood=-4.0), answered("images", "a ")]
    document = probe_document("b", after, probe_document("a", before))
    facts, words, images = (document["groups"][name] for name in ("facts", "words only", "images"))
    assert (facts["right"], facts["with_boxes"], facts["changed"]) == (0, 1, 1)
    assert facts["perplexity"] == pytest.approx(np.exp(2.0)) and words == facts
    assert images["changed"] == 0
    shown = table_of_probe(document).splitlines()
    assert shown[0].endswith("answers changed |") and len(shown) == 2 + 2 * 3


def test_probes_of_other_questions_are_not_compared() -> None:
    before = probe_document("a", [answered("facts", "yes")])
    with pytest.raises(ValueError, match="other questions"):
        probe_document("b", [answered("format", "yes")], before)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["nowhere"], ["nowhere"]),
        (["bird", "--before", "words.json"], ["words.json is not a file of `bird probe --out`"]),
        (["bird", "--before", "list.json"], ["list.json is not a file of `bird probe --out`"]),
        (["bird", "--out", "no/probe.json"], ["the folder no does not exist"]),
    ],
)
def test_what_cannot_be_probed_is_refused(
    run_bird: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    fragments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.json").write_text("words")
    Path("list.json").write_text("[1]")
    ran = run_bird("probe", *arguments)
    assert (ran.code, ran.out) == (2, "") and ran.err.startswith("bird: ")
    assert all(each in ran.err for each in fragments), ran.err


@pytest.mark.slow
def test_the_command_compares_a_checkpoint_with_a_file_of_before(
    run_bird: Callable[..., Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "before.json"
    assert run_bird("probe", tiny_checkpoint, "--out", file).code == 0
    ran = run_bird("probe", tiny_checkpoint, "--before", file, "--json")
    document = json.loads(ran.out)
    assert len(document["answers"]) == 60
    assert {measures["changed"] for measures in document["groups"].values()} == {0}
