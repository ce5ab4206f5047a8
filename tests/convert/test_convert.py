"""Qwen-VL folders become BiRD folders, and the command says what was written."""

import base64
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from bird_hf.cli import app
from bird_hf.convert import convert
from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.processing_bird import BirdProcessor

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"
CASES = json.loads((Path(__file__).parents[1] / "golden" / "qwen_vl_tokenizer_cases.json").read_text())


def test_a_source_without_a_vocabulary_gives_model_and_config_and_says_so(
    tmp_path, reference, assert_same_weights
):
    report = convert(GOLDEN, tmp_path / "bird")
    assert not report.has_processor
    assert BirdConfig.from_pretrained(tmp_path / "bird").label_names == {}
    assert report.num_parameters == sum(tensor.numel() for tensor in reference.values())
    names = {path.name for path in (tmp_path / "bird").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "modeling_bird.py"} <= names
    assert not {"tokenizer.json", "processor_config.json"} & names
    assert_same_weights(tmp_path / "bird", reference)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_are_written_in_the_dtype_that_is_asked_for(tmp_path, reference, dtype):
    made = convert(GOLDEN, tmp_path / "bird", dtype=dtype)
    assert made.dtype == dtype
    assert json.loads((tmp_path / "bird" / "config.json").read_text())["dtype"] == dtype
    found = load_file(tmp_path / "bird" / "model.safetensors")
    assert all(torch.equal(found[name], reference[name].to(getattr(torch, dtype))) for name in reference)


def test_the_command_prints_the_blocks_and_what_is_missing(tmp_path, reference):
    ran = CliRunner().invoke(app, ["convert", str(GOLDEN), str(tmp_path / "bird")])
    assert ran.exit_code == 0
    total = sum(tensor.numel() for tensor in reference.values())
    assert f"{total / 1e6:,.1f} M parameters in bfloat16" in ran.stdout
    for block in ("vision transformer", "resampler", "projector", "language model"):
        assert f"  {block}: " in ran.stdout
    assert "the source has no qwen.tiktoken" in ran.stderr


def test_a_card_and_the_sources_licence_are_written(source, tmp_path):
    (source / "LICENSE").write_text("as they gave it")
    convert(source, tmp_path / "bird")
    card = (tmp_path / "bird" / "README.md").read_text()
    assert "2 layers, 256 wide, 512 tokens" in card
    assert "Not a medical device" in card and "$" not in card
    assert (tmp_path / "bird" / "LICENSE").read_text() == "as they gave it"


def test_an_unknown_dtype_is_refused(tmp_path, refusal):
    assert "dtype 'int3' is unknown" in refusal(GOLDEN, tmp_path / "bird", dtype="int3")


def test_a_folder_with_something_in_it_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match="exists already"):
        convert(GOLDEN, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_a_source_with_a_vocabulary_gives_a_processor_too(source, tmp_path, original, edit_config, refusal):
    """Bytes as the whole vocabulary: image slots then follow 256 ranks and the control tokens before them."""
    ranks = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    (source / "qwen.tiktoken").write_text("\n".join(ranks))
    message = refusal(source, tmp_path / "bird")
    assert "qwen.tiktoken puts <imgpad> at 472, config.json at 402" in message
    visual = json.loads((source / "config.json").read_text())["visual"]
    edit_config(source, visual=visual | {"image_start_id": 470})
    assert convert(source, tmp_path / "bird").has_processor
    names = {path.name for path in (tmp_path / "bird").iterdir()}
    assert {"tokenizer.json", "processor_config.json", "chat_template.jinja"} <= names
    assert BirdProcessor.from_pretrained(tmp_path / "bird").known_names == ()
    generation = json.loads((tmp_path / "bird" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [258, 256]  # <|im_end|>, <|endoftext|>
