"""The model computes what Qwen-VL computes, and behaves as a transformers model should."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bird_hf.convert import convert
from bird_hf.hub.configuration_bird import BirdConfig, BirdVisionConfig
from bird_hf.hub.image_processing_bird import BirdImageProcessor
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration, BirdModel, resize_grid, sine_cosine_grid
from bird_hf.hub.pixels import open_image

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"
START, END, SLOT = 400, 401, 402  # of the tiny checkpoint
QUERIES, SIZE, VOCAB = 4, 32, 60  # of the small model below
IMAGE = 50


@pytest.fixture(scope="module")
def expected():
    return np.load(GOLDEN / "expected.npz")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "bird"
    convert(GOLDEN, folder)
    return BirdForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def pixels():
    return BirdImageProcessor()(open_image(GOLDEN / "image.png"), return_tensors="pt")["pixel_values"]


def golden_inputs(expected, pixels, case):
    """Ids with slots in the place of path bytes, and the same picture for each image."""
    ids = torch.tensor(expected[f"{case}.input_ids"])
    starts = (ids[0] == START).nonzero().flatten().tolist()
    for start in starts:
        ids[0, start + 1 : start + 257] = SLOT
        assert ids[0, start + 257] == END
    return {"input_ids": ids} | ({"pixel_values": pixels.repeat(len(starts), 1, 1, 1)} if starts else {})


def small_config(**vision):
    return BirdConfig(
        vision_config={
            "image_size": SIZE,
            "patch_size": 8,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "position_grid": 3,
            "num_queries": QUERIES,
            "resampler_hidden_size": 32,
            "resampler_num_attention_heads": 2,
            **vision,
        },
        text_config={
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
        image_token_id=IMAGE,
    )


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return BirdForConditionalGeneration(small_config()).eval()


def small_inputs(*words, images=1):
    """One row: `images` images in front of the words."""
    return {
        "input_ids": torch.tensor([[1, *[IMAGE] * QUERIES * images, 2, *words]]),
        "pixel_values": torch.randn(images, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(images)),
    }


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


# --- parity with the original code ---------------------------------------------------------------------------


def test_pixel_values_equal_the_originals(expected, pixels):
    np.testing.assert_allclose(pixels[:, :, ::16, ::16], expected["pixel_values"], atol=1e-6)


def test_image_features_equal_the_originals(expected, tiny, pixels):
    with torch.no_grad():
        features = torch.stack(tiny.get_image_features(pixels).pooler_output)
    assert features.shape == (1, 256, 256)
    np.testing.assert_allclose(features[:, ::4], expected["image_features"], atol=1e-4)


@pytest.mark.parametrize("case", ["one_image", "two_images", "text_only"])
def test_logits_equal_the_originals(expected, tiny, pixels, case):
    found = logits(tiny, **golden_inputs(expected, pixels, case))
    np.testing.assert_allclose(found[:, ::16], expected[f"{case}.logits"], atol=1e-4)


@pytest.mark.parametrize("case", ["one_image", "two_images", "text_only"])
def test_greedy_tokens_equal_the_originals_without_a_mask(expected, tiny, pixels, case):
    inputs = golden_inputs(expected, pixels, case)
    generated = tiny.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert generated[0, -8:].tolist() == expected[f"{case}.greedy"].tolist()


def test_loss_and_resampler_gradient_equal_the_originals(expected, tiny, pixels):
    inputs = golden_inputs(expected, pixels, "one_image")
    labels = inputs["input_ids"].clone()
    labels[:, :263] = -100
    loss = tiny(**inputs, labels=labels).loss
    (gradient,) = torch.autograd.grad(loss, tiny.model.resampler.query)
    assert loss.item() == pytest.approx(float(expected["one_image.loss"]), abs=1e-4)
    np.testing.assert_allclose(gradient[::4], expected["one_image.grad.resampler_query"], atol=1e-6)


def test_computed_positions_are_the_stored_ones_but_for_rounding(tiny):
    stored = tiny.model.resampler.positions
    # bfloat16 keeps 8 bits: values up to 1 are off by at most 2 ** -9.
    torch.testing.assert_close(sine_cosine_grid(*stored.shape), stored, atol=2**-9, rtol=0)


# --- masks and batches ---------------------------------------------------------------------------------------


def test_sdpa_equals_eager(small):
    eager = BirdForConditionalGeneration(small_config())
    eager.load_state_dict(small.state_dict())
    eager.set_attn_implementation("eager")
    assert eager.config.vision_config._attn_implementation == "eager"
    inputs = small_inputs(3, 4, 5)
    torch.testing.assert_close(logits(small, **inputs), logits(eager.eval(), **inputs), atol=1e-5, rtol=0)


def test_a_left_padded_row_equals_the_row_alone(small):
    long, short = small_inputs(3, 4, 5, 6, 7), small_inputs(8, 9)
    padding = long["input_ids"].shape[1] - short["input_ids"].shape[1]
    padded = torch.nn.functional.pad(short["input_ids"], (padding, 0))
    ids = torch.cat([long["input_ids"], padded])
    mask = torch.ones_like(ids)
    mask[1, :padding] = 0
    batch = logits(
        small,
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        pixel_values=torch.cat([long["pixel_values"], short["pixel_values"]]),
    )
    torch.testing.assert_close(batch[:1], logits(small, **long), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch[1:, padding:], logits(small, **short), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cached", [False, True], ids=["loss", "prompt of generate"])
def test_sdpa_has_no_row_without_anything_to_attend_to(small, monkeypatch, dtype, cached):
    """Padding on the left attends to itself: the softmax of an empty row, and its gradient, are not defined."""
    ids = torch.cat([small_inputs(3, 4, 5, 6)["input_ids"], torch.zeros(1, 3, dtype=torch.long)], dim=1)
    ids = torch.cat([ids, ids.roll(3, 1)])  # padded on the right, and on the left
    mask = (ids != 0).long()
    pixels = small_inputs(3)["pixel_values"].repeat(2, 1, 1, 1)
    seen, attend = [], F.scaled_dot_product_attention

    def recorded(query, key, value, attn_mask=None, **options):
        seen.append(attn_mask)
        return attend(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    small.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        out = small(input_ids=ids, attention_mask=mask, pixel_values=pixels, use_cache=cached).logits
    out[:, 2:][mask[:, 2:] == 1].float().logsumexp(-1).sum().backward()
    masks = [each if each.dtype == torch.bool else each == 0 for each in seen if each is not None]
    assert len(masks) == small.config.text_config.num_hidden_layers
    assert all(each.any(-1).all() for each in masks)
    assert out.isfinite().all()
    assert all(each.grad.isfinite().all() for each in small.parameters() if each.grad is not None)
    small.zero_grad()


def shared_prefix(prefix, first, second):
    """A mask in which two questions see the prefix and themselves, and positions that restart after it."""
    length = prefix + first + second
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    mask[prefix + first :, prefix : prefix + first] = False
    positions = [*range(prefix + first), *range(prefix, prefix + second)]
    return mask[None, None], torch.tensor([positions])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_questions_packed_behind_one_image_equal_questions_asked_alone(small, attention, kind):
    small.set_attn_implementation(attention)
    first, second = (3, 4, 5), (6, 7)
    packed = small_inputs(*first, *second)
    prefix = 2 + QUERIES
    mask, positions = shared_prefix(prefix, len(first), len(second))
    if kind == "float":
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    found = logits(small, **packed, attention_mask=mask, position_ids=positions)
    alone = [logits(small, **small_inputs(*words))[:, prefix:] for words in (first, second)]
    small.set_attn_implementation("sdpa")
    torch.testing.assert_close(found[:, prefix:], torch.cat(alone, dim=1), atol=1e-5, rtol=0)


def test_generation_without_a_mask_equals_generation_with_one(small):
    inputs = small_inputs(3, 4)
    mask = torch.ones_like(inputs["input_ids"])
    without = small.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert torch.equal(
        without, small.generate(**inputs, attention_mask=mask, max_new_tokens=5, do_sample=False)
    )


def test_generation_with_a_cache_equals_generation_without(small):
    # Random weights may choose the image token, which would then have no image.
    options = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [IMAGE]}
    inputs = small_inputs(3, 4)
    cached, plain = (small.generate(**inputs, **options, use_cache=use) for use in (True, False))
    assert torch.equal(cached, plain)


def test_several_answers_to_a_row_of_two_images_see_the_images_in_order(small):
    inputs = small_inputs(3, 4, images=2)
    greedy = small.generate(**inputs, max_new_tokens=4, do_sample=False)
    ids, expanded = small._expand_inputs_for_generation(expand_size=2, **inputs)
    assert torch.equal(expanded["pixel_values"], inputs["pixel_values"].repeat(2, 1, 1, 1))
    answers = small.generate(ids, **expanded, max_new_tokens=4, do_sample=False)
    assert torch.equal(answers, greedy.repeat(2, 1))


# --- what it refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "images"),
    [(QUERIES - 1, 1), (QUERIES + 1, 1), (QUERIES, 2), (0, 1)],
)
def test_slots_that_do_not_fit_the_images_are_refused_with_both_counts(small, slots, images):
    ids = torch.tensor([[1, *[IMAGE] * slots, 2]])
    with pytest.raises(
        ValueError, match=rf"{images} images need {images * QUERIES} .* the text has {slots};"
    ):
        small(input_ids=ids, pixel_values=torch.zeros(images, 3, SIZE, SIZE))


def test_pixels_of_another_size_are_refused(small):
    inputs = small_inputs(3) | {"pixel_values": torch.zeros(1, 3, 2 * SIZE, 2 * SIZE)}
    with pytest.raises(ValueError, match=r"pixel_values are \(1, 3, 64, 64\), the model reads"):
        small(**inputs)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_queries", 50, "square number"),
        ("image_size", 450, "not a multiple of patch_size"),
        ("num_attention_heads", 7, "not a multiple of 7 heads"),
        ("resampler_hidden_size", 4094, "multiple of 4"),
    ],
)
def test_impossible_shapes_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        BirdVisionConfig(**{field: value})


# --- shapes, dtypes, saving, freezing ------------------------------------------------------------------------


def test_the_defaults_are_the_papers():
    config = BirdConfig()
    with torch.device("meta"):
        model = BirdForConditionalGeneration(config)
    assert config.vision_config.patch_grid == 32
    assert config.num_queries == 256
    # Qwen-VL: 9.6 B parameters, of which 7.7 B are Qwen-7B, 1.9 B the vision transformer and 0.08 B the adapter.
    assert model.num_parameters() == pytest.approx(9.6e9, rel=0.01)
    assert model.model.vision_tower.num_parameters() == pytest.approx(1.84e9, rel=0.03)


@pytest.mark.parametrize("queries", [1, 9, 64])
def test_any_square_number_of_queries_will_do(queries):
    model = BirdForConditionalGeneration(small_config(num_queries=queries)).eval()
    ids = torch.tensor([[1, *[IMAGE] * queries, 2]])
    assert logits(model, input_ids=ids, pixel_values=torch.zeros(1, 3, SIZE, SIZE)).shape == (
        1,
        queries + 2,
        VOCAB,
    )


def test_another_language_model_takes_its_place():
    text = {"model_type": "llama", "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = BirdConfig(vision_config=small_config().vision_config, text_config=text, image_token_id=IMAGE)
    model = BirdForConditionalGeneration(config).eval()
    assert type(model.model.language_model).__name__ == "LlamaModel"
    assert logits(model, **small_inputs(3)).shape == (1, QUERIES + 3, VOCAB)


def test_float_pixels_are_read_by_a_bfloat16_model(small):
    half = BirdForConditionalGeneration(small_config()).to(torch.bfloat16).eval()
    half.load_state_dict(small.state_dict())
    inputs = small_inputs(3, 4)
    assert inputs["pixel_values"].dtype == torch.float32
    assert logits(half, **inputs).dtype == torch.bfloat16


def test_a_bfloat16_model_may_hold_its_positions_in_float32(small):
    half = BirdForConditionalGeneration(small_config()).to(torch.bfloat16).eval()
    half.load_state_dict(small.state_dict())
    inputs = small_inputs(3, 4)
    expected = logits(half, **inputs)
    half.model.resampler.positions = half.model.resampler.positions.float()  # as DeepSpeed and FSDP2 leave it
    assert torch.equal(logits(half, **inputs), expected)


def test_a_blank_image_changes_no_logit_and_runs_every_layer_of_vision():
    """With several processes, one whose batch has no image must run the layers that the others run."""
    model = BirdForConditionalGeneration(small_config()).eval()
    inputs = {"input_ids": torch.tensor([[3, 4, 5, 6]])}
    expected = logits(model, **inputs)
    model.model.reads_blank_images = True
    assert torch.equal(logits(model, **inputs), expected)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    grads = {name: value.grad for name, value in model.named_parameters()}
    assert all(grad is not None for grad in grads.values())
    assert not any(
        grad.any() for name, grad in grads.items() if "language_model" not in name and "head" not in name
    )


def test_a_saved_model_is_the_same_model(small, tmp_path):
    small.save_pretrained(tmp_path)
    inputs = small_inputs(3, 4)
    again = BirdForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again, **inputs), logits(small, **inputs))
    with torch.no_grad():
        states = BirdModel.from_pretrained(tmp_path).eval()(**inputs).last_hidden_state
    assert torch.equal(small.lm_head(states), logits(small, **inputs))


def test_positions_missing_in_a_checkpoint_are_filled(small, tmp_path):
    kept = {key: value for key, value in small.state_dict().items() if not key.endswith("positions")}
    small.save_pretrained(tmp_path, state_dict=kept)
    again = BirdForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(again.model.resampler.positions, sine_cosine_grid(QUERIES, 32))


def test_tied_embeddings_are_one_tensor(tmp_path):
    config = small_config()
    config.tie_word_embeddings = True
    model = BirdForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    again = BirdForConditionalGeneration.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.language_model.embed_tokens.weight


def test_what_trains_after_freezing_vision_is_what_the_paper_trains():
    model = BirdForConditionalGeneration(small_config())
    model.freeze_vision()
    trained = {
        ".".join(name.split(".")[:2]) for name, value in model.named_parameters() if value.requires_grad
    }
    frozen = {
        ".".join(name.split(".")[:2]) for name, value in model.named_parameters() if not value.requires_grad
    }
    assert trained == {"model.resampler", "model.language_model", "lm_head.weight"}
    assert frozen == {"model.vision_tower", "model.projector"}


def test_gradient_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    model = BirdForConditionalGeneration(small_config()).train()
    inputs = small_inputs(3, 4)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
        gradients.append(model.model.vision_tower.patch_embedding.weight.grad.clone())
    torch.testing.assert_close(*gradients)


# --- positions -----------------------------------------------------------------------------------------------


def test_a_grid_of_its_own_size_is_left_alone():
    table = torch.randn(9, 4)
    assert resize_grid(table, 9) is table


def test_a_resized_grid_keeps_rows_and_columns():
    rows = torch.arange(4.0).repeat_interleave(4)
    columns = torch.arange(4.0).repeat(4)
    grid = resize_grid(torch.stack([rows, columns], dim=1), 64).reshape(8, 8, 2)
    assert (grid[1:, :, 0] > grid[:-1, :, 0]).all()
    assert (grid[:, 1:, 1] > grid[:, :-1, 1]).all()
    torch.testing.assert_close(grid[..., 0], grid[..., 1].T)


def test_the_resampler_keeps_the_dtype_of_its_parameters():
    """DeepSpeed converts parameters to bf16, and leaves the table of positions, a buffer, in float32."""
    resampler = BirdForConditionalGeneration(small_config()).model.resampler
    for parameter in resampler.parameters():
        parameter.data = parameter.data.bfloat16()
    assert resampler.positions.dtype == torch.float32
    width = resampler.kv_proj.in_features
    features = resampler(torch.randn(2, 16, width, dtype=torch.bfloat16))
    assert features.dtype == torch.bfloat16 and features.isfinite().all()
