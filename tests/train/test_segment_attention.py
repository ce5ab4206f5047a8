"""Attention by segments is attention under the dense mask, values and gradients."""

import pytest
import torch

from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train import segment_attention
from bird_hf.train.segment_attention import Segment, segment_mask, segments_of

P = -1  # padding
# (turns and rows of the sequences of a batch, what they are of)
SEQUENCES = [
    pytest.param([[0, 0, 0, 1, 1, 2, 2, 2]], None, id="a prefix and two turns"),
    pytest.param([[0, 0, 1, 1, P, P], [0, 0, 0, 1, 2, 3]], None, id="two sequences, one with padding"),
    pytest.param([[1, 1, 1, 1]], None, id="no prefix: a row without an image"),
    pytest.param([[1, 1, 2, 2, 3]], None, id="turns without a prefix"),
    pytest.param([[0, 0, 0]], None, id="a prefix alone"),
    pytest.param([[0, 0, 1, 1, 0, 0, 1, 2, P]], [[0, 0, 0, 0, 1, 1, 1, 1, P]], id="two rows in a sequence"),
    pytest.param([[1, 1, 1, 0, 1, P]], [[0, 0, 1, 2, 2, P]], id="rows with and without a prefix"),
    pytest.param([[0] * 600 + [1] * 5], None, id="a prefix of several blocks"),
]


def visible(turns, rows):
    """Which position attends to which, (B, 1, T, T), written out pair by pair."""
    rows = torch.zeros_like(turns) if rows is None else rows
    seen = torch.zeros(*turns.shape, turns.shape[1], dtype=torch.bool)
    for sequence in range(len(turns)):
        pairs = list(zip(rows[sequence].tolist(), turns[sequence].tolist(), strict=True))
        for query, (row, turn) in enumerate(pairs):
            for key, (other_row, other_turn) in enumerate(pairs[: query + 1]):
                is_seen = row == other_row and other_turn in (0, turn)
                seen[sequence, query, key] = is_seen or query == key
    return seen[:, None]


@pytest.mark.parametrize(("turns", "rows"), SEQUENCES)
@pytest.mark.parametrize("key_heads", [4, 2], ids=["own keys", "grouped queries"])
def test_it_is_attention_under_the_dense_mask(turns, rows, key_heads):
    turns, rows = torch.tensor(turns), None if rows is None else torch.tensor(rows)
    torch.manual_seed(0)
    shape = (len(turns), 4, turns.shape[1], 8)
    tensors = [
        torch.randn(shape[0], heads, *shape[2:], dtype=torch.float64, requires_grad=True)
        for heads in (4, key_heads, key_heads)
    ]
    groups = [each.repeat_interleave(4 // each.shape[1], dim=1) for each in tensors]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *groups, attn_mask=visible(turns, rows), scale=0.3
    )
    found, _ = segment_attention.segment_attention(
        None, *tensors, attention_mask=segment_mask(turns, rows), scaling=0.3
    )
    is_real = (turns >= 0)[:, :, None, None]
    upstream = torch.randn(found.shape, dtype=torch.float64) * is_real
    torch.testing.assert_close(found, expected.transpose(1, 2) * is_real)
    one = torch.autograd.grad((found * upstream).sum(), tensors, retain_graph=True)
    other = torch.autograd.grad((expected.transpose(1, 2) * upstream).sum(), tensors)
    torch.testing.assert_close(one, other)


def test_scores_grow_with_the_lengths_and_not_with_their_square():
    def scores(rows):
        turns = torch.tensor([[0] * 200 + [1] * 30 + [2] * 30] * rows).reshape(1, -1)
        numbers = torch.arange(rows).repeat_interleave(260)[None]
        return sum(
            (s.end - s.start) * (s.end - s.start + s.shared_end - s.shared_start)
            for s in segments_of(turns, numbers)
        )

    assert scores(8) == 8 * scores(1) < 8 * 260**2 / 1.2


def test_a_turn_shares_the_prefix_of_its_own_row():
    found = segments_of(torch.tensor([[0, 0, 1, 0, 2, 2]]), torch.tensor([[0, 0, 0, 1, 1, 1]]))
    assert found == [
        Segment(0, 0, 0, 0, 2),
        Segment(0, 0, 2, 2, 3),
        Segment(0, 3, 3, 3, 4),
        Segment(0, 3, 4, 4, 6),
    ]


def test_a_models_loss_and_gradients_are_those_of_sdpa(tiny_checkpoint):
    segment_attention.register()
    model = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint)
    turns = torch.tensor([[0, 0, 1, 1, 1, 2, 2, P], [0, 1, 1, 1, 1, 1, 1, 1]])
    ids = torch.randint(5, 200, turns.shape, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2, 3, 4, 2, 3, 0], list(range(8))])
    labels = ids.masked_fill(turns < 1, -100)
    found = []
    for name, given in (
        ("sdpa", {"attention_mask": visible(turns, None)}),
        (segment_attention.NAME, {"turn_ids": turns}),
    ):
        model.model.language_model.set_attn_implementation(name)
        loss = model(input_ids=ids, position_ids=positions, labels=labels, use_cache=False, **given).loss
        gradients = torch.autograd.grad(loss, list(model.model.language_model.parameters()))
        found.append((loss.detach(), gradients))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("mask", [None, [[0, 0, 1, 1, 1], [1] * 5]], ids=["no mask", "padding on the left"])
def test_without_turns_it_is_sdpa(tiny_checkpoint, mask):
    segment_attention.register()
    model = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint)
    ids = torch.tensor([[1, 1, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = None if mask is None else torch.tensor(mask)
    found = []
    for name in ("sdpa", segment_attention.NAME):
        model.set_attn_implementation({"text_config": name})
        logits = model(input_ids=ids, attention_mask=mask).logits
        said = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
        found.append((logits[1], said))
    torch.testing.assert_close(*found, atol=0, rtol=0)
