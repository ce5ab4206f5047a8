"""Laws of every dialect: what is written reads back, and what cannot be shown is said."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bird_hf import Box, GroundedText, Span, dialects
from bird_hf.dialects import NotVisibleError

NAMES = dialects.names()
WITH_SETTINGS = [
    ("paligemma", {"decode_by": 1024}),
    ("qwen2.5-vl", {"factor": 32, "min_pixels": 65_536, "max_pixels": 65_536}),
]
EXAMPLES = settings(max_examples=25, deadline=None)

sizes = st.one_of(
    st.sampled_from([(1, 1), (1, 2), (9, 20_000), (20_000, 9), (800, 600), (9, 1800)]),
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
)
# Edges of pixels, and any fraction.
corners = st.one_of(
    st.floats(0, 1, allow_subnormal=False), st.integers(0, 3000).map(lambda value: value / 3000)
)
words = st.text("abcdefghij öλ5", min_size=1, max_size=12).map(str.strip).filter(bool)


@st.composite
def boxes(draw) -> Box:
    x, y = (sorted(draw(st.lists(corners, min_size=2, max_size=2, unique=True))) for _ in "xy")
    return Box(x[0], y[0], x[1], y[1])


@st.composite
def answers(draw) -> GroundedText:
    """Words with spans that have one box or more; neighbours differ."""
    text, spans = "", []
    for phrase in draw(st.lists(words, min_size=1, max_size=3, unique=True)):
        text += draw(st.sampled_from(["", "the ", "Seen: "])) if not text else ". "
        spans.append(
            Span(
                phrase,
                len(text),
                len(text) + len(phrase),
                tuple(draw(st.lists(boxes(), min_size=1, max_size=3))),
            )
        )
        text += phrase
    return GroundedText(text + draw(st.sampled_from(["", ".", " there"])), tuple(spans))


def seen_view(dialect, image_wh):
    """The view, unless the model takes no picture of this shape, which is said in one line."""
    if dialect.name == "qwen2.5-vl" and max(image_wh) > 200 * min(image_wh):
        with pytest.raises(ValueError, match="ratio above 200"):
            dialect.view(image_wh)
        return None
    return dialect.view(image_wh)


@pytest.mark.parametrize(("name", "changed"), [*((name, {}) for name in NAMES), *WITH_SETTINGS])
@EXAMPLES
@given(image_wh=sizes, answer=answers())
def test_what_is_written_reads_back_within_the_quantum(name, changed, image_wh, answer):
    dialect = dialects.get(name, **changed)
    view = seen_view(dialect, image_wh)
    assume(view is not None)
    if name == "florence-2" and not all(span.phrase.isascii() for span in answer.spans):
        with pytest.raises(ValueError, match="own processor does not read"):
            dialect.write(answer, view)
        return
    try:
        text = dialect.write(answer, view)
    except NotVisibleError:
        assert any(view.cropped_px)
        return
    found = dialect.read(text, view)
    assert not found.issues
    assert len(found.boxes) == len(answer.boxes)
    # 1e-6: the edges of a thin padded picture, in fractions of the square
    limits = [quantum + 1e-6 for quantum in dialect.quantum(view)]
    for ours, theirs in zip(answer.boxes, found.boxes, strict=True):
        moved = [abs(a - b) for a, b in zip(view.to_seen(ours), view.to_seen(theirs), strict=True)]
        assert max(moved[0::2]) <= limits[0] and max(moved[1::2]) <= limits[1]
    if dialect.keeps_text:
        assert found.text == answer.text
    if dialect.marks_phrases:
        assert [span.phrase for span in found.spans] == [span.phrase for span in answer.spans]
    for ours, theirs in zip(answer.spans, found.spans, strict=True):
        assert theirs.phrase.endswith(ours.phrase)
        assert len(theirs.boxes) == len(ours.boxes)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "kosmos-2"])  # has cells
@EXAMPLES
@given(
    side=st.sampled_from([60, 512, 3000]),
    edges=st.lists(corners, min_size=2, max_size=2, unique=True).map(sorted),
)
def test_an_edge_of_a_wide_interval_moves_by_half_a_step(name, side, edges):
    dialect = dialects.get(name)
    for grid in dialect.grids(dialect.view((side, side))):
        if grid.read_scale not in (None, grid.scale) or edges[1] - edges[0] <= 2 * grid.step:
            continue
        low, high = grid.write(*edges)
        assert 0 <= low < high <= grid.top
        assert abs(grid.read(low) - edges[0]) <= 0.5 * grid.step + 1e-9
        # A grid of edges that ends before the far one is a whole step away (Qwen2.5-VL: the last pixel).
        most = 1 if grid.top < grid.scale and not grid.is_bins else 0.5
        assert abs(grid.read(high) - edges[1]) <= most * grid.step + 1e-9


@pytest.mark.parametrize("name", [name for name in NAMES if dialects.get(name).keeps_text])
@EXAMPLES
@given(text=st.text("ab c.5(),[];:-µ\n", max_size=40))
def test_an_answer_without_boxes_stays_as_it_is(name, text):
    dialect = dialects.get(name)
    assume(not dialect.markup.search(text))
    written = dialect.write(GroundedText(text), image_wh=(80, 60))
    assert dialect.read(written, image_wh=(80, 60)).text == text


@pytest.mark.parametrize("name", NAMES)
def test_absence_is_said_and_read(name):
    dialect = dialects.get(name)
    answer = GroundedText(dialects.ABSENT_TEXT)
    text = dialect.write(answer, image_wh=(80, 60))
    assert text == (dialect.absent or dialects.ABSENT_TEXT)
    assert dialect.read(text, image_wh=(80, 60)) == answer


@pytest.mark.parametrize("name", ["maira-2"])
@pytest.mark.parametrize(
    "corners", [(0, 90, 99, 330), (50, 0, 101, 600), (650, 0, 701, 600), (0, 0, 800, 600)]
)
def test_a_box_that_is_cut_away_is_refused(name, corners):
    box = Box.from_pixels(corners, (800, 600))
    with pytest.raises(NotVisibleError, match=r"not wholly inside \(100, 0, 700, 600\).*800x600"):
        dialects.get(name).write(GroundedText("lung", (Span("lung", 0, 4, (box,)),)), image_wh=(800, 600))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("medgemma", '[{"box_2d": [0, 250, 538, 625], "label": "left kidney"}]'),
        ("medgemma", '[{"box_2d": [0, 0, 100, 100], "label": "left kidney"}]'),
        ("shikra", "left kidney [0.250,0.000,0.625,0.500]"),
        ("shikra", "left kidney [0.250,0.200,0.625,0.990]"),
    ],
)
def test_a_box_in_the_padding_is_named_and_not_clipped(name, text):
    found = dialects.get(name).read(text, image_wh=(800, 600))
    assert found.boxes == () and found.issues == ("outside_picture",)


@pytest.mark.parametrize("name", NAMES)
def test_text_that_would_be_read_as_markup_is_refused(name):
    dialect = dialects.get(name)
    box = Box(0.4, 0.4, 0.6, 0.6)
    markup = dialect.write(GroundedText("lung", (Span("lung", 0, 4, (box,)),)), image_wh=(80, 80))
    if name == "radvlm":
        markup = "lung [0.4, 0.4, 0.6, 0.6]"
    with pytest.raises(ValueError, match=r"markup|tag"):
        dialect.write(GroundedText(f"a {markup}"), image_wh=(80, 80))
    if name != "bird":
        with pytest.raises(ValueError, match="markup"):
            dialect.write(GroundedText("a <think> b"), image_wh=(80, 80))
