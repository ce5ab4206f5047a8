"""Rewards: the honest answer gets 1, no attempt to cheat gets as much, and no change for the worse gains anything."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import GroundedText, Span, read
from bird_hf.train.rewards import (
    IOU_SHARE,
    LOWEST_READABLE,
    Asked,
    box_reward,
    grounding_reward,
    has_hidden_characters,
    overlap,
    reward_parts,
    similarity,
)

LIVER = "Here is the <ref>liver</ref><box>(200,300),(500,700)</box>."
PAIR = (
    "Here are the <ref>left kidney</ref><box>(600,500),(750,680)</box> "
    "and the <ref>right kidney</ref><box>(200,500),(340,690)</box>."
)
ABSENT = "There is no spleen in this image."
BOX = Box(0.2, 0.3, 0.5, 0.7)

corner = st.integers(0, 1000)


@st.composite
def boxes(draw):
    x1, x2 = sorted(draw(st.lists(corner, min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(draw(st.lists(corner, min_size=2, max_size=2, unique=True)))
    return Box.from_thousandths((x1, y1, x2, y2))


def reward(text: str, reference: str = LIVER, absent: tuple[str, ...] = ()) -> float:
    return grounding_reward(read(text), Asked.from_reference(read(reference), absent))


def answer(boxes_given, name: str = "liver") -> GroundedText:
    """An answer that gives boxes, each behind a phrase of its own."""
    text = " ".join([name] * len(boxes_given))
    spans = [
        Span(name, start := number * (len(name) + 1), start + len(name), (box,))
        for number, box in enumerate(boxes_given)
    ]
    return GroundedText(text, tuple(spans))


# --- honest answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reference", "absent"),
    [
        pytest.param(LIVER, LIVER, (), id="the reference"),
        pytest.param("The <ref>Liver</ref><box>(200,300),(500,700)</box>", LIVER, (), id="other words"),
        pytest.param(PAIR, PAIR, (), id="two objects"),
        pytest.param(ABSENT, ABSENT, ("spleen",), id="absent"),
        pytest.param("No spleen is visible.", ABSENT, ("spleen",), id="absent in other words"),
        pytest.param("It is not visible.", ABSENT, (), id="absent, name not known"),
        pytest.param(
            f"{LIVER} There is no spleen in this image.",
            f"{LIVER} There is no spleen in this image.",
            ("spleen",),
            id="one there and one absent",
        ),
    ],
)
def test_an_honest_answer_gets_everything(text, reference, absent):
    assert reward(text, reference, absent) == 1.0


def test_a_near_miss_gets_less_and_a_nearer_one_more():
    texts = [
        f"Here is the <ref>liver</ref><box>({200 + by},300),({500 + by},700)</box>."
        for by in range(0, 500, 20)
    ]
    rewards = [reward(text) for text in texts]
    assert rewards[0] == 1.0 and rewards[-1] > LOWEST_READABLE
    assert all(near > far for near, far in pairwise(rewards))  # also where the IoU is 0


# --- attempts to cheat ----------------------------------------------------------------------------------------

_ONE = "<ref>liver</ref><box>(200,300),(500,700)</box>"
CHEATS = {
    # boxes in the hope that one fits
    "spam": "<ref>liver</ref>" + "".join(
        f"<box>({x},{y}),({x + 300},{y + 400})</box>" for x in range(0, 701, 100) for y in range(0, 601, 100)
    ),
    "more boxes than are read": "<ref>liver</ref>" + "<box>(200,300),(500,700)</box>" * 1001,
    "whole image": "Here is the <ref>liver</ref><box>(0,0),(1000,1000)</box>.",
    "duplicate": f"Here is the {_ONE}<box>(200,300),(500,700)</box>.",
    "duplicate phrase": f"Here is the {_ONE} and the {_ONE}.",
    "two boxes in a tag": "Here is the <ref>liver</ref><box>(200,300),(500,700),(600,300),(900,700)</box>.",
    "the right box and a guess": f"Here is the {_ONE}<box>(600,300),(900,700)</box>.",
    # text that only looks like boxes
    "NaN": "Here is the <ref>liver</ref><box>(nan,300),(500,nan)</box>.",
    "infinity": "Here is the <ref>liver</ref><box>(-inf,300),(inf,700)</box>.",
    "garbage": "<box>)(,,)</ref><quad>((((</box>",
    "thousands of digits": f"<ref>liver</ref><box>({'2' * 5000},300),(500,700)</box>",
    "fractions": "Here is the <ref>liver</ref><box>(0.2,0.3),(0.5,0.7)</box>.",
    "untagged": "Here is the liver: (200,300),(500,700).",
    "JSON": '{"bbox_2d": [200, 300, 500, 700], "label": "liver"}',
    "unclosed": "Here is the <ref>liver</ref><box>(200,300),(500,700)",
    "no area": "Here is the <ref>liver</ref><box>(200,300),(200,700)</box>.",
    "far corner swapped": "Here is the <ref>liver</ref><box>(500,700),(200,300)</box>.",
    "x and y swapped": "Here is the <ref>liver</ref><box>(300,200),(700,500)</box>.",
    "another corner pair": "Here is the <ref>liver</ref><box>(200,700),(500,300)</box>.",
    "out of range": "Here is the <ref>liver</ref><box>(200,300),(500,1700)</box>.",
    # no box at all
    "nothing": "",
    "blank": "   \n ",
    "echo of the question": "Where is the liver?",
    "denial": "There is no liver in this image.",
    "refusal": "I am sorry, I cannot help with that.",
    "denial with the box": f"There is no liver in this image. Here is the {_ONE}.",
    # wrong words
    "no phrase": "<box>(200,300),(500,700)</box>",
    "a phrase that names nothing": "Here is <ref>it</ref><box>(200,300),(500,700)</box>.",
    "another name": "Here is the <ref>spleen</ref><box>(200,300),(500,700)</box>.",
    "two names": "Here is the <ref>liver spleen</ref><box>(200,300),(500,700)</box>.",
    "each name": f"Here is the {_ONE}, the <ref>spleen</ref><box>(200,300),(500,700)</box>.",
    # text beside the answer
    "enormous text": f"Here is the {_ONE}. " + "The liver is the liver. " * 500,
    "white space": f"Here is the {_ONE}." + " " * 5000,
    "zero-width spaces": f"Here is the {_ONE}." + "\u200b" * 3,
    "direction marks": f"\u202eHere is the {_ONE}.",
    "NUL": f"Here is the {_ONE}.\0",
    "a hidden letter in the name": "Here is the <ref>li\u200bver</ref><box>(200,300),(500,700)</box>.",
}  # fmt: skip


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in CHEATS.items()])
def test_a_cheat_gets_less_than_the_honest_answer(text):
    assert 0.0 <= reward(text) < 0.9


@pytest.mark.parametrize(
    "name",
    ["NaN", "infinity", "garbage", "thousands of digits", "fractions", "untagged", "JSON", "unclosed", "no area",
     "far corner swapped", "another corner pair", "out of range", "nothing", "blank", "echo of the question", "denial",
     "refusal", "denial with the box", "zero-width spaces", "direction marks", "NUL", "a hidden letter in the name",
     "more boxes than are read"],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_or_denies_gets_nothing(name):
    assert reward(CHEATS[name]) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "Here are the <ref>left kidney</ref><box>(600,500),(750,680)</box> "
            "and the <ref>right kidney</ref><box>(600,500),(750,680)</box>.",
            id="the same box for all",
        ),
        pytest.param(
            "Here are the <ref>left kidney</ref><box>(200,500),(340,690)</box> "
            "and the <ref>right kidney</ref><box>(600,500),(750,680)</box>.",
            id="sides swapped",
        ),
        pytest.param(
            "Here is the <ref>left kidney</ref><box>(600,500),(750,680)</box>.",
            id="one of two, for little risk",
        ),
        pytest.param(
            "Here are the <ref>kidneys</ref><box>(600,500),(750,680)</box><box>(200,500),(340,690)</box>.",
            id="one name for both",
        ),
    ],
)
def test_two_objects_need_two_boxes(text):
    assert reward(text, PAIR) < 0.7


@pytest.mark.parametrize(
    ("text", "most"),
    [
        pytest.param(LIVER, 0.0, id="a box of something else"),
        pytest.param("Here is the <ref>spleen</ref><box>(1,2),(3,4)</box>.", 0.0, id="a box"),
        pytest.param(f"{ABSENT} <box>(1,2),(3,4)</box>", 0.0, id="denial with a box"),
        pytest.param("Where is the spleen?", 0.0, id="echo"),
        pytest.param("There is no liver in this image.", 0.5, id="denial of something else"),
        pytest.param(ABSENT * 100, 0.1, id="denial over and over"),
        pytest.param(f"{ABSENT}\u200b", 0.0, id="hidden character"),
    ],
)
def test_an_absent_object_is_to_be_denied_by_name_and_without_a_box(text, most):
    assert reward(text, ABSENT, ("spleen",)) <= most


def test_a_hedge_between_two_places_is_worth_less_than_either():
    """With the right place unknown, one guess in two must be better than both boxes."""
    one, other = BOX, Box(0.6, 0.3, 0.9, 0.7)
    asked = Asked((("liver", BOX),))
    guess = (grounding_reward(answer([one]), asked) + grounding_reward(answer([other]), asked)) / 2
    assert grounding_reward(answer([one, other]), asked) < guess


# --- laws -----------------------------------------------------------------------------------------------------


@given(boxes(), boxes())
def test_similarity_is_from_0_to_1_and_1_for_equal_boxes_only(guess, reference):
    value = similarity(guess, reference)
    assert 0.0 < value <= 1.0
    assert (value == 1.0) == (guess == reference)
    assert value >= IOU_SHARE * guess.iou(reference)


@given(st.lists(boxes(), min_size=1, max_size=3), st.lists(boxes(), min_size=1, max_size=4), boxes(), st.integers(0, 4),
       st.sampled_from(["liver", "spleen"]))  # fmt: skip
def test_a_box_too_many_never_raises_the_reward(reference, predicted, extra, place, name):
    asked = Asked(tuple(("liver", box) for box in reference))
    while len(predicted) < len(reference):
        predicted = [*predicted, predicted[-1]]
    before = answer(predicted, name)
    after = answer([*predicted[:place], extra, *predicted[place:]], name)
    assert grounding_reward(after, asked) <= grounding_reward(before, asked) + 1e-12
    assert grounding_reward(after, Asked(absent=("liver",))) == 0.0


@given(boxes(), st.lists(boxes(), max_size=2), st.data())
def test_a_box_that_moves_away_never_raises_the_reward(reference, others, data):
    """Away: neither its horizontal nor its vertical distance from the reference's centre gets smaller."""
    start = data.draw(boxes())
    moved = start
    for near, far in (("x1", "x2"), ("y1", "y2")):
        low, high = (round(getattr(start, name) * 1000) for name in (near, far))
        centre = (getattr(reference, near) + getattr(reference, far)) * 1000
        outward = 1 if low + high >= centre else -1
        by = data.draw(st.integers(0, (1000 - high) if outward > 0 else low))
        corners = {near: (low + outward * by) / 1000, far: (high + outward * by) / 1000}
        moved = Box(**{name: corners.get(name, getattr(moved, name)) for name in Box.__slots__})
    asked = Asked((("liver", reference),))
    assert similarity(moved, reference) <= similarity(start, reference) + 1e-9
    if moved != start:
        assert similarity(moved, reference) < similarity(start, reference)
    before, after = (grounding_reward(answer([box, *others]), asked) for box in (start, moved))
    assert after <= before + 1e-9


