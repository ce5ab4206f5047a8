"""The worked example of each dialect, how it asks, and what its reader makes of what models say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bird_hf import Box, GroundedText, Span, dialects

WH = (800, 600)
KIDNEY = Box.from_pixels((200, 90, 500, 330), WH)
ANSWER = GroundedText("left kidney", (Span("left kidney", 0, 11, (KIDNEY,)),))
REGION = GroundedText("What is this region?", (Span("this region", 8, 19, (KIDNEY,)),))

WRITTEN = {
    "bird": "<ref>left kidney</ref><box>(250,150),(625,550)</box>",
    "qwen2-vl": "<|object_ref_start|>left kidney<|object_ref_end|><|box_start|>(250,150),(625,550)<|box_end|>",
    "qwen2.5-vl": '[{"bbox_2d": [203, 88, 508, 323], "label": "left kidney"}]',
    "qwen3-vl": '[{"bbox_2d": [250, 150, 625, 550], "label": "left kidney"}]',
    "internvl": "<ref>left kidney</ref><box>[[250, 150, 625, 550]]</box>",
    "medrega": "<ref>left kidney</ref><box>[[250, 150, 624, 549]]</box>",
    "paligemma": "<loc0153><loc0256><loc0563><loc0639> left kidney",
    "florence-2": "left kidney<loc_250><loc_150><loc_625><loc_550>",
    "kosmos-2": "<phrase>left kidney</phrase><object><patch_index_0136><patch_index_0563></object>",
    "maira-2": "<obj>left kidney <box><x16><y15><x66><y55></box></obj>",
    "medgemma": 'Final Answer: ```json[{"box_2d": [238, 250, 538, 625], "label": "left kidney"}]```',
    "radvlm": "The left kidney is located at the coordinates [0.25, 0.15, 0.62, 0.55] on the image.",
    "deepseek-vl2": "<|ref|>left kidney<|/ref|><|det|>[[250, 150, 624, 549]]<|/det|>",
    "llava-med": "left kidney [200, 90, 500, 330]",
    # of the square of 800: y is (90 + 100) / 800 = 0.2375, which Python rounds to 0.237
    "shikra": "left kidney [0.250,0.237,0.625,0.537]",
}


def test_every_dialect_has_its_worked_example():
    assert sorted(WRITTEN) == list(dialects.names())


@pytest.mark.parametrize(("name", "text"), WRITTEN.items(), ids=WRITTEN)
def test_the_worked_example_is_written_and_read(name, text):
    dialect = dialects.get(name)
    assert dialect.write(ANSWER, image_wh=WH) == text
    found = dialect.read(text, image_wh=WH)
    assert found.issues == ()
    assert [span.phrase for span in found.spans] == ["left kidney"]
    quantum = max(dialect.quantum(dialect.view(WH)))
    assert found.boxes[0].xyxy == pytest.approx(KIDNEY.xyxy, abs=quantum)


@pytest.mark.parametrize(
    ("name", "task", "question"),
    [
        ("bird", "vg", "Where is the left kidney?"),
        ("bird", "roc", "What is <ref>this region</ref><box>(250,150),(625,550)</box>?"),
        ("paligemma", "vg", "detect left kidney"),
        ("paligemma", "rc", "caption <loc0153><loc0256><loc0563><loc0639>"),
        ("florence-2", "vg", "<CAPTION_TO_PHRASE_GROUNDING>left kidney"),
        ("florence-2", "rc", "<REGION_TO_DESCRIPTION><loc_250><loc_150><loc_625><loc_550>"),
        ("qwen3-vl", "roc", "What is this region [250, 150, 625, 550]?"),
        (
            "qwen3-vl",
            "vg",
            "Locate the left kidney in this image and output the bbox coordinates in JSON format.",
        ),
        (
            "internvl",
            "vg",
            "Please provide the bounding box coordinate of the region this sentence describes: <ref>left kidney</ref>",
        ),
        # The paper's Fig. 1, word for word.
        (
            "llava-med",
            "roc",
            "What is this region [200, 90, 500, 330]? The image size is [800, 600], and the origin of the coordinate "
            "system is located in the upper left corner of the image.",
        ),
    ],
)
def test_how_a_task_is_asked(name, task, question):
    assert dialects.get(name).ask(task, REGION, image_wh=WH, names=["left kidney"]) == question


UNASKABLE = {"maira-2": ("roc", "rc", "mia"), "florence-2": ("mia",)}


@pytest.mark.parametrize("name", dialects.names())
def test_a_question_of_a_task_is_asked_or_refused_in_one_line(name):
    dialect = dialects.get(name)
    for task in ("vg", "roc", "rc", "mia", "chat"):
        if task in UNASKABLE.get(name, ()) or task == "chat":
            with pytest.raises(ValueError, match=rf"^{name} .+$"):
                dialect.ask(task, REGION, image_wh=WH, names=["left kidney"])
        else:
            assert dialect.ask(task, REGION, image_wh=WH, names=["left kidney"])


@pytest.mark.parametrize(
    ("name", "error"),
    [("maira-2", "give the names"), ("paligemma", "give the names"), ("florence-2", "give the names")],
)
def test_a_model_that_is_asked_by_name_needs_the_names(name, error):
    with pytest.raises(ValueError, match=error):
        dialects.get(name).ask("vg", REGION, image_wh=WH)


def test_a_task_about_a_box_needs_the_box():
    with pytest.raises(ValueError, match="has none"):
        dialects.get("florence-2").ask("rc", GroundedText("Describe it."), image_wh=WH)


# What models say in JSON: (answer, phrases and thousandths, issues, text or None for any)
OBJECT = '{"bbox_2d": [250, 150, 625, 550], "label": "left kidney"}'
BOX = (250, 150, 625, 550)
JSON_ANSWERS = [
    pytest.param(f"```json\n[{OBJECT}]\n```", [("left kidney", BOX)], [], "left kidney", id="fence"),
    pytest.param(f"```json\n[{OBJECT}]", [("left kidney", BOX)], [], "left kidney", id="open fence"),
    pytest.param(
        f"```\n[{OBJECT}]```", [("left kidney", BOX)], [], "left kidney", id="fence without a language"
    ),
    pytest.param(OBJECT, [("left kidney", BOX)], [], "left kidney", id="an object without a list"),
    pytest.param(f"Here: [{OBJECT}].", [("left kidney", BOX)], [], "Here: left kidney.", id="prose around"),
    pytest.param(f'5" of [{OBJECT}]', [("left kidney", BOX)], [], None, id="a quotation mark in prose"),
    pytest.param(f"<think>[{OBJECT}]</think>[]", [], [], dialects.ABSENT_TEXT, id="thinking with a box"),
    pytest.param(f"<think>hm\n[{OBJECT}]", [], ["unclosed_tag"], "", id="thinking that is not closed"),
    pytest.param(
        f"hm</think>\n[{OBJECT}]", [("left kidney", BOX)], [], None, id="thinking opened by the template"
    ),
    pytest.param(f"[{OBJECT}]<|im_end|>", [("left kidney", BOX)], [], "left kidney", id="end of turn"),
    pytest.param("```json\n[]\n```", [], [], dialects.ABSENT_TEXT, id="absent in a fence"),
    pytest.param("No [] here", [], [], "No [] here", id="brackets in prose"),
    pytest.param("There is no spleen.", [], [], "There is no spleen.", id="absent in words"),
    pytest.param(
        f"[{OBJECT}, {OBJECT}]",
        [("left kidney", BOX), ("left kidney", BOX)],
        [],
        "left kidney",
        id="one label twice",
    ),
    pytest.param(
        f'[{OBJECT}, {{"bbox_2d": [1, 2, 3, 4], "label": "spleen"}}]',
        [("left kidney", BOX), ("spleen", (1, 2, 3, 4))],
        [],
        "left kidney, spleen",
        id="two objects",
    ),
    pytest.param(f'{{"objects": [{OBJECT}]}}', [("left kidney", BOX)], [], None, id="a list in an object"),
    pytest.param(
        f'[{OBJECT}, {{"bbox_2d": [1, 2', [("left kidney", BOX)], ["broken_json"], None, id="cut in half"
    ),
    pytest.param("[{'bbox_2d': [1, 2, 3, 4]}]", [], [], None, id="single quotes are no JSON, and stay text"),
    pytest.param('[{"bbox_2d": [1, 2, 3, 4]}]', [("", (1, 2, 3, 4))], ["orphan_box"], "", id="no label"),
    pytest.param('[{"bbox_2d": [1, 2, 3], "label": "a"}]', [], ["not_four_numbers"], "a", id="three numbers"),
    pytest.param(
        '[{"bbox_2d": "1 2 3 4", "label": "a"}]', [], ["not_four_numbers"], "a", id="numbers as text"
    ),
    pytest.param('[{"bbox_2d": [true, 2, 3, 4], "label": "a"}]', [], ["not_four_numbers"], "a", id="true"),
    pytest.param('[{"bbox_2d": [NaN, 2, 3, 4], "label": "a"}]', [], ["not_four_numbers"], "a", id="NaN"),
    pytest.param(
        '[{"bbox_2d": [0.25, 0.1, 0.6, 0.5], "label": "a"}]', [], ["not_four_numbers"], "a", id="fractions"
    ),
    pytest.param(
        '[{"bbox_2d": [1, 2, 3, 4000], "label": "a"}]', [], ["out_of_range"], "a", id="beyond the grid"
    ),
    pytest.param('[{"bbox_2d": [1, 2, 1e999, 4], "label": "a"}]', [], ["out_of_range"], "a", id="infinity"),
    pytest.param(
        f'[{{"bbox_2d": [1, 2, 3, {"9" * 5000}], "label": "a"}}]', [], ["out_of_range"], "a", id="5000 digits"
    ),
    pytest.param('[{"bbox_2d": [3, 2, 1, 4], "label": "a"}]', [], ["inverted_box"], "a", id="inverted"),
    pytest.param(
        '[{"bbox_2d": [1, 2, 3, ٤], "label": "a"}]', [], ["broken_json"], "", id="digits that are not ASCII"
    ),
    pytest.param(
        '[{"box_2d": [1, 2, 3, 4], "label": "a"}]', [], [], None, id="another model's key stays text"
    ),
    pytest.param(
        "[250, 150, 625, 550]", [], [], "[250, 150, 625, 550]", id="numbers without a key stay text"
    ),
    pytest.param(
        '[{"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]], "label": "a"}]',
        [("a", (1, 2, 3, 4)), ("a", (5, 6, 7, 8))],
        [],
        "a",
        id="several boxes of an object",
    ),
    pytest.param(
        '[{"label": "}]{", "bbox_2d": [1, 2, 3, 4]}]',
        [("}]{", (1, 2, 3, 4))],
        [],
        "}]{",
        id="brackets in a label",
    ),
    pytest.param(
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a", "attributes": {"sure": 0.9}}]',
        [("a", (1, 2, 3, 4))],
        [],
        "a",
        id="an object with another one inside",
    ),
    pytest.param(
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a", "parts": [{"bbox_2d": [5, 6, 7, 8], "label": "b"}]}]',
        [("b", (5, 6, 7, 8))],
        ["broken_json"],
        "b",
        id="an object with a box, and one with a box inside",
    ),
    pytest.param(
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a", "x": ' + '{"x": ' * 5000 + "1" + "}" * 5001 + "]",
        [],
        ["broken_json"],
        "",
        id="objects inside objects, 5000 times",
    ),
    pytest.param(
        '[{"bbox_2d": [0.0, 0.0, 1.0, 1.0], "label": "a"}]',
        [],
        ["not_four_numbers"],
        "a",
        id="the whole picture in fractions",
    ),
    pytest.param(
        '[{"bbox_2d": [0, 0, 1, 1], "label": "a"}]', [("a", (0, 0, 1, 1))], [], "a", id="a very small box"
    ),
    pytest.param(
        '[{"bbox_2d": [1.0, 2.0, 3.0, 4.0], "label": "a"}]',
        [("a", (1, 2, 3, 4))],
        [],
        "a",
        id="whole numbers with a point",
    ),
    pytest.param(
        f"<think>a</think>[{OBJECT}]<think>b</think> is seen.",
        [("left kidney", BOX)],
        [],
        "left kidney is seen.",
        id="an answer between two traces",
    ),
    pytest.param(
        f"<think>a <think>b</think>[{OBJECT}]</think>[]",
        [],
        [],
        dialects.ABSENT_TEXT,
        id="a trace in a trace",
    ),
    pytest.param(
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a\\"b"}]', [('a"b', (1, 2, 3, 4))], [], 'a"b', id="escapes"
    ),
]


@pytest.mark.parametrize(("text", "spans", "issues", "clean"), JSON_ANSWERS)
def test_json_answers(text, spans, issues, clean):
    found = dialects.get("qwen3-vl").read(text, image_wh=WH)
    assert [(span.phrase, box.to_thousandths()) for span in found.spans for box in span.boxes] == spans
    assert list(found.issues) == issues
    assert clean is None or found.text == clean


@pytest.mark.parametrize(
    ("name", "text", "boxes", "issues"),
    [
        ("internvl", "<ref>a</ref><box>[1, 2, 3, 4]</box>", 1, []),  # one list, no list of lists
        ("internvl", "<ref>a</ref><box>[[1, 2, 3, 4],[5,6,7,8]]</box>", 2, []),
        ("internvl", "<ref>a</ref><box>[[x1, y1, x2, y2]]</box>", 0, ["not_four_numbers"]),  # InternVL#625
        ("internvl", "<ref>a</ref><box>[[0.1, 0.2, 0.3, 0.4]]</box>", 0, ["not_four_numbers"]),
        ("internvl", "<ref>a</ref><box>[[1, 2, 3, 1001]]</box>", 0, ["out_of_range"]),
        ("internvl", "<ref>a</ref><box>[[1, 2, 3, 4]]", 0, ["unclosed_tag"]),
        ("internvl", "<ref>a<box>[[1, 2, 3, 4]]</box>", 1, ["unclosed_tag", "orphan_box"]),
        ("internvl", "a</ref> b", 0, ["unclosed_tag"]),
        ("internvl", "<box>[[1, 2, 3, 4]]</box>", 1, ["orphan_box"]),
        ("medrega", "<ref>a</ref><box>[[1, 2, 3, 1000]]</box>", 0, ["out_of_range"]),
        (
            "qwen2-vl",
            "<|object_ref_start|>a<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|><|im_end|>",
            1,
            [],
        ),
        ("qwen2-vl", "<|box_start|>(1,2),(3,4),(5,6)<|box_end|>", 0, ["not_four_numbers"]),
        (
            "kosmos-2",
            "<phrase>a</phrase><object><patch_index_0563><patch_index_0136></object>",
            0,
            ["inverted_box"],
        ),
        (
            "kosmos-2",
            "<phrase>a</phrase><object><patch_index_0001><patch_index_1024></object>",
            0,
            ["out_of_range"],
        ),
        ("kosmos-2", "<phrase>a</phrase><object><patch_index_0001></object>", 0, ["not_four_numbers"]),
        ("paligemma", "<loc0001><loc0002><loc0003> a", 0, ["not_four_numbers"]),
        ("paligemma", "<loc0001><loc0002><loc0003><loc1024> a", 0, ["out_of_range"]),
        (
            "paligemma",
            "<loc0001><loc0002><loc0003><loc0004> a ; <loc0001><loc0002><loc0003><loc0004> b<eos>",
            2,
            [],
        ),
        ("paligemma", "<loc0001><loc0002><loc0003><loc0004>", 1, ["orphan_box"]),
        ("florence-2", "</s><s>a<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8></s>", 2, []),
        ("florence-2", "a<loc_1><loc_2><loc_3><loc_1000>", 0, ["out_of_range"]),
        ("maira-2", "<obj>a <box><x1><y2><x3><y4></box><box><x1><y2><x3><y4></box></obj><obj>b</obj>", 2, []),
        ("maira-2", "<obj>a <box><x1><y2><x3></box></obj>", 0, ["not_four_numbers"]),
        ("maira-2", "<obj>a <box><x1><y2><x3><y100></box></obj>", 0, ["out_of_range"]),
        ("medgemma", '<unused94>thought\nmaybe [{"box_2d": [1, 2, 3, 4]}]', 0, ["unclosed_tag"]),
        (
            "medgemma",
            '<unused94>x<unused95>Reason. Final Answer: ```json[{"box_2d": [300, 250, 538, 625], "label": "a"}]```',
            1,
            [],
        ),
        # Boxes of the reasoning are no answer, however the mark of the answer is written.
        (
            "medgemma",
            'Maybe [{"box_2d": [300, 1, 538, 625], "label": "a"}]. **Final answer:** '
            '```json[{"box_2d": [300, 250, 538, 625], "label": "a"}]```',
            1,
            [],
        ),
        ("radvlm", "The heart is located at the coordinates [0.1, 0.2, 0.3, 0.4] on the image.", 1, []),
        ("radvlm", "[0.1, 0.2, 0.3, 1.4]", 0, ["out_of_range"]),
        ("radvlm", "a [250, 150, 625, 550]", 0, ["out_of_range"]),  # thousandths are not guessed
        ("shikra", "a [0.1,0.3,0.3,0.4;0.2,0.3,0.3,0.4]", 2, []),
        ("llava-med", "a [0.1, 0.2, 0.3, 0.4]", 0, ["not_four_numbers"]),
        ("llava-med", "a [0, 0, 801, 4]", 0, ["out_of_range"]),
        ("deepseek-vl2", "<|ref|>a<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|><|end|>", 1, []),
    ],
)
def test_answers_with_marks(name, text, boxes, issues):
    found = dialects.get(name).read(text, image_wh=WH)
    assert (len(found.boxes), list(found.issues)) == (boxes, issues)


HOSTILE = {
    "brackets": "[",
    "objects": '[{"bbox_2d":',
    "escaped quotes": '[{"\\"',
    "quotes": '"\\"',
    "nested lists": '{"bbox_2d":[[[[',
    "open tags": "<ref>",
    "open boxes": "<box>[[1,",
    "spaces in a box": "<box>[[1,    ",
    "locations": "<loc0001>",
    "patches": "<object><patch_index_0001>",
    "numbers": "[1, 2, 3, 4, ",
    "digits": "9",
    "spaces": " ",
    "fences": "```json ",
    "thinking": "<think>",
    "unicode digits": "٤",
    "answers": "Final Answer: [",
    "sentences": "The a is located at the coordinates [0.1,",
}


@pytest.mark.parametrize("name", dialects.names())
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_read(name, unit):
    text = unit * (20_000 // len(unit))
    found = dialects.get(name).read(text, image_wh=WH)
    assert isinstance(found, GroundedText)
    assert all(found.text[span.start : span.end] == span.phrase for span in found.spans)


@pytest.mark.parametrize("name", dialects.names())
@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.one_of(st.sampled_from([*HOSTILE.values(), *WRITTEN.values()]), st.text(max_size=6)))
)
def test_any_text_is_read(name, pieces):
    dialect = dialects.get(name)
    found = dialect.read("".join(pieces), image_wh=WH)
    done = 0
    for span in found.spans:
        assert done <= span.start <= span.end <= len(found.text)
        assert found.text[span.start : span.end] == span.phrase
        done = span.end


def test_a_label_survives_json():
    phrase = 'a "b" \\ µ {c}'
    answer = GroundedText(phrase, (Span(phrase, 0, len(phrase), (KIDNEY,)),))
    text = dialects.get("qwen3-vl").write(answer, image_wh=WH)
    assert json.loads(text)[0]["label"] == phrase
    assert dialects.get("qwen3-vl").read(text, image_wh=WH).spans[0].phrase == phrase
