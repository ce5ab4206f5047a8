"""Muon takes the matrices of the blocks, AdamW the rest, and together they are one optimizer."""

from __future__ import annotations

import pytest
import torch
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train.from_scratch.muon import ShapewiseMuon, muon_with_adamw

pytestmark = pytest.mark.slow


def build(model):
    parameters = model.named_parameters()
    return muon_with_adamw(parameters, muon_lr=0.02, adamw_lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)


def taken(model, optimizer):
    """The names of the parameters in each of the two, by what they hold."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        [names[id(parameter)] for group in part.param_groups for parameter in group["params"]]
        for part in optimizer.optimizers
    ]


def step(model, optimizer, number):
    """One step on the loss of some words and pixels, which depend on `number` alone."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(0, 300, (2, 12), generator=generator)
    ids[:, 2:6] = model.config.image_token_id
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 300, (2, 12), generator=generator)
    model(input_ids=ids, pixel_values=pixels, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def test_every_trainable_parameter_is_in_exactly_one(tiny_model):
    optimizer = build(tiny_model)
    muon, adamw = taken(tiny_model, optimizer)
    assert sorted(muon + adamw) == sorted(name for name, _ in tiny_model.named_parameters())
    assert [type(part) for part in optimizer.optimizers] == [ShapewiseMuon, AdamW]


def test_muon_has_the_matrices_of_the_blocks_only(tiny_model):
    muon, adamw = taken(tiny_model, build(tiny_model))
    kinds = ("embed", "lm_head", "norm", "bias", "position", "query")
    assert not [name for name in muon if any(name.endswith((f"{kind}.weight", kind)) for kind in kinds)]
    for name in (
        "model.vision_tower.blocks.0.attention.q_proj.weight",
        "model.vision_tower.blocks.0.mlp.fc2.weight",
        "model.vision_tower.patch_embedding.weight",
        "model.resampler.kv_proj.weight",
        "model.resampler.attention.out_proj.weight",
        "model.projector.linear.weight",
        "model.language_model.layers.1.self_attn.v_proj.weight",
        "model.language_model.layers.0.mlp.gate_proj.weight",
    ):
        assert name in muon
    for name in (
        "lm_head.weight",
        "model.language_model.embed_tokens.weight",
        "model.resampler.query",
        "model.vision_tower.position_embedding",
    ):
        assert name in adamw


def test_weights_decay_in_matrices_only(tiny_model):
    muon, adamw = build(tiny_model).param_groups
    assert (muon["weight_decay"], adamw["weight_decay"]) == (0.1, 0.0)
    assert adamw["betas"] == (0.9, 0.95)


def test_frozen_parameters_are_left_out(tiny_model):
    tiny_model.freeze_vision()
    optimizer = build(tiny_model)
    names = [name for part in taken(tiny_model, optimizer) for name in part]
    assert names and not [name for name in names if "vision_tower" in name or "projector" in name]
    before = {name: parameter.clone() for name, parameter in tiny_model.named_parameters()}
    step(tiny_model, optimizer, 0)
    changed = {name for name, value in tiny_model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == set(names)


def test_scheduler_drives_both(tiny_model):
    optimizer = build(tiny_model)
    scheduler = LambdaLR(optimizer, lambda number: 1 / (1 + number))
    rates = []
    for number in range(2):
        step(tiny_model, optimizer, number)
        scheduler.step()
        rates.append([group["lr"] for part in optimizer.optimizers for group in part.param_groups])
    assert rates == [pytest.approx([0.01, 5e-4]), pytest.approx([0.02 / 3, 1e-3 / 3])]


def test_zero_grad_clears_both(tiny_model):
    optimizer = build(tiny_model)
    for parameter in tiny_model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in tiny_model.parameters())


def test_closure_gives_the_loss(tiny_model):
    assert build(tiny_model).step(lambda: 1.5) == 1.5


def test_saved_state_goes_on_as_if_it_had_never_stopped(tiny_model, tiny_checkpoint, tmp_path):
    unbroken = build(tiny_model)
    schedule = LambdaLR(unbroken, lambda number: 1 / (1 + number))
    step(tiny_model, unbroken, 0)
    schedule.step()
    torch.save((tiny_model.state_dict(), unbroken.state_dict(), schedule.state_dict()), tmp_path / "state.pt")
    step(tiny_model, unbroken, 1)

    resumed = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint).eval()
    optimizer = build(resumed)
    again = LambdaLR(optimizer, lambda number: 1 / (1 + number))
    weights, state, schedule_state = torch.load(tmp_path / "state.pt")
    resumed.load_state_dict(weights)
    optimizer.load_state_dict(state)
    again.load_state_dict(schedule_state)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 5e-4]
    step(resumed, optimizer, 1)
    for (name, one), other in zip(tiny_model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_scheduler_still_drives_both_after_a_reload(tiny_model):
    optimizer = build(tiny_model)
    scheduler = LambdaLR(optimizer, lambda number: 0.5**number)
    optimizer.load_state_dict(optimizer.state_dict())
    step(tiny_model, optimizer, 0)
    scheduler.step()
    rates = [group["lr"] for part in optimizer.optimizers for group in part.param_groups]
    assert rates == pytest.approx([0.01, 5e-4])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_matrices_of_one_shape_together_are_updated_as_one_at_a_time(weight_decay):
    shapes = [(16, 16), (16, 16), (24, 16), (16, 24), (16, 16), (24, 16)]
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    settings = {"lr": 0.05, "weight_decay": weight_decay, "ns_steps": 4}
    one, other = ShapewiseMuon(ours, **settings), Muon(theirs, **settings)
    for _ in range(3):
        for mine, reference in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            reference.grad = mine.grad.clone()
        one.step()
        other.step()
    for mine, reference, value in zip(ours, theirs, start, strict=True):
        moved = (reference - value).norm()
        assert (mine - reference).norm() < 0.01 * moved  # both work in bf16


def test_a_matrix_without_gradient_stays():
    still, moving = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    moving.grad = torch.eye(4)
    ShapewiseMuon([still, moving], lr=0.1).step()
    assert torch.equal(still, torch.ones(4, 4)) and not torch.equal(moving, torch.ones(4, 4))
