"""A BiRD around a language model that already speaks: its words, its weights, and what is new."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.hub.processing_bird import IMAGE_TOKEN
from bird_hf.train.new_models import build_on, create_model
from bird_hf.train.numbers import number_ids
from bird_hf.train.tokenizer import train_tokenizer

TEXTS = ["Where is the left kidney?", "Here is the left kidney."] * 9
VISION = {
    "image_size": 32,
    "patch_size": 16,
    "position_grid": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_queries": 4,
    "resampler_hidden_size": 32,
    "resampler_num_attention_heads": 2,
}
SIZES = {"vision_config": VISION}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def speaker(request, tmp_path_factory):
    """A tiny Llama with a tokenizer that has turns, and neither boxes nor images."""
    folder = tmp_path_factory.mktemp("speaker")
    qwen = train_tokenizer(TEXTS, 600)
    plain = type(qwen)(vocab=_plain(qwen), merges=[])
    plain.add_special_tokens({"additional_special_tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]})
    plain.eos_token = "<|im_end|>"
    plain.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(plain),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=request.param,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _plain(tokenizer) -> dict[str, int]:
    """The bytes of a vocabulary."""
    return {
        token: number for number, token in enumerate(sorted(t for t in tokenizer.get_vocab() if len(t) == 1))
    }


def test_it_says_what_the_language_model_said(speaker):
    before = LlamaForCausalLM.from_pretrained(speaker).eval()
    model, processor = build_on(str(speaker), SIZES)
    ids = processor.tokenizer("Where is the left kidney?", return_tensors="pt").input_ids
    known = before.config.vocab_size
    with torch.no_grad():
        expected, found = before(ids).logits, model.eval()(input_ids=ids).logits
    torch.testing.assert_close(found[..., :known], expected)
    assert found.shape[-1] == len(processor.tokenizer) > known
    assert model.config.text_config.model_type == "llama"


def test_it_takes_an_image_and_ends_its_turn_with_its_own_token(speaker):
    model, processor = build_on(str(speaker), SIZES)
    tokenizer = processor.tokenizer
    assert model.config.image_token_id == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert len(tokenizer.encode("<box>", add_special_tokens=False)) == 1
    assert tokenizer.eos_token == "<|im_end|>" and "<|extra_0|>" not in tokenizer.get_vocab()
    slots = torch.full((1, 4), model.config.image_token_id)
    outputs = model(input_ids=slots, pixel_values=torch.zeros(1, 3, 32, 32))
    assert outputs.logits.shape == (1, 4, len(tokenizer))
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_what_is_new_learns_and_so_does_the_rest(speaker):
    model, _ = build_on(str(speaker), SIZES)
    slots = torch.full((1, 4), model.config.image_token_id)
    model(input_ids=slots, pixel_values=torch.randn(1, 3, 32, 32)).logits.sum().backward()
    for part in (model.model.vision_tower, model.model.resampler, model.model.language_model):
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())


@pytest.mark.parametrize("name", ["nowhere", "nowhere.gguf"])
def test_a_language_model_that_is_not_there_is_one_line(tmp_path, name):
    with pytest.raises(ValueError, match=r"cannot be read as a causal language model") as error:
        build_on(str(tmp_path / name), SIZES)
    assert "\n" not in str(error.value)


def test_sizes_that_the_language_model_brings_are_refused(speaker):
    with pytest.raises(ValueError, match="new_model sets vocab_size, which text_model brings"):
        build_on(str(speaker), SIZES | {"vocab_size": 600})


def test_sizes_that_are_missing_are_named():
    with pytest.raises(ValueError, match="new_model lacks text_config, vocab_size"):
        create_model(SIZES, TEXTS)


def test_a_speaker_learns_whole_numbers(speaker):
    model, processor = build_on(str(speaker), SIZES | {"whole_numbers": True})
    ids = number_ids(processor.tokenizer)
    for matrix in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert len(matrix) == len(processor.tokenizer)
        near, far = (torch.cosine_similarity(matrix[ids[500]], matrix[ids[n]], dim=0) for n in (502, 700))
        assert near > far


def test_smoothing_is_for_numbers_that_are_tokens(speaker):
    model, processor = build_on(str(speaker), SIZES | {"whole_numbers": True, "box_smoothing": 20.0})
    runs = model.config.number_token_runs
    ids = [id_ for first, last in runs for id_ in range(first, last + 1)]
    assert processor.tokenizer.convert_ids_to_tokens(ids)[-3:] == ["998", "999", "1000"]
    assert ids == number_ids(processor.tokenizer).tolist()
    with pytest.raises(ValueError, match="box_smoothing, which is for whole_numbers"):
        build_on(str(speaker), SIZES | {"box_smoothing": 20.0})


def test_a_word_can_be_said_more_readily(speaker, tmp_path):
    model, processor = build_on(str(speaker), SIZES | {"word_bias": {"T": 100.0}})
    model.save_pretrained(tmp_path)
    loaded = BirdForConditionalGeneration.from_pretrained(tmp_path)
    prompt = torch.tensor([[5, 6, 7]])
    word = processor.tokenizer.convert_tokens_to_ids("T")
    assert loaded.generate(prompt, max_new_tokens=2, do_sample=False)[0, 3:].tolist() == [word, word]
    loaded.generation_config.sequence_bias = None
    assert word not in loaded.generate(prompt, max_new_tokens=2, do_sample=False)[0, 3:]
    with pytest.raises(
        ValueError, match=r"^new_model: word_bias is for words of one token, and 'There' has 5$"
    ):
        build_on(str(speaker), SIZES | {"word_bias": {"There": 0.5}})
