"""An image that is asked about many times is computed once; answers are those of the ordinary way."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DynamicCache

NEW_TOKENS = 6
QUESTIONS = ["Where is the left kidney?", "What is this?", "Is there a nodule in this image?"]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def encode(processor, *conversations):
    return processor.apply_chat_template(
        list(conversations),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True},
    )


def message(role, *parts):
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
        for part in parts
    ]
    return {"role": role, "content": content}


def generate(model, inputs, **options):
    options = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS} | options
    return model.generate(**inputs, **options)


def with_features(model, inputs):
    """The same inputs, with features in the place of pixels."""
    rest = {name: value for name, value in inputs.items() if name != "pixel_values"}
    with torch.no_grad():
        return rest | {"image_features": model.get_image_features(inputs["pixel_values"]).pooler_output}


@pytest.fixture
def mixed(tiny_processor):
    """A batch of rows with two images, none and one."""
    return encode(
        tiny_processor,
        [message("user", picture(1), picture(2), "Is there a nodule in this image? What is this?")],
        [message("user", "What is this?")],
        [message("user", picture(3), QUESTIONS[0])],
    )


@pytest.fixture
def no_vision(tiny_model):
    """Raises where the vision tower is run from here on."""

    def stop():
        def refuse(*_):
            raise AssertionError("the image was computed again")

        tiny_model.model.vision_tower.register_forward_pre_hook(refuse)

    return stop


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"num_beams": 3, "num_return_sequences": 2},
    ],
    ids=lambda options: "-".join(options) or "greedy",
)
@pytest.mark.parametrize("form", ["list", "tensor"])
def test_features_in_the_place_of_pixels_give_the_same_answers(tiny_model, mixed, no_vision, options, form):
    expected = generate(tiny_model, mixed, **options)
    inputs = with_features(tiny_model, mixed)
    if form == "tensor":
        inputs["image_features"] = torch.stack(inputs["image_features"])
    no_vision()
    assert torch.equal(generate(tiny_model, inputs, **options), expected)


def test_features_carry_gradients_to_the_image(tiny_model, mixed):
    loss = tiny_model(**mixed, labels=mixed["input_ids"]).loss
    features = tiny_model.get_image_features(mixed["pixel_values"]).pooler_output
    rest = {name: value for name, value in mixed.items() if name != "pixel_values"}
    again = tiny_model(**rest, image_features=features, labels=mixed["input_ids"]).loss
    weight = tiny_model.model.vision_tower.patch_embedding.weight
    torch.testing.assert_close(*(torch.autograd.grad(each, weight)[0] for each in (loss, again)))


def test_many_questions_of_one_image_in_a_batch(tiny_model, tiny_processor, no_vision):
    batch = encode(tiny_processor, *([message("user", picture(1), question)] for question in QUESTIONS))
    expected = generate(tiny_model, batch)
    one = encode(tiny_processor, [message("user", picture(1), "")])
    features = with_features(tiny_model, one)["image_features"]
    del batch["pixel_values"]
    no_vision()
    assert torch.equal(generate(tiny_model, {**batch, "image_features": features * 3}), expected)


def test_many_questions_share_the_cache_of_what_they_have_in_common(tiny_model, tiny_processor, no_vision):
    asked = [encode(tiny_processor, [message("user", picture(1), question)]) for question in QUESTIONS]
    expected = [generate(tiny_model, inputs) for inputs in asked]
    ids = [inputs["input_ids"][0].tolist() for inputs in asked]
    shared = next(place for place, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
    cache = DynamicCache(config=tiny_model.config)
    first = {"input_ids": asked[0]["input_ids"][:, :shared], "pixel_values": asked[0]["pixel_values"]}
    with torch.no_grad():
        tiny_model(**first, past_key_values=cache)
    no_vision()
    for inputs, answer in zip(asked, expected, strict=True):
        # Pixels come from the processor every time; those that the cache has seen are passed over.
        found = generate(tiny_model, inputs, past_key_values=copy.deepcopy(cache))
        assert torch.equal(found, answer)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("form", ["pixels", "features"])
def test_a_conversation_goes_on_from_its_cache(tiny_model, tiny_processor, form, options):
    said = [message("user", picture(1), QUESTIONS[0]), message("assistant", "The left kidney is seen.")]
    later = [*said, message("user", picture(2), "And this?")]
    first, second = encode(tiny_processor, said[:1]), encode(tiny_processor, later)
    seen = encode(tiny_processor, said)["input_ids"].shape[1] - 4  # without the next turn's beginning
    if form == "features":
        first, second = with_features(tiny_model, first), with_features(tiny_model, second)
    expected = generate(tiny_model, second, **options)
    cache = DynamicCache(config=tiny_model.config)
    with torch.no_grad():
        tiny_model(**{**first, "input_ids": second["input_ids"][:, :seen], "attention_mask": None},
                   past_key_values=cache)  # fmt: skip
    cache.batch_repeat_interleave(options.get("num_beams", 1))
    assert torch.equal(generate(tiny_model, second, past_key_values=cache, **options), expected)


def test_features_are_refused_beside_pixels_in_another_shape_and_in_another_number(tiny_model, mixed):
    inputs = with_features(tiny_model, mixed)
    features = torch.stack(inputs.pop("image_features"))
    with pytest.raises(ValueError, match="pixel_values and image_features are both given"):
        tiny_model(**inputs, image_features=features, pixel_values=mixed["pixel_values"])
    for wrong in (features[:, :3], features[..., :8], features[0]):
        with pytest.raises(
            ValueError, match=r"image_features are \(.*\), the model reads \(num_images, 4, 32\)"
        ):
            tiny_model(**inputs, image_features=wrong)
    for options in ({}, {"num_beams": 2}):
        with pytest.raises(ValueError, match=r"2 images need 8 image tokens .* the text has 12"):
            generate(tiny_model, {**inputs, "image_features": features[:2]}, **options)