@given(st.text(max_size=200), st.sampled_from([LIVER, PAIR, ABSENT]))
def test_no_text_raises_an_error_or_leaves_0_to_1(text, reference):
    assert 0.0 <= reward(text, reference, ("spleen",) if reference == ABSENT else ()) <= 1.0


def test_more_boxes_too_many_are_worth_less_and_less():
    given_boxes = [[("liver", BOX)] * count for count in range(1, 6)]
    values = [overlap(each, [("liver", BOX)]) for each in given_boxes]
    assert values == sorted(values, reverse=True) and len(set(values)) == len(values)
    assert values[0] == 1.0 and 0.0 < values[-1] < values[1] <= LOWEST_READABLE


# --- values of another dialect, and TRL's signature -----------------------------------------------------------


def test_an_answer_of_another_dialect_is_rewarded_by_its_values():
    asked = Asked((("liver", BOX),))
    assert grounding_reward(answer([BOX]), asked) == 1.0
    assert grounding_reward(None, asked) == 0.0

    def reader(text):
        return answer([Box(*map(float, text.split()))]) if text else None

    assert box_reward(["0.2 0.3 0.5 0.7", ""], [LIVER] * 2, [[]] * 2, reader=reader) == [1.0, 0.0]


def test_a_denial_can_be_worth_less_than_a_box():
    denied = "There is no liver in this image."
    answers, references, absent = (
        [LIVER, denied, LIVER, denied],
        [LIVER, LIVER, denied, denied],
        [[], [], ["liver"], ["liver"]],
    )
    assert box_reward(answers, references, absent) == [1.0, 0.0, 0.0, 1.0]
    assert box_reward(answers, references, absent, denial=0.5) == [1.0, 0.0, 0.0, 0.5]


def test_trl_gets_a_reward_for_each_completion_and_the_means_of_its_parts():
    logged = {}
    completions = [[{"role": "assistant", "content": text}] for text in (LIVER, CHEATS["denial"], ABSENT)]
    rewards = box_reward(
        prompts=["?"] * 3,
        completions=completions,
        completion_ids=[[1]] * 3,
        reference=[LIVER, LIVER, ABSENT],
        absent=[[], [], ["spleen"]],
        image=[None] * 3,
        log_metric=logged.__setitem__,
    )
    assert rewards == [1.0, 0.0, 1.0]
    assert logged == {f"reward/{name}": pytest.approx(2 / 3) for name in ("overlap", "wording", "brevity")}


def test_a_name_that_is_not_known_is_not_judged():
    asked = Asked((("", BOX),))
    assert reward_parts(answer([BOX], "anything"), asked).reward == 1.0


@pytest.mark.parametrize(
    ("text", "hidden"),
    [("liver\n\tspleen é 肝", False), ("a\u200bb", True), ("\x07", True), ("\ud800", True), ("\ue000", True)],
)
def test_hidden_characters_are_found(text, hidden):
    assert has_hidden_characters(text) is hidden
