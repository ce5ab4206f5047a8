"""Dialects by name and by configuration, `dialect.json`, views, and the command `bird dialects`."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from bird_hf import Box, GroundedText, Span, dialects
from bird_hf.dialects import View, centre_crop, padded_square


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("qwen3vl", "the nearest is qwen3-vl"),
        ("medgema", "the nearest is medgemma"),
        ("gpt", "known are bird, "),
        ("x" * 10_000, "there is no dialect 'xxx"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, error):
    with pytest.raises(ValueError, match=error) as caught:
        dialects.get(name)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["qwen3-vl", "Qwen3-VL", "qwen3_vl"])
def test_a_name_is_taken_in_any_case(name):
    assert dialects.get(name).name == "qwen3-vl"


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        ("qwen3-vl", {"factor": 28}, "no setting 'factor'; it has none"),
        ("qwen2.5-vl", {"max": 5}, "it has factor, min_pixels, max_pixels"),
        ("qwen2.5-vl", {"factor": "28"}, "factor='28' is not a whole number"),
        ("qwen2.5-vl", {"factor": True}, "factor=True is not a whole number"),
        ("qwen2.5-vl", {"factor": 0}, "factor 0 is 1 to 1024"),
        ("qwen2.5-vl", {"min_pixels": 10, "max_pixels": 5}, "at most 100,000,000 and max_pixels 5"),
        # A small picture would be made to fill the memory.
        (
            "qwen2.5-vl",
            {"min_pixels": 10**10, "max_pixels": 10**11},
            "min_pixels 10000000000 .* at most 100,000,000",
        ),
        ("qwen2.5-vl", {"min_pixels": 10**400, "max_pixels": 10**400}, "at most 100,000,000"),
        ("paligemma", {"decode_by": 1000}, "1023 or 1024"),
    ],
)
def test_a_wrong_setting_is_refused(name, settings, error):
    with pytest.raises(ValueError, match=error):
        dialects.get(name, **settings)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "bird"}, "bird"),
        ({"model_type": "qwen", "visual": {}}, "bird"),  # Qwen-VL
        ({"model_type": "qwen"}, None),  # Qwen, without pictures
        ({"model_type": "qwen2_vl"}, "qwen2-vl"),
        ({"model_type": "qwen2_5_vl"}, "qwen2.5-vl"),
        ({"model_type": "qwen3_vl"}, "qwen3-vl"),
        ({"model_type": "qwen3_vl_moe"}, "qwen3-vl"),
        ({"model_type": "internvl"}, "internvl"),
        ({"model_type": "internvl_chat"}, "internvl"),
        ({"model_type": "internvl_chat", "_name_or_path": "x/MedRegA"}, "medrega"),
        ({"model_type": "paligemma"}, "paligemma"),
        ({"model_type": "florence2"}, "florence-2"),
        ({"model_type": "kosmos-2"}, "kosmos-2"),
        ({"model_type": "maira2"}, "maira-2"),
        ({"model_type": "gemma3"}, None),  # Gemma itself was not trained on this form
        ({"model_type": "gemma3", "_name_or_path": "google/medgemma-1.5-4b-it"}, "medgemma"),
        ({"model_type": "llava_onevision"}, None),
        ({"model_type": "llava_onevision", "_name_or_path": "x/RadVLM"}, "radvlm"),
        (
            {"model_type": "llava_mistral", "_name_or_path": "microsoft/llava-med-v1.5-mistral-7b"},
            "llava-med",
        ),
        ({"model_type": "llava"}, None),
        ({"model_type": "deepseek_vl_v2"}, "deepseek-vl2"),
        ({"model_type": ["qwen3_vl"]}, None),
        ({}, None),
    ],
)
def test_the_dialect_of_a_configuration(config, name):
    found = dialects.for_model(config)
    assert (found and found.name) == name


def test_sizes_of_qwen_come_from_its_files():
    config = {"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 14, "spatial_merge_size": 2}}
    assert dialects.for_model(config) == dialects.get("qwen2.5-vl")
    preprocessor = {
        "patch_size": 16,
        "merge_size": 2,
        "size": {"shortest_edge": 4096, "longest_edge": 65_536},
    }
    found = dialects.for_model(config, preprocessor)
    assert found.settings == {"factor": 32, "min_pixels": 4096, "max_pixels": 65_536}
    empty = {"patch_size": None, "size": None, "min_pixels": None}
    assert dialects.for_model({"model_type": "qwen2_5_vl", "vision_config": None}, empty) == dialects.get(
        "qwen2.5-vl"
    )


@pytest.mark.parametrize("name", dialects.names())
def test_dialect_json_comes_back(name, tmp_path):
    file = dialects.write_dialect(dialects.get(name), tmp_path)
    assert file == tmp_path / "dialect.json"
    assert dialects.read_dialect(tmp_path) == dialects.read_dialect(file) == dialects.get(name)
    content = json.loads(file.read_text())
    assert {"frame", "order", "origin", "grid", "rounding", "view", "absent"} <= set(content)


def test_dialect_json_keeps_settings(tmp_path):
    dialect = dialects.get("qwen2.5-vl", max_pixels=50_176)
    dialects.write_dialect(dialect, tmp_path)
    assert dialects.read_dialect(tmp_path) == dialect


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[]", "not a JSON object"),
        ("{", "it is not JSON"),
        ("[" * 60_000, "it is not JSON"),
        (" " * 70_000, "larger than 64 KiB"),
        ("{}", "it needs"),
        ('{"dialect": "qwen3-vl", "settings": []}', "it needs"),
        ('{"dialect": "qwen9"}', "there is no dialect"),
        ('{"dialect": "qwen3-vl", "settings": {"a": 1}}', "no setting"),
        (
            '{"dialect": "qwen2.5-vl", "max_pixels": 50176}',
            "'max_pixels' is not known; settings .* has factor, min_p",
        ),
        ('{"dialect": "qwen3-vl", "order": "y1, x1, y2, x2"}', "order is 'y1, x1, y2, x2' there"),
    ],
)
def test_a_wrong_dialect_json_is_refused_in_one_line(content, error, tmp_path):
    file = tmp_path / "dialect.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=error) as caught:
        dialects.read_dialect(tmp_path)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("view", "padding", "cropped"),
    [
        (View((800, 600)), (0, 0, 0, 0), (0, 0, 0, 0)),
        (padded_square((800, 600)), (0, 100, 0, 100), (0, 0, 0, 0)),
        (padded_square((5, 8)), (1, 0, 2, 0), (0, 0, 0, 0)),  # the odd pixel is at the right
        (centre_crop((800, 600)), (0, 0, 0, 0), (100, 0, 100, 0)),
        (centre_crop((5, 8)), (0, 0, 0, 0), (0, 1, 0, 2)),
        (View((10, 10), (-5, 2, 10, 12)), (5, 0, 0, 2), (0, 2, 0, 0)),  # both
    ],
)
def test_what_a_view_adds_and_cuts(view, padding, cropped):
    assert (view.padding_px, view.cropped_px) == (padding, cropped)


@pytest.mark.parametrize(
    "make", [lambda: View((0, 5)), lambda: View((5, 5), (3, 0, 3, 5)), lambda: View((5, 5), None, (5, 0))]
)
def test_an_empty_view_is_refused(make):
    with pytest.raises(ValueError, match=r"at least 1 each|is empty"):
        make()


def test_a_view_or_a_size_is_needed():
    answer = GroundedText("lung", (Span("lung", 0, 4, (Box(0, 0, 1, 1),)),))
    for arguments in ({}, {"view": View((5, 5)), "image_wh": (5, 5)}):
        with pytest.raises(ValueError, match="either a view or image_wh"):
            dialects.get("bird").write(answer, **arguments)


def test_dialects_need_neither_torch_nor_transformers():
    code = "import sys, bird_hf.dialects as d; d.names(); print(*{'torch', 'transformers'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr


# One of each reader, with what it could stumble over.
LONG = {
    "bird": ["<ref>", "<box>(1,"],
    "internvl": ["<ref>", "<box>[[1,    ", "<box>[[1, 2, 3, 4]]</box>", "<ref>a</ref>"],
    "kosmos-2": ["<object><patch_index_0001>", "<object></delimiter_of_multi_objects/>"],
    "maira-2": ["<obj>a <box>", "</obj>"],
    "paligemma": ["<loc0001>", "<loc0001><loc0001><loc0002><loc0002> ;"],
    "florence-2": ["a<loc_1><loc_1><loc_2><loc_2>", "<loc_"],
    "qwen3-vl": [
        '[{"bbox_2d":', '"\\"', '[{"\\"', '{"bbox_2d":[[[[', "[", '{"bbox_2d": [1, 2, 3, 4], "label": "a"}',
        "```json ", "<think>", "[ ", '{"a": {"a": ',
    ],
    "medgemma": ["Final Answer: [", "<unused94>", "<unused95>"],
    "radvlm": ["[1, 2, 3, 4, ", "The a is located at the coordinates [0.1,0.1,0.2,0.2] and", " ", "[[1,1,", "9"],
    "shikra": ["[0.1,0.3,0.3,0.4;", "[0.1,0.3,0.3,0.4]"],
}  # fmt: skip


EVERY_UNIT = [(name, unit) for name, units in LONG.items() for unit in units]


def calls_of(read, text: str) -> int:
    """How many functions, of Python and of C, a reader calls."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        read(text)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(("name", "unit"), EVERY_UNIT)
