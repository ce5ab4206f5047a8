"""Outcomes of answers: a table of answers for each dialect, refusals, silence, and ways to say that it is absent."""

from __future__ import annotations

import time

import pytest

from bird_hf.eval.outcomes import MAX_BOXES, Outcome, outcome_counts, outcome_of, outcomes
from bird_hf.eval.predictions import Prediction

BOX = "<box>(100,100),(400,300)</box>"


@pytest.mark.parametrize(
    "response",
    [
        f"<ref>liver</ref>{BOX}",
        f"Here is the <ref>liver</ref>{BOX}.",
        BOX,  # a box without a phrase is a box
        f"It is at {BOX}{BOX}",
        f"<|im_start|>assistant\n{BOX}.<|im_end|>\n<|endoftext|>",  # the chat format of the original
        f"The nodule is <5 mm: {BOX}",  # a bare < is text
        f"There is no doubt that it is here: {BOX}",
        f"I'm sorry, I am not sure, but <ref>liver</ref>{BOX}",
    ],
)
def test_an_answer_with_a_readable_box_is_answered(response):
    assert outcome_of("vg", response) is Outcome.ANSWERED


@pytest.mark.parametrize(
    "response",
    [
        "There is no liver in this image.",
        "There is no <ref>liver</ref> in this image.",
        "I do not know this name.",
        "I don't know the word 'zorble'.",
        "There are no polyps.",
        "There isn't a liver here.",
        "There is currently no evidence of a nodule.",
        "The liver is not visible.",
        "The liver isn't clearly visible in this slice.",
        "The liver is not present in the image.",
        "The image does not show the liver.",
        "This slice doesn't contain a kidney.",
        "No liver can be seen.",
        "No.",
        "None.",
        "Absent.",
        "The left kidney is absent.",
        "I cannot see a liver in this image.",
        "I can't find it.",
        "The liver cannot be found here.",
        "I'm sorry, but there is no liver in this image.",
        "I was unable to locate the liver.",
        "I cannot provide a box: the liver is not visible.",  # the statement counts
        "There is no liver in this image.<|im_end|>\n",
    ],
)
@pytest.mark.parametrize("kind", ["vg", "absent", "foreign"])
def test_an_answer_can_say_that_the_object_is_absent(kind, response):
    assert outcome_of(kind, response) is Outcome.SAID_ABSENT


@pytest.mark.parametrize(
    "response",
    [
        "",
        " \n",
        "...",
        "<|endoftext|>",
        "I cannot help with that.",
        "I'm sorry, I can't assist with that request.",
        "Sorry.",
        "As an AI language model, I cannot view images.",
        "I am unable to provide medical advice.",
        "I cannot see images.",
        "I can’t interpret this.",
        "The liver is in the upper right of the abdomen.",  # no box where one was asked for
        "yes",
        "No problem! The liver is on the left.",
        "<ref>liver</ref>",
        # Broken tags.
        "<box>(100,100),(400,300)",
        "<ref>liver<box>(100,100),(400,300)</box>",
        f"{BOX}</box>",
        "<box>(100,100)</box>",
        "<box>(400,300),(100,100)</box>",
        "<box>(100,100),(400,3000)</box>",
        "<box>(0.1,0.1),(0.4,0.3)</box>",
        "It is at (100,100),(400,300)",  # a box without its tag
        f"<ref>liver</ref>{BOX}<box>(1,2)</box>",  # one good and one broken
        # Other models' boxes.
        '{"bbox_2d": [100, 100, 400, 300], "label": "liver"}',
        '```json\n[{"bbox_2d": [100, 100, 400, 300], "label": "liver"}]\n```',
        '{"box_2d": [1, 2, 3, 4]}',
        "<|object_ref_start|>liver<|object_ref_end|><|box_start|>(100,100),(400,300)<|box_end|>",
        "<ref>liver</ref><box>[[100, 100, 400, 300]]</box>",
        "[[100,100,400,300]]",
        "The liver is at [0.10, 0.10, 0.40, 0.30].",
        "[0.1 0.1 0.4 0.3]",
        "<loc_100><loc_100><loc_400><loc_300>",
        "<loc0100><loc0100><loc0400><loc0300> liver",
        "liver<loc_100><loc_100><loc_400><loc_300>",
        "<phrase>liver</phrase><object><patch_index_0044><patch_index_0863></object>",
        "<obj>liver<x10><y10><x40><y30></obj>",
        "<|ref|>liver<|/ref|><|det|>[[100, 100, 400, 300]]<|/det|>",
        "<p>liver</p> {<10><10><40><30>}",
        "{<10><10><40><30>}",
        "<bbox>100,100,400,300</bbox>",
        f"<|box_start|>{BOX}",  # a box of ours inside another model's markup
        BOX * (MAX_BOXES + 1),  # no answer
    ],
)
@pytest.mark.parametrize("kind", ["vg", "foreign"])
def test_silence_refusals_dialects_and_broken_tags_are_unreadable(kind, response):
    assert outcome_of(kind, response) is Outcome.UNREADABLE


@pytest.mark.parametrize("kind", ["roc", "rc", "mia"])
@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        ("The left kidney.", Outcome.ANSWERED),
        ("left kidney", Outcome.ANSWERED),
        (f"<ref>liver</ref>{BOX} is large.", Outcome.ANSWERED),
        ("The left lung. There is no nodule.", Outcome.ANSWERED),  # something is named first
        ("A lesion of 5 mm [1].", Outcome.ANSWERED),
        ("There is no object here.", Outcome.SAID_ABSENT),
        ("No, there is no liver.", Outcome.SAID_ABSENT),
        ("", Outcome.UNREADABLE),
        ("?!", Outcome.UNREADABLE),
        ("I cannot help with that.", Outcome.UNREADABLE),
        ("I'm sorry, but I can't assist with that.", Outcome.UNREADABLE),
        ("<loc_1><loc_2><loc_3><loc_4>", Outcome.UNREADABLE),
        ('{"label": "liver", "bbox": [1, 2, 3, 4]}', Outcome.UNREADABLE),
        ("The <ref>liver is large.", Outcome.UNREADABLE),
    ],
)
def test_questions_for_words(kind, response, outcome):
    assert outcome_of(kind, response) is outcome


def test_every_outcome_is_counted():
    answers = [
        Prediction(number, "ct_a.png", "Where?", BOX, response, "vg")
        for number, response in enumerate(["", BOX, ""])
    ]
    assert outcome_counts(outcomes("vg", answers)) == {"answered": 1, "said_absent": 0, "unreadable": 2}


@pytest.mark.parametrize(
    "hostile",
    ["[" * 300_000, "<" * 300_000, "[1," * 100_000, "no " * 100_000, "is not " * 50_000, "<|a" * 100_000],
)
def test_hostile_text_takes_linear_time(hostile):
    began = time.process_time()
    outcome_of("vg", hostile)
    outcome_of("mia", hostile)
    assert time.process_time() - began < 5
