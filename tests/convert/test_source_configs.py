"""A configuration is translated, or one line says what is wrong with it."""

import json
from pathlib import Path

import pytest

from bird_hf.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"
CASES = json.loads((Path(__file__).parents[1] / "golden" / "qwen_vl_tokenizer_cases.json").read_text())


def test_the_configuration_is_the_sources_in_our_terms(tmp_path):
    convert(GOLDEN, tmp_path / "bird")
    config = json.loads((tmp_path / "bird" / "config.json").read_text())
    assert config["image_token_id"] == 402  # image_start_id + 2
    assert config["text_config"]["intermediate_size"] == 672  # half: Qwen counts gate and up together
    assert config["text_config"]["rope_parameters"]["rope_theta"] == 10000.0
    assert config["vision_config"]["resampler_num_attention_heads"] == 2  # width / 128
    assert config["auto_map"].keys() == {"AutoConfig", "AutoModel", "AutoModelForImageTextToText"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"visual": None}, "'visual' is missing"),
        ({"num_hidden_layers": None}, "'num_hidden_layers' is missing"),
        ({"visual": "no"}, "is not a Qwen-VL configuration"),
        ({"num_hidden_layers": "two"}, "is not a Qwen-VL configuration"),
        ({"rotary_pct": 0.5}, "partial rotary embeddings"),
    ],
)
def test_another_configuration_is_refused(source, tmp_path, changes, complaint, edit_config, refusal):
    edit_config(source, **changes)
    assert complaint in refusal(source, tmp_path / "bird")


def test_a_configuration_that_is_not_json_is_refused(source, tmp_path, refusal):
    (source / "config.json").write_text("{")
    assert "config.json is not a configuration" in refusal(source, tmp_path / "bird")


def test_a_vocabulary_without_room_for_image_tokens_is_refused(source, tmp_path, edit_config, refusal):
    edit_config(source, vocab_size=402)
    message = refusal(source, tmp_path / "bird")
    assert "the image token has id 402, but the vocabulary has 402 tokens" in message
