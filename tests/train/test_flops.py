"""The FLOP formulas beside torch's counter, and the memory formulas beside saved tensors and a measured GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch.utils.flop_counter import FlopCounterMode

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train.flops import Part, Parts, Work, layer_parameters, repeated_flops, training_flops
from bird_hf.train.memory import Setting, Weights, activation_bytes, full_settings, memory

pytestmark = pytest.mark.slow

GPU = Path(__file__).parents[2] / "docs" / "gpu"
ROWS, LENGTH, SUPERVISED, RANK = 2, 96, 20, 4
VISION = {
    "image_size": 64,
    "patch_size": 8,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "position_grid": 8,
    "num_queries": 16,
    "resampler_hidden_size": 96,
    "resampler_num_attention_heads": 4,
}
TEXT = {
    "vocab_size": 500,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ALL, ATTENTION = (
    r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
    r".*language_model.*\.(q|k|v|o)_proj",
)


def small_model(attention: str = "eager") -> BirdForConditionalGeneration:
    config = BirdConfig(vision_config=dict(VISION), text_config=dict(TEXT), image_token_id=7)
    torch.manual_seed(0)
    return BirdForConditionalGeneration._from_config(config, attn_implementation=attention).train()


def loss_of(model: BirdForConditionalGeneration) -> torch.Tensor:
    """Head and loss at the last positions only."""
    ids = torch.full((ROWS, LENGTH), 9)
    ids[:, 2 : 2 + VISION["num_queries"]] = 7
    pixels = torch.randn(ROWS, 3, 64, 64, dtype=model.dtype)
    states = model.model(input_ids=ids, pixel_values=pixels, use_cache=False).last_hidden_state
    kept = states[:, -SUPERVISED:].flatten(0, 1)
    return F.cross_entropy(model.lm_head(kept).float(), ids[:, -SUPERVISED:].flatten())


WORK = Work(ROWS, ROWS * LENGTH, ROWS * SUPERVISED, attended=ROWS * LENGTH**2)  # eager attention: all pairs


def adapted(model: BirdForConditionalGeneration, layers: str) -> int:
    """Freezes a model but for LoRA on its layers; returns the number of their parameters."""
    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=RANK, target_modules=layers), model)
    return sum(value.numel() for name, value in model.named_parameters() if "lora_" in name)


def prepared(case: str) -> tuple[BirdForConditionalGeneration, Parts]:
    model = small_model()
    if case == "all":
        return model, Parts(vision_tower=Part(True), projector=Part(True))
    if case == "paper":
        model.freeze_vision()
        return model, Parts()
    if case == "lora":  # gradients stop at the first layer
        return model, Parts(resampler=Part(), language_model=Part(adapter=adapted(model, ATTENTION)))
    model_adapters = adapted(model, ALL)
    model.model.resampler.requires_grad_(True)
    return model, Parts(language_model=Part(adapter=model_adapters, adapts_last=True))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("case", ["all", "paper", "lora", "lora and resampler"])
def test_flops_are_torchs_count_within_a_twentieth(case: str, checkpointing: bool) -> None:
    model, parts = prepared(case)
    if checkpointing:
        model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    with FlopCounterMode(display=False) as counter:
        loss_of(model).backward()
    expected = training_flops(model.config, WORK, parts)
    if checkpointing:
        expected += repeated_flops(model.config, WORK, parts)
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.05)


def saved_bytes(model: BirdForConditionalGeneration, autocast: bool) -> int:
    """Bytes of what autograd keeps of the layers for a backward pass, parameters left out, each storage once."""
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        if value.untyped_storage().data_ptr() not in own:
            kept[value.untyped_storage().data_ptr()] = value
        return value

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
    ):
        states = torch.randn(ROWS, LENGTH, TEXT["hidden_size"], dtype=model.dtype, requires_grad=True)
        output = model.model.language_model(inputs_embeds=states, use_cache=False)
    assert output.last_hidden_state.requires_grad
    return sum(value.untyped_storage().nbytes() for value in kept.values())


@pytest.mark.parametrize("autocast", [False, True])
def test_kept_activations_are_what_autograd_saves(autocast: bool) -> None:
    model = small_model("sdpa").to(torch.float32 if autocast else torch.bfloat16)
    deep, shallow = saved_bytes(model, autocast), 0
    model.model.language_model.layers = model.model.language_model.layers[:2]
    shallow = saved_bytes(model, autocast)
    config = model.config
    work = Work(0, ROWS * LENGTH, 0, 0)
    inner = 8 * TEXT["intermediate_size"] * work.tokens  # gradients of the one layer that is differentiated
    expected = (activation_bytes(config, work, Parts(), False, autocast) - inner) / TEXT["num_hidden_layers"]
    assert expected == pytest.approx((deep - shallow) / 2, rel=0.15)


def test_memory_is_that_of_the_h100_within_15_percent() -> None:
    """Weights, gradients and both moments in bf16, as benchmarks/gpu.py trains."""
    config = BirdConfig()
    _, of_rank_1 = layer_parameters(config)
    checked = 0
    for name, case in json.loads((GPU / "training.json").read_text(encoding="utf-8"))["cases"].items():
        if "peak_memory_bytes" not in case:
            continue
        adapter = 64 * of_rank_1 * config.text_config.num_hidden_layers if name.startswith("lora") else 0
        parts = Parts(language_model=Part(adapter=adapter)) if adapter else Parts()
        batch = case["microbatch"]
        tokens = batch.get("sequences", batch["rows"]) * batch["length"]
        work = Work(batch["rows"], tokens, batch["supervised_tokens"], 0)
        kept = activation_bytes(config, work, parts, case["gradient_checkpointing"])
        trained = case["trainable_parameters"]
        weights = Weights(9_655_886_592 + adapter - trained, 0, trained, 0)
        found = memory(Setting("bf16", 2, 2, 2, 4), weights, kept, devices=1).total
        assert found == pytest.approx(case["peak_memory_bytes"], rel=0.15), name
        checked += 1
    assert checked == 19


@pytest.mark.parametrize(
    ("name", "one", "eight"),
    [
        # bytes a trained parameter takes on one of 1 and of 8 devices (arXiv 1910.02054, figure 1), buffers apart
        ("ZeRO-2", 16, 2 + 14 / 8),
        ("ZeRO-3", 16, 16 / 8),
        ("FSDP2", 16, 16 / 8),  # float32 weights, gradients, two moments
    ],
)
def test_states_are_divided_as_zero_does(name: str, one: float, eight: float) -> None:
    setting = next(each for each in full_settings() if each.name == name)
    for devices, expected in ((1, one), (8, eight)):
        found = memory(setting, Weights(0, 0, 1000, 0), 0, devices)
        assert found.weights + found.gradients + found.optimizer == pytest.approx(expected * 1000)
