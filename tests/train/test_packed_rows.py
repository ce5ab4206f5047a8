"""A pack of rows is its rows, run one by one; what is frozen is not computed for a gradient."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.nn.attention.flex_attention import create_mask

from bird_hf.hub.packed_attention import _blocks, block_mask, packed_mask, visibility
from bird_hf.train import segment_attention
from bird_hf.train.collate import IGNORED, GroundingCollator
from bird_hf.train.from_scratch import cpu_attention

RED, GREEN = Image.new("RGB", (40, 20), (200, 30, 30)), Image.new("RGB", (9, 30), (30, 200, 30))
BLUE = Image.new("L", (10, 30), 90)
WHERE = ("Where is the left kidney?", "<ref>left kidney</ref><box>(7,45),(1000,999)</box>")
WHAT = ("What is <ref>this</ref><box>(12,345),(678,900)</box>?", "A tumor.")
IS_THERE = ("Is there a nodule in this image?", "No, there is no <ref>nodule</ref> here <5 mm.")


def said(*turns):
    return [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


ROWS = [
    {"image_id": "a", "image": RED, "independent": True, "messages": said(WHERE, WHAT, IS_THERE)},
    {"image_id": "b", "image": BLUE, "independent": False, "messages": said(WHERE, IS_THERE)},
    {"image_id": "c", "images": [GREEN, RED], "independent": True, "messages": said(WHAT, WHERE)},
    {"image_id": "d", "independent": False, "messages": said(IS_THERE)},
    {"image_id": "e", "image": RED, "independent": True, "messages": said(WHERE)},
]


@pytest.fixture(scope="module")
def collator(tiny_processor):
    return GroundingCollator(tiny_processor)


def packs(collator):
    """The rows in two sequences of different lengths."""
    packed = [collator.pack(row) for row in ROWS]
    return collator.batch([packed[:4], packed[4:]])


def summed_loss(model, batch):
    logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
    )


def mean_and_gradients(model, batches):
    """Of the loss over the tokens of all batches, as a step of training has it."""
    model.zero_grad()
    tokens = sum((batch["labels"][:, 1:] != IGNORED).sum() for batch in batches)
    loss = sum(summed_loss(model, batch) for batch in batches) / tokens
    loss.backward()
    named = model.named_parameters()
    return loss.detach(), {name: value.grad.clone() for name, value in named if value.grad is not None}


# --- the law --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sdpa", "eager", "cpu_eager", {"text_config": "segments"}])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "gradient checkpointing"])
def test_loss_and_gradients_of_packs_are_those_of_their_rows(collator, tiny_model, backend, checkpointing):
    cpu_attention.register()
    segment_attention.register()
    tiny_model.set_attn_implementation("eager")
    expected, wanted = mean_and_gradients(tiny_model, [collator([row]) for row in ROWS])
    tiny_model.set_attn_implementation(backend)
    if checkpointing:
        tiny_model.train()
        tiny_model.gradient_checkpointing_enable({"use_reentrant": False})
    loss, found = mean_and_gradients(tiny_model, [packs(collator)])
    torch.testing.assert_close(loss, expected, atol=0, rtol=1e-6)
    assert found.keys() == wanted.keys() and len(found) > 30
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], atol=1e-5, rtol=1e-5, msg=name)


@torch.no_grad()
def test_loss_of_packs_under_flex_attention_is_that_of_their_rows(collator, tiny_model):
    """Uncompiled: on a CPU flex attention has no backward pass. benchmarks/gpu_parts/parity.py has it on CUDA."""
    expected = sum(summed_loss(tiny_model, collator([row])) for row in ROWS)
    tiny_model.set_attn_implementation("flex_attention")
    with torch.compiler.set_stance("force_eager"):
        torch.testing.assert_close(summed_loss(tiny_model, packs(collator)), expected, atol=0, rtol=1e-6)


def test_no_gradient_flows_from_a_row_into_another(collator, tiny_model):
    batch = packs(collator)
    embeds = tiny_model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    given = {name: batch[name] for name in ("position_ids", "turn_ids", "row_ids")}
    logits = tiny_model(inputs_embeds=embeds, **given).logits
    rows = batch["row_ids"][0]
    logits[0, rows == 1].square().sum().backward()
    reached = embeds.grad.abs().sum(-1) > 0
    assert reached[0, rows == 1].any() and not reached[0, rows != 1].any() and not reached[1].any()


def test_positions_restart_and_labels_are_the_answers_of_every_row(collator):
    batch = packs(collator)
    rows, alone = batch["row_ids"][0], [collator.pack(row) for row in ROWS[:4]]
    for number, packed in enumerate(alone):
        assert batch["position_ids"][0, rows == number].tolist() == packed.positions
        assert batch["labels"][0, rows == number].tolist() == packed.labels
        assert packed.labels[0] == IGNORED  # or the row before would predict it
    assert len(batch["pixel_values"]) == 5


def test_a_piece_that_is_not_learnt_has_no_labels(collator):
    from bird_hf.train.packing import Piece

    step = [[[(Piece(0, (2, 0), 0), ROWS[0])], [(Piece(4, (0,), 0, False), ROWS[4])]]]
    (batch,) = collator.collate_step(step)
    learnt = batch["labels"][0][batch["labels"][0] != IGNORED]
    assert collator.processor.tokenizer.decode(learnt) == f"{IS_THERE[1]}<|im_end|>{WHERE[1]}<|im_end|>"
    assert (batch["labels"][1] == IGNORED).all()


# --- masks ----------------------------------------------------------------------------------------------------


def numbered(length, seed):
    """Turns and rows of a sequence with rows of several blocks, and padding."""
    draw = torch.Generator().manual_seed(seed)
    turns, rows, row = [], [], 0
    end = length - int(torch.randint(1, 200, (), generator=draw)) if length > 200 else length - 2
    while len(turns) < end:
        for turn, most in enumerate([300, 260, 90, 150]):
            count = int(torch.randint(most, (), generator=draw))
            turns, rows = turns + [turn] * count, rows + [row] * count
        row += 1
    rest = [-1] * (length - end)
    return turns[:end] + rest, rows[:end] + rest


@pytest.mark.parametrize("length", [7, 128, 300, 1024, 1500])
def test_blocks_hold_every_visible_pair_and_say_what_the_dense_mask_says(length):
    made = [numbered(length, seed) for seed in range(3)]
    turns, rows = (torch.tensor([each[place] for each in made]) for place in (0, 1))
    dense = visibility(turns, rows)
    mask = block_mask(turns, rows)
    assert torch.equal(create_mask(mask.mask_mod, 3, 1, length, length, device="cpu"), dense)
    count = -(-length // 128)
    blocks = torch.zeros(3, count * 128, count * 128, dtype=torch.bool)
    blocks[:, :length, :length] = dense[:, 0]
    blocks = blocks.unflatten(2, (count, 128)).unflatten(1, (count, 128)).transpose(2, 3).flatten(3)
    needed, whole = _blocks(turns, rows)
    assert not (blocks.any(-1) & ~needed).any() and not (whole & ~blocks.all(-1)).any()
    assert needed.sum() <= 1.2 * blocks.any(-1).sum()  # few that are not needed


def test_packs_cost_blocks_that_grow_with_tokens():
    """Eight rows of 512 tokens: a tenth of the pairs of one row of 4096."""
    rows = torch.arange(8).repeat_interleave(512)[None]
    needed, _ = _blocks(torch.ones_like(rows), rows)
    assert int(needed.sum()) == 8 * 10  # of 32 * 33 / 2 = 528


def test_rows_are_told_apart_and_padding_sees_itself_only():
    turns, rows = torch.tensor([[0, 1, 2, 0, 1, -1, -1]]), torch.tensor([[0, 0, 0, 1, 1, -1, -1]])
    expected = ["1......", "11.....", "1.1....", "...1...", "...11..", ".....1.", "......1"]
    found = visibility(turns, rows)[0, 0].tolist()
    assert ["".join(".1"[seen] for seen in line) for line in found] == expected


def test_masks_that_cannot_be_are_refused(collator, tiny_model):
    with pytest.raises(ValueError, match="flash_attention_2 cannot attend within packed turns"):
        packed_mask(torch.zeros(1, 3, dtype=torch.long), None, "flash_attention_2")
    batch = collator([ROWS[0]])
    with pytest.raises(ValueError, match="turn_ids and attention_mask are both given"):
        tiny_model(**batch, attention_mask=torch.ones_like(batch["input_ids"]))


# --- the frozen tower -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_tower_runs_once_and_keeps_no_graph(collator, tiny_model, frozen):
    if frozen:
        tiny_model.freeze_vision()
    tiny_model.train()
    tiny_model.gradient_checkpointing_enable({"use_reentrant": False})
    tiny_model.enable_input_require_grads()
    runs, states = [], []
    tower = tiny_model.model.vision_tower
    tower.blocks[0].attention_norm.register_forward_pre_hook(lambda *_: runs.append(1))
    tower.register_forward_hook(lambda module, given, found: states.append(found.last_hidden_state))
    summed_loss(tiny_model, packs(collator)).backward()
    (output,) = states
    assert (output.grad_fn is None) == frozen
    assert len(runs) == (1 if frozen else 2)  # checkpointing computes what is trained again
    assert (tiny_model.model.resampler.query.grad is not None) and tiny_model.model.resampler.query.grad.any()
    assert (tower.position_embedding.grad is None) == frozen


def test_gradients_of_pixels_pass_a_frozen_tower(tiny_model):
    tiny_model.requires_grad_(False)
    pixels = torch.randn(1, 3, 32, 32, requires_grad=True)
    tiny_model.get_image_features(pixels).pooler_output[0].sum().backward()
    assert pixels.grad.any()
