"""The grammar: what `write` writes, `read` gives back; what a model writes, `read` survives."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import (
    GROUNDING_TOKENS,
    GroundedText,
    Issue,
    Span,
    format_box,
    read,
    write,
)

settings.register_profile("no deadline", deadline=None)  # the machine may be busy
settings.load_profile("no deadline")

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "grounding.json").read_text(encoding="utf-8"))
KIDNEY = Box.from_thousandths((281, 437, 399, 525))
LIVER = Box.from_thousandths((100, 200, 300, 400))
TAGS = (*GROUNDING_TOKENS, "<img>", "</img>", "<imgpad>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")

# Pieces of grounded text, whole and broken; none holds a "<" of its own.
WHOLE_PIECES = st.one_of(
    st.sampled_from(TAGS),
    st.sampled_from(["(281,437),(399,525)", "(1, 2)", "(", ")", ",", "(9,9),(1,1)", "(0.5,1)", "-3", "1001"]),
    st.text(alphabet=st.characters(exclude_characters="<"), max_size=4),
)
BROKEN_PIECES = st.sampled_from(["<", ">", "<re", "f>", "<bo", "x>", "</", "<|im", "_end|>", "<|extra_7|>"])


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, y1 = draw(st.floats(0, 0.99)), draw(st.floats(0, 0.99))
    return Box(x1, y1, x1 + draw(st.floats(1e-6, 0.01)), min(1.0, y1 + draw(st.floats(1e-6, 1))))


@st.composite
def grounded(draw: st.DrawFn) -> tuple[str, tuple[Span, ...]]:
    """Clean text without a tag, and spans with phrases that do not overlap."""
    text = draw(st.text(max_size=40))
    edges = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    ranges = zip(edges[0::2], edges[1::2], strict=False)
    spans = tuple(
        Span(text[start:end], start, end, tuple(draw(st.lists(boxes(), max_size=3)))) for start, end in ranges
    )
    return text, spans


def in_thousandths(span: Span) -> dict:
    return {
        "phrase": span.phrase,
        "start": span.start,
        "end": span.end,
        "boxes": [list(box.to_thousandths()) for box in span.boxes],
    }


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_golden(case):
    answer = read(case["tagged"])
    assert answer.text == case["text"]
    assert [in_thousandths(span) for span in answer.spans] == case["spans"]
    assert [issue.value for issue in answer.issues] == case["issues"]


class TestReadSurvives:
    @given(st.one_of(st.text(), st.lists(st.one_of(WHOLE_PIECES, BROKEN_PIECES), max_size=30).map("".join)))
    def test_any_text_gives_spans_in_order_that_index_the_clean_text(self, tagged):
        answer = read(tagged)
        done = 0
        for span in answer.spans:
            assert done <= span.start <= span.end
            assert answer.text[span.start : span.end] == span.phrase
            assert span.phrase or span.boxes
            done = span.end
        assert done <= len(answer.text)

    @given(st.lists(WHOLE_PIECES, max_size=30).map("".join))
    def test_no_tag_is_left_where_none_was_in_pieces(self, tagged):
        assert "<" not in read(tagged).text

    @given(st.lists(st.one_of(WHOLE_PIECES, BROKEN_PIECES), max_size=30).map("".join))
    def test_a_box_is_four_numbers_of_the_text(self, tagged):
        for box in read(tagged).boxes:
            numbers = [str(number) for number in box.to_thousandths()]
            place = 0
            for number in numbers:  # in this order
                place = tagged.index(number, place) + len(number)

    @pytest.mark.slow
    @given(st.lists(WHOLE_PIECES, max_size=30).map("".join))
    def test_text_without_an_issue_is_written_back(self, tagged):
        answer = read(tagged)
        assume(not answer.issues)
        assert read(write(answer.text, answer.spans)) == answer

    def test_what_only_looks_like_a_tag_afterwards_is_text_and_cannot_be_written(self):
        answer = read("<re<box></box>f>")
        assert answer.text == "<ref>"
        with pytest.raises(ValueError, match="text holds the tag '<ref>'"):
            write(answer.text)

    def test_boxes_of_all_spans_stand_in_the_order_of_the_text(self):
        tagged = write(
            "liver, kidney", [Span("liver", 0, 5, (LIVER,)), Span("kidney", 7, 13, (KIDNEY, LIVER))]
        )
        assert read(tagged).boxes == (LIVER, KIDNEY, LIVER)


class TestWrite:
    @pytest.mark.slow
    @given(grounded())
    def test_what_is_written_is_read_back(self, case):
        text, spans = case
        assume(not read(text).issues and read(text).text == text)  # no tag and no untagged box in the text
        quantised = tuple(
            Span(
                span.phrase,
                span.start,
                span.end,
                tuple(Box.from_thousandths(box.to_thousandths()) for box in span.boxes),
            )
            for span in spans
        )
        assert read(write(text, spans)) == GroundedText(text, quantised, ())

    def test_the_form(self):
        text = "The left kidney is normal."
        tagged = "The <ref>left kidney</ref><box>(281,437),(399,525)</box><box>(100,200),(300,400)</box> is normal."
        assert write(text, [Span("left kidney", 4, 15, (KIDNEY, LIVER))]) == tagged

    def test_a_box_in_thousandths(self):
        assert format_box(Box(0.2814, 0.4365, 0.3986, 1)) == "(281,437),(399,1000)"

    def test_spans_may_come_in_any_order(self):
        spans = [Span("kidney", 6, 12, (KIDNEY,)), Span("liver", 0, 5, (LIVER,))]
        assert write("liver kidney", spans) == write("liver kidney", spans[::-1])

    def test_boxes_without_a_phrase_come_back_as_orphans(self):
        spans = (Span("", 0, 0, (LIVER,)), Span("", 3, 3, (KIDNEY, LIVER)), Span("cyst", 4, 8, (KIDNEY,)))
        assert read(write("at: cyst", spans)) == GroundedText("at: cyst", spans, (Issue.ORPHAN_BOX,) * 3)

    @pytest.mark.parametrize(
        ("text", "spans", "message"),
        [
            ("a <box> b", [], "text holds the tag '<box>' at character 2"),
            ("a<|im_end|>", [], "the tag '<|im_end|>' at character 1"),
            ("left kidney", [Span("kidney", 4, 10)], "span 4:10 says 'kidney'; the text there is ' kidne'"),
            ("kidney", [Span("kidney", 0, 7)], "span 0:7"),  # beyond the end
            ("kidney", [Span("y", -1, 6)], "span -1:6"),  # counted from the end
            ("kidney", [Span("", 5, 2, (KIDNEY,))], "span 5:2"),  # end before start
            ("kidney", [Span("kidney", 0, 6), Span("kid", 0, 3)], "span 'kidney' at character 0 overlaps"),
            ("kidney", [Span("kidney", 0, 6), Span("", 3, 3, (KIDNEY,))], "overlaps the one that ends at 6"),
            ("kidney", [Span("", 0, 0)], "span at character 0 has neither a phrase nor a box"),
            (
                "kidney.",
                [Span("kidney", 0, 6), Span("", 7, 7, (KIDNEY,))],
                "would be read as one of 'kidney'",
            ),
        ],
    )
    def test_what_cannot_be_read_back_is_refused(self, text, spans, message):
        with pytest.raises(ValueError) as caught:
            write(text, spans)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


HOSTILE = {
    "opened boxes": "<box>",
    "closed boxes": "</box>",
    "empty boxes": "<box></box>",
    "good boxes": "<box>(1,2),(3,4)</box>",
    "brackets": "(",
    "boxes and brackets": "<box>((((",
    "opened phrases": "<ref>",
    "closed phrases": "</ref>",
    "boxes cut off": "<box>(1,2",
    "corners": "(1,2",
    "untagged boxes": "(1,2),(3,4),",
    "digits": "7",
    "spaces": " ",
    "bracket and digits": "(1 ",
    "signs": "(-+",
    "separators": " , ;",
    "smaller": "<",
    "extra tokens": "<|extra_1",
}
FRAMES = {"alone": "{}", "in a box": "<box>{}</box>", "in an unclosed box": "<box>({}"}


def seconds(tagged: str) -> float:
    """CPU seconds of this process, the best of four runs: a busy machine slows the others."""
    times = []
    for _ in range(4):
        start = time.process_time()
        read(tagged)
        times.append(time.process_time() - start)
    return min(times)


class TestLinearTime:
    @pytest.mark.slow
    @pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
    @pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
    def test_four_times_the_text_costs_about_four_times(self, piece, frame):
        once, fourfold = (frame.format(piece * (size // len(piece))) for size in (8_000, 32_000))
        # Quadratic time would be 16 times. The constant forgives the clock on texts that take no time at all.
        assert seconds(fourfold) < 9 * seconds(once) + 0.01

    @pytest.mark.slow
    @pytest.mark.parametrize("piece", ["<box>", "<ref>", "(1,2),", "<box>(1,2),(3,4)</box>"])
    def test_a_megabyte_takes_seconds(self, piece):
        start = time.process_time()
        read(piece * (1_000_000 // len(piece)))
        assert time.process_time() - start < 5

    def test_a_number_of_a_million_digits(self):
        start = time.process_time()
        answer = read(f"<ref>a</ref><box>(1,2),({'9' * 1_000_000},4)</box>")
        assert answer.issues == (Issue.OUT_OF_RANGE,)
        assert time.process_time() - start < 2
