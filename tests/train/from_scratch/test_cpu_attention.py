"""`cpu_eager` attention equals eager attention, computed in fewer passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.hub.packed_attention import visibility
from bird_hf.train.from_scratch.cpu_attention import AttentionRecorder, cpu_eager_attention, register

pytestmark = pytest.mark.slow

TURNS = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 1, 1, -1, -1]])
IDS = torch.arange(18).reshape(2, 9) + 40  # any words


@pytest.fixture(autouse=True)
def _registered():
    register()


def tensors(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shape = (2, 4, 9, 8)  # (B, heads, T, d)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def additive(dtype=torch.float32):
    return torch.zeros(2, 1, 9, 9, dtype=dtype).masked_fill(~visibility(TURNS), torch.finfo(dtype).min)


def by_the_book(query, key, value, mask, scaling):
    scores = query.float() @ key.float().transpose(2, 3) * scaling
    scores = scores if mask is None else scores.masked_fill(mask < 0, -torch.inf)
    return (scores.softmax(-1) @ value.float()).transpose(1, 2)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_values_and_gradients_are_those_of_the_formula(dtype, tolerance, masked):
    mask = additive(dtype) if masked else None
    ours, book = tensors(dtype), tensors(dtype)
    mixed, weights = cpu_eager_attention(nn.Identity(), *ours, mask, scaling=0.3)
    expected = by_the_book(*book, mask, 0.3)
    assert weights is None and mixed.dtype == dtype and mixed.shape == (2, 9, 4, 8)
    torch.testing.assert_close(mixed.float(), expected, atol=tolerance, rtol=tolerance)
    mixed.float().square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(ours, book, strict=True):
        torch.testing.assert_close(
            one.grad.float(), other.grad.float(), atol=4 * tolerance, rtol=4 * tolerance
        )


def test_padding_on_the_left_that_sees_nothing_stays_finite_in_half_precision():
    query, key, value = tensors()
    mask = additive()
    mask[:, :, :2] = torch.finfo(
        torch.float32
    ).min  # a mask in float32, as transformers makes it under autocast
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = cpu_eager_attention(nn.Identity(), query, key, value, mask, scaling=0.3)
    assert mixed.isfinite().all()


def test_mask_is_cut_to_the_keys():
    query, key, value = tensors()
    wide = torch.cat([additive(), torch.full((2, 1, 9, 3), -1.0)], dim=-1)
    mixed, _ = cpu_eager_attention(nn.Identity(), query, key, value, wide, scaling=0.3)
    torch.testing.assert_close(mixed, by_the_book(query, key, value, additive(), 0.3), atol=1e-5, rtol=1e-5)


def test_autocast_computes_in_its_dtype():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = cpu_eager_attention(nn.Identity(), *tensors(), additive(), scaling=0.3)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), by_the_book(*tensors(), additive(), 0.3), atol=5e-2, rtol=5e-2)


def outcome(folder, backend, mask):
    model = BirdForConditionalGeneration.from_pretrained(folder, attn_implementation=backend)
    assert model.model.vision_tower.config._attn_implementation == backend
    ids = IDS.clone()
    ids[:, :4] = model.config.image_token_id
    pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    output = model(input_ids=ids, pixel_values=pixels, attention_mask=mask, labels=IDS)
    output.loss.backward()
    return output.logits, {name: parameter.grad for name, parameter in model.named_parameters()}


def test_model_has_the_logits_and_gradients_of_eager(tiny_checkpoint):
    logits, gradients = outcome(tiny_checkpoint, "cpu_eager", visibility(TURNS))
    expected, expected_gradients = outcome(tiny_checkpoint, "eager", visibility(TURNS))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert all(gradient is not None for gradient in gradients.values())
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mask", [None, (TURNS >= 0).long()], ids=["none", "padding"])
@torch.no_grad()
def test_model_stays_causal_without_a_mask_of_ours(tiny_checkpoint, mask):
    ours = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint, attn_implementation="cpu_eager")
    eager = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint, attn_implementation="eager")
    real = TURNS >= 0
    logits, expected = (model(input_ids=IDS, attention_mask=mask).logits[real] for model in (ours, eager))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_only_the_given_layers_and_heads_are_recorded(tiny_checkpoint):
    model = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint, attn_implementation="cpu_eager")
    recorder = AttentionRecorder(layers=[1], heads=slice(None, None, 2))
    with torch.no_grad():
        model.model(input_ids=IDS, attention_mask=visibility(TURNS), attention_recorder=recorder)
    assert set(recorder.recorded) == {1}
    query, key, mask = recorder.recorded[1]
    assert query.shape[1] == key.shape[1] == 1  # of two heads
    assert mask.shape == (2, 1, 9, 9)
