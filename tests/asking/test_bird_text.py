"""Answers of other models in BiRD's grammar: nothing that was read is lost, and nothing unreadable becomes readable."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bird_hf import Box, dialects
from bird_hf.asking.bird_text import bird_text
from bird_hf.eval.outcomes import Outcome, outcome_of
from bird_hf.eval.paper_rules import grounding_recall
from bird_hf.hub.grounding import GroundedText, Issue, Span, read

BOX = Box(0.25, 0.15, 0.625, 0.55)
QWEN = dialects.get("qwen3-vl")
VIEW = QWEN.view((800, 600))

JSON = '[{"bbox_2d": [250, 150, 625, 550], "label": "left kidney"}]'
BIRD = "<ref>left kidney</ref><box>(250,150),(625,550)</box>"


@pytest.mark.parametrize(
    ("dialect", "said", "expected", "outcome"),
    [
        ("qwen3-vl", JSON, BIRD, Outcome.ANSWERED),
        ("qwen3-vl", f"Sure.\n\n{JSON}\nDone.", f"Sure.  {BIRD} Done.", Outcome.ANSWERED),  # on one line
        ("qwen3-vl", "[]", "There is no such object in this image.", Outcome.SAID_ABSENT),
        # One box is whole, the list is cut: the box is kept, and the answer is unreadable.
        ("qwen3-vl", JSON[:-1] + ', {"bb', f"{BIRD}<box></box>", Outcome.UNREADABLE),
        ("qwen3-vl", "", "", Outcome.UNREADABLE),
        ("qwen3-vl", "<think>Where can it be", "<box></box>", Outcome.UNREADABLE),
        # Another model's form is read neither in the dialect nor, behind its back, as BiRD's own.
        ("qwen3-vl", BIRD, "left kidney<box></box>", Outcome.UNREADABLE),
        (
            "qwen3-vl",
            "Here (250,150),(625,550).",
            "Here (250,150),(625,550).<box></box>",
            Outcome.UNREADABLE,
        ),
        # In InternVL's tags, but without its lists.
        ("internvl", BIRD, "<ref>left kidney</ref><box></box>", Outcome.UNREADABLE),
        ("internvl", "<ref>left kidney</ref><box>[[250, 150, 625, 550]]</box>", BIRD, Outcome.ANSWERED),
        # A box without a label stands before the phrases, or it would be read as one of theirs.
        (
            "paligemma",
            "<loc0153><loc0256><loc0563><loc0639> left kidney ; <loc0000><loc0000><loc1023><loc1023>",
            "<box>(0,0),(1000,1000)</box><ref>left kidney</ref><box>(250,150),(625,550)</box>",
            Outcome.ANSWERED,
        ),
        ("medgemma", "<unused94>no end", "<box></box>", Outcome.UNREADABLE),
        ("bird", BIRD, BIRD, Outcome.ANSWERED),
        # What only becomes a tag when others are gone.
        ("qwen3-vl", "<re<box></box>f>x", "<box></box>", Outcome.UNREADABLE),
    ],
)
def test_an_answer_keeps_its_words_boxes_and_outcome(
    dialect: str, said: str, expected: str, outcome: Outcome
) -> None:
    written = bird_text(dialects.get(dialect).read(said, image_wh=(800, 600)))
    assert written == expected
    assert outcome_of("vg", written) is outcome


def test_no_box_of_another_form_counts_by_the_papers_rules_either() -> None:
    for said in (BIRD, "Here (250,150),(625,550)."):
        written = bird_text(QWEN.read(said, VIEW))
        assert grounding_recall(BIRD, written).hits == 0
    assert grounding_recall(BIRD, bird_text(QWEN.read(JSON, VIEW))).hits == 1


_WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20) | st.sampled_from(
    ["<ref>", "</box>", "<|im_end|>", "left kidney", "(1,2),(3,4)", "\n", "<re<box>f>"]
)
_BOXES = st.lists(
    st.tuples(*[st.floats(0, 0.49)] * 2, *[st.floats(0.51, 1)] * 2).map(lambda corners: Box(*corners)),
    max_size=3,
).map(tuple)


@st.composite
def answers(draw: st.DrawFn) -> GroundedText:
    pieces: list[str] = []
    spans: list[Span] = []
    length = 0
    for words, phrase, boxes in draw(st.lists(st.tuples(_WORDS, _WORDS, _BOXES), max_size=4)):
        start = length + len(words)
        length = start + len(phrase)
        pieces += [words, phrase]
        if phrase or boxes:
            spans.append(Span(phrase, start, length, boxes))
    issues = draw(st.lists(st.sampled_from(Issue), max_size=2))
    return GroundedText("".join(pieces), tuple(spans), tuple(issues))


@settings(max_examples=200, deadline=None)
@given(answers())
def test_nothing_that_was_read_is_lost_and_no_box_is_won(answer: GroundedText) -> None:
    found = read(bird_text(answer))
    broken = bool(set(found.issues) - {Issue.ORPHAN_BOX})
    if set(answer.issues) - {Issue.ORPHAN_BOX}:
        assert broken
    if found.text == answer.text.replace("\n", " "):
        order = sorted(answer.spans, key=lambda span: bool(span.phrase))  # those without a phrase first
        expected = [box for span in order for box in span.boxes]
        assert len(found.boxes) == len(expected)
        for box, true in zip(found.boxes, expected, strict=True):
            assert max(abs(a - b) for a, b in zip(box.xyxy, true.xyxy, strict=True)) <= 0.0005 + 1e-9
    else:
        assert broken
