"""Attention from names and boxes to their image tokens is supervised, in every other head of two layers."""

from __future__ import annotations

import pytest
import torch

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train.from_scratch import cpu_attention
from bird_hf.train.from_scratch.attention_supervision import AttentionSupervisionLoss

pytestmark = pytest.mark.slow

TEXT = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 12,
}
VISION = {
    "image_size": 16,
    "patch_size": 8,
    "position_grid": 2,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_queries": 4,
    "resampler_hidden_size": 32,
    "resampler_num_attention_heads": 2,
}
IMAGE = 11


@pytest.fixture
def model():
    """A model of four layers, of which the two in the middle are supervised."""
    cpu_attention.register()
    torch.manual_seed(0)
    config = BirdConfig(vision_config=VISION, text_config=TEXT, image_token_id=IMAGE)
    return BirdForConditionalGeneration._from_config(config, attn_implementation="cpu_eager")


def batch():
    """Three rows: an image and words, the last of which has image token 2 as its target; words alone; and an image with
    two words, whose targets are the token after the image tokens, and two image tokens.
    """
    ids = torch.tensor([[*[IMAGE] * 4, 1, 2, 3], [1, 2, 3, 4, 5, 6, 7], [0, *[IMAGE] * 4, 4, 5]])
    targets = torch.zeros(3, 7, 5, dtype=torch.bool)
    targets[0, 6, 2] = targets[2, 5, 4] = targets[2, 6, 0] = targets[2, 6, 1] = True
    return ids, targets, torch.randn(2, 3, 16, 16)


def loss_of(model, ids, targets, pixels):
    supervision = AttentionSupervisionLoss(model)
    recorder = supervision.recorder()
    model.model(input_ids=ids, pixel_values=pixels, attention_recorder=recorder)
    return supervision.loss(recorder, ids, targets)


def test_it_is_the_attention_of_supervised_heads_to_their_targets(model):
    ids, targets, pixels = batch()
    found = loss_of(model, ids, targets, pixels)
    model.set_attn_implementation("eager")
    seen = model(input_ids=ids, pixel_values=pixels, output_attentions=True).attentions[1:3]
    on_target = [
        [layer[0, head, 6, 2], layer[2, head, 5, 5], layer[2, head, 6, 1] + layer[2, head, 6, 2]]
        for layer in seen
        for head in (0, 2)  # every other one
    ]
    expected = -torch.stack([share for head in on_target for share in head]).log().mean()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_it_is_learnt_away(model):
    ids, targets, pixels = batch()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        losses.append(loss_of(model, ids, targets, pixels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