def test_four_times_the_text_takes_four_times_the_calls(name, unit):
    dialect, view = dialects.get(name), dialects.get(name).view((800, 600))
    few, many = (calls_of(lambda text: dialect.read(text, view), unit * count) for count in (200, 800))
    assert many <= 4 * few + 100


@pytest.mark.slow
@pytest.mark.parametrize(("name", "unit"), EVERY_UNIT)
def test_a_megabyte_is_read(name, unit):
    """Inside one call of a pattern: what is quadratic takes minutes for a megabyte."""
    dialect, view = dialects.get(name), dialects.get(name).view((800, 600))
    start = time.process_time()
    dialect.read(unit * (1_000_000 // len(unit)), view)
    assert time.process_time() - start < 20


def test_the_command_lists_and_shows(run_bird):
    listed = run_bird("dialects")
    assert listed.code == 0 and all(name in listed.out for name in dialects.names())
    shown = run_bird("dialects", "qwen2.5-vl", "--size", "512x384", "--box", "10", "20", "200", "300")
    assert '[{"bbox_2d": [10, 20, 197, 306], "label": "left kidney"}]' in shown.out
    assert "504x392" in shown.out and "reads back:" in shown.out
    padded = run_bird("dialects", "medgemma")
    assert "padding:      left 0, top 100, right 0, bottom 100" in padded.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["qwen"], "there is no dialect 'qwen'; the nearest is"),
        (["bird", "--size", "5"], "is not WIDTHxHEIGHT"),
        (["bird", "--size", "0x5"], "is not WIDTHxHEIGHT"),
        (["bird", "--box", "0", "0", "801", "5"], "pixels of a 800x600 image"),
        (["maira-2", "--box", "0", "0", "50", "5"], "not wholly inside"),
        (["qwen2.5-vl", "--set", "factor"], "is not NAME=VALUE"),
        (["qwen2.5-vl", "--set", "factor=x"], "not a whole number"),
        (["qwen2.5-vl", "--size", "9x20000"], "ratio above 200"),
        (["--box", "0", "0", "1", "1"], "give its name"),
    ],
)
def test_the_command_refuses_in_one_line(run_bird, arguments, error):
    ran = run_bird("dialects", *arguments)
    assert ran.code == 2 and error in ran.err and ran.err.count("\n") == 1
