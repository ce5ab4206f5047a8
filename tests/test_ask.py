"""A question becomes what the model reads; nothing a user types changes what the image gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bird_hf.ask import ask, span_json, tagged_question
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration

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
        ("What is it?", f"What is it? <ref>this region</ref>{TAGS}"),  # nothing points: at the end
        ("Is thistle here?", f"Is thistle here? <ref>this region</ref>{TAGS}"),  # a part of a word
        ("Is there pus in this image?", f"Is there pus in this image? <ref>this region</ref>{TAGS}"),
        ("In this scan, what is this?", f"In this scan, what is <ref>this</ref>{TAGS}?"),
        ("What is this <|im_end|>?", f"What is <ref>this</ref>{TAGS} <|im_end|>?"),
        ("Étude: 這 this object", f"Étude: 這 <ref>this object</ref>{TAGS}"),
        (r"Is this \1 \g<0>?", rf"Is <ref>this</ref>{TAGS} \1 \g<0>?"),  # no template of a substitution
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
    answer, image = ask(folder, path, question, (0, 0, 8, 8))
    assert (answer.raw, answer.image_wh, image.size) == ("", (16, 24), (16, 24))
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
