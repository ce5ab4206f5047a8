"""A source with missing, unknown or misshapen tensors is refused before anything is written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bird_hf.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"
CASES = json.loads((Path(__file__).parents[1] / "golden" / "qwen_vl_tokenizer_cases.json").read_text())


def test_stored_rotary_frequencies_are_passed_over(
    source, tmp_path, reference, edit_weights, assert_same_weights
):
    edit_weights(source, lambda t: t.update({"transformer.rotary_emb.inv_freq": torch.ones(32)}))
    convert(source, tmp_path / "bird")
    assert_same_weights(tmp_path / "bird", reference)


def test_missing_tensors_are_named(source, tmp_path, edit_weights, refusal):
    edit_weights(source, lambda tensors: tensors.pop("transformer.visual.proj"))
    assert "lacks 1 tensors: transformer.visual.proj" in refusal(source, tmp_path / "bird")


def test_unexpected_tensors_are_named_and_counted(source, tmp_path, edit_weights, refusal):
    extra = {f"transformer.extra.{i}": torch.ones(1) for i in range(7)}
    edit_weights(source, lambda tensors: tensors.update(extra))
    message = refusal(source, tmp_path / "bird")
    assert "7 tensors that are not Qwen-VL's: transformer.extra.0" in message
    assert "and 2 more" in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("transformer.ln_f.weight", (255,)),
        ("transformer.h.0.attn.c_attn.weight", (767, 256)),
        ("transformer.visual.transformer.resblocks.0.attn.in_proj.bias", (191,)),
    ],
)
def test_misshapen_tensors_are_named_with_both_shapes(source, tmp_path, name, shape, edit_weights, refusal):
    edit_weights(source, lambda tensors: tensors.update({name: torch.ones(shape)}))
    message = refusal(source, tmp_path / "bird")
    assert f"{name} has shape {shape}, which does not give (" in message


def test_weights_of_another_model_are_named_as_such(source, tmp_path, refusal):
    save_file({"model.layers.0.mlp.gate_proj.weight": torch.ones(2)}, source / "model.safetensors")
    message = refusal(source, tmp_path / "bird")
    assert "is of an unknown layout: it contains model.layers.0.mlp.gate_proj.weight" in message


def test_quantized_numbers_are_refused(source, tmp_path, edit_weights, refusal):
    name = "transformer.h.0.mlp.w1.weight"
    edit_weights(source, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    assert f"{name} is stored as I8; only F64, F32, F16 and BF16 can be converted" in refusal(
        source, tmp_path / "bird"
    )
