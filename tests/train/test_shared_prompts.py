"""A prompt that is computed once for all of its answers gives what each answer gives alone."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig
from trl import GRPOTrainer

from bird_hf.checkpoint.load import load_checkpoint
from bird_hf.sample import embedded_checkpoint
from bird_hf.train import segment_attention
from bird_hf.train.from_scratch import cpu_attention
from bird_hf.train.shared_prompts import RoomyLayer, distinct_images, each_prompt_once, groups_of

PAD, END = 1183, 1185  # of the embedded checkpoint


@pytest.fixture(scope="module")
def model():
    segment_attention.register()
    cpu_attention.register()
    loaded, _ = load_checkpoint(embedded_checkpoint())
    loaded.float().eval().freeze_vision()
    loaded.config.coordinate_smoothing_sigma = None
    loaded.generation_config = GenerationConfig(eos_token_id=END, pad_token_id=PAD)
    return loaded


@pytest.fixture(scope="module")
def asked(model):
    """Prompts that are padded on the left, the mask, and images: rows 0, 2 and 3 are of one prompt."""
    return prompts_of(model, words=([7], [8, 9, 10], [7], [7], [7]), images=(0, 1, 0, 0, 1))


def prompts_of(model, words, images):
    side, drawn = model.config.vision_config.image_size, torch.Generator().manual_seed(1)
    pictures = torch.randn(2, 3, side, side, generator=drawn)
    rows = [[5, *[model.config.image_token_id] * model.config.num_queries, *each, 6] for each in words]
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids, mask, pictures[list(images)]


# --- which rows have one prompt ---------------------------------------------------------------------------------


def test_rows_of_one_prompt_are_found(model, asked):
    groups = groups_of(*asked, model.config)
    assert [group.rows for group in groups] == [[0, 2, 3], [1], [4]]
    assert [group.images for group in groups] == [[0], [1], [1]]
    assert [group.prompt[-2:] for group in groups] == [[7, 6], [10, 6], [7, 6]]


def test_rows_may_have_several_images_or_none(model):
    image = [model.config.image_token_id] * model.config.num_queries
    rows = [[5, *image, *image], [5, *[4] * len(image) * 2], [5, *image, *image], [5, *image, *image]]
    ids, pictures = torch.tensor(rows), torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 3, 2, 2)
    groups = groups_of(ids, torch.ones_like(ids), pictures[[0, 1, 0, 1, 1, 0]], model.config)
    assert [(group.rows, group.images) for group in groups] == [([0, 2], [0, 1]), ([1], []), ([3], [1, 0])]


@pytest.mark.parametrize(
    ("images", "first", "place"),
    [
        pytest.param([1, 1, 2, 1, 2], [0, 2], [0, 0, 1, 0, 1], id="two images"),
        pytest.param([3], [0], [0], id="one"),
        pytest.param([1, 2, 3], [0, 1, 2], [0, 1, 2], id="all differ"),
    ],
)
def test_equal_images_are_found(images, first, place):
    pixels = torch.stack([torch.full((3, 2, 2), float(each)) for each in images])
    assert [each.tolist() for each in distinct_images(pixels)] == [first, place]


def test_images_are_not_taken_for_equal_by_their_sums():
    pixels = torch.zeros(3, 3, 2, 2)
    pixels[1, 0, 0, 0], pixels[1, 2, 1, 1] = 2.0, -1.0  # 1 * 2 - 2 * 1 = 0 with the weights of the sums
    assert [each.tolist() for each in distinct_images(pixels)] == [[0, 1, 2], [0, 1, 2]]


# --- the loss ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager", cpu_attention.NAME, segment_attention.NAME])
@pytest.mark.slow
def test_log_probabilities_and_gradients_are_those_of_answers_alone(trainer_of, model, asked, attention):
    trainer = trainer_of(
        method="grpo",
        model_name_or_path=str(embedded_checkpoint()),
        attn_implementation=attention,
        num_generations=2,
        per_device_train_batch_size=4,
        bf16=False,
        temperature=0.7,
    )
    # In float64 little but the packing can differ. transformers' eager attention needs float32 for padding on the left.
    dtype, within = (torch.float32, 3e-5) if attention == "eager" else (torch.float64, 1e-5)
    trained = trainer.model.to(dtype)
    ids, mask, pixels = asked[0], asked[1], asked[2].to(dtype)
    answers = torch.randint(10, 1000, (5, 6), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([6, 3, 1, 5, 2])
    written = (torch.arange(6) < lengths[:, None]).long()
    answers[written == 0] = PAD
    inputs = (torch.cat([ids, answers], 1), torch.cat([mask, written], 1), 6)
    weights = torch.randn(5, 6, generator=torch.Generator().manual_seed(3)) * written

    def outcome(compute):
        trained.zero_grad()
        logps, entropies, _ = compute(
            trainer, trained, *inputs, compute_entropy=True, pixel_values=pixels, num_images=[1] * 5
        )
        (logps * weights).sum().backward()
        grads = {name: value.grad for name, value in trained.named_parameters() if value.grad is not None}
        return logps * written, entropies * written, {name: grad.clone() for name, grad in grads.items()}

    found = outcome(type(trainer)._get_per_token_logps_and_entropies)
    expected = outcome(GRPOTrainer._get_per_token_logps_and_entropies)
    assert found[2].keys() == expected[2].keys()
    torch.testing.assert_close(found[:2], expected[:2], atol=2e-5, rtol=1e-5)
    for name, grad in expected[2].items():
        torch.testing.assert_close(
            found[2][name], grad, atol=within * max(1, float(grad.abs().max())), rtol=0
        )


# --- sampling ---------------------------------------------------------------------------------------------------


def test_answers_are_those_of_prompts_read_alone(model, asked, monkeypatch):
    ids, mask, pixels = asked
    tower, counts = model.model.vision_tower.forward, []

    def counted(pixel_values, **kwargs):
        counts.append(len(pixel_values))
        return tower(pixel_values, **kwargs)

    monkeypatch.setattr(model.model.vision_tower, "forward", counted)
    options = {
        "max_new_tokens": 6,
        "do_sample": False,
        "output_scores": True,
        "return_dict_in_generate": True,
    }
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
    with torch.no_grad():
        expected = model.generate(**inputs, **options)
        with each_prompt_once(model):
            found = model.generate(**inputs, **options)
        model.generate(**inputs, **options)
    assert counts == [5, 3, 5]  # and what `generate` is comes back
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lengths", [(1, 1, 1), (3, 70, 1), (200,)])
def test_a_cache_with_room_holds_what_it_is_given(lengths):
    drawn = torch.Generator().manual_seed(1)
    keys, values = torch.randn(2, 2, 3, 4, 5, generator=drawn)
    layer = RoomyLayer(keys, values.bfloat16(), torch.tensor([0, 1, 0]))
    expected = [keys[[0, 1, 0]].bfloat16(), values[[0, 1, 0]].bfloat16()]
    for length in lengths:
        new = torch.randn(2, 3, 3, length, 5, generator=drawn)
        expected = [torch.cat([old, more.bfloat16()], dim=2) for old, more in zip(expected, new, strict=True)]
        found = layer.update(new[0], new[1].bfloat16())
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert layer.get_seq_length() == 4 + sum(lengths)
