"""A new model: its tokens, its first weights, and the keys that its recipe may set."""

from __future__ import annotations

import pytest
import torch

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train.from_scratch.coordinate_tokens import coordinate_ids
from bird_hf.train.from_scratch.new_model import NewModel, create_model, init_local_attention

pytestmark = pytest.mark.slow

TEXTS = ["Where is the left kidney?", "Here is the left kidney."] * 9


@pytest.fixture
def sizes(tiny_sizes):
    """Keyword arguments of `NewModel`."""
    return tiny_sizes | {"vocab_size": 600}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def either(request, sizes):
    """The same with tied and untied embeddings."""
    return sizes | {"text_config": sizes["text_config"] | {"tie_word_embeddings": request.param}}


def test_it_takes_an_image_and_ends_its_turn_with_its_own_token(sizes):
    model, processor = create_model(NewModel(**sizes), TEXTS)
    tokenizer = processor.tokenizer
    assert model.config.image_token_id == tokenizer.convert_tokens_to_ids("<imgpad>")
    assert len(tokenizer.encode("<box>", add_special_tokens=False)) == 1
    assert tokenizer.eos_token == "<|im_end|>"
    image_tokens = torch.full((1, 4), model.config.image_token_id)
    outputs = model(input_ids=image_tokens, pixel_values=torch.zeros(1, 3, 32, 32))
    assert outputs.logits.shape == (1, 4, len(tokenizer))
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_all_parts_learn(sizes):
    model, _ = create_model(NewModel(**sizes), TEXTS)
    image_tokens = torch.full((1, 4), model.config.image_token_id)
    model(input_ids=image_tokens, pixel_values=torch.randn(1, 3, 32, 32)).logits.sum().backward()
    for part in (model.model.vision_tower, model.model.resampler, model.model.language_model):
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())


def test_sizes_that_are_missing_are_named(tiny_sizes):
    vision = {"vision_config": tiny_sizes["vision_config"]}
    with pytest.raises(ValueError, match="new_model lacks text_config, vocab_size"):
        NewModel.from_dict(vision)


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("vocab_sise", r"did you mean vocab_size\?"),
        ("whole_numbers", "it is now called coordinate_tokens"),
        ("box_smoothing", "it is now called coordinate_smoothing_sigma"),
        ("word_bias", "it is now called sequence_bias"),
        ("xyz", "vision_config, text_config, vocab_size"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(sizes, key, advice):
    with pytest.raises(ValueError, match=f"^new_model: {key} is not one of its fields; {advice}") as error:
        NewModel.from_dict(sizes | {key: 1})
    assert "\n" not in str(error.value)


def test_near_coordinates_start_similar_in_embeddings_and_head(either):
    model, processor = create_model(NewModel(**either, coordinate_tokens=True), TEXTS)
    ids = coordinate_ids(processor.tokenizer)
    for matrix in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert len(matrix) == len(processor.tokenizer)
        near, far = (torch.cosine_similarity(matrix[ids[500]], matrix[ids[n]], dim=0) for n in (502, 700))
        assert near > far


def test_smoothing_needs_coordinate_tokens(sizes):
    smooth = sizes | {"coordinate_smoothing_sigma": 20.0}
    model, processor = create_model(NewModel(**smooth, coordinate_tokens=True), TEXTS)
    runs = model.config.coordinate_token_runs
    ids = [id_ for first, last in runs for id_ in range(first, last + 1)]
    assert processor.tokenizer.convert_ids_to_tokens(ids)[-3:] == ["998", "999", "1000"]
    assert ids == coordinate_ids(processor.tokenizer).tolist()
    with pytest.raises(ValueError, match="coordinate_smoothing_sigma needs coordinate_tokens"):
        NewModel(**smooth)


def test_a_word_can_be_made_likelier(sizes, tmp_path):
    model, processor = create_model(NewModel(**sizes, sequence_bias={"T": 100.0}), TEXTS)
    model.save_pretrained(tmp_path)
    loaded = BirdForConditionalGeneration.from_pretrained(tmp_path)
    prompt = torch.tensor([[5, 6, 7]])
    word = processor.tokenizer.convert_tokens_to_ids("T")
    assert loaded.generate(prompt, max_new_tokens=2, do_sample=False)[0, 3:].tolist() == [word, word]
    loaded.generation_config.sequence_bias = None
    assert word not in loaded.generate(prompt, max_new_tokens=2, do_sample=False)[0, 3:]
    with pytest.raises(
        ValueError, match=r"^new_model: sequence_bias is for words of one token, and 'There' has 5$"
    ):
        create_model(NewModel(**sizes, sequence_bias={"There": 0.5}), [])


def test_each_query_begins_at_its_own_position(tiny_sizes):
    torch.manual_seed(0)
    vision = {
        "image_size": 64,
        "patch_size": 8,
        "position_grid": 8,
        "num_queries": 64,
        "resampler_hidden_size": 64,
    }
    vision = {
        name: value for name, value in tiny_sizes["vision_config"].items() if "init" not in name
    } | vision
    config = BirdConfig(vision_config=vision, text_config=tiny_sizes["text_config"] | {"vocab_size": 300})
    model = BirdForConditionalGeneration(config).model
    init_local_attention(model)
    resampler, attention = model.resampler, model.resampler.attention
    with torch.no_grad():
        patches = model.vision_tower(torch.randn(1, 3, 64, 64)).last_hidden_state
        keys = attention.k_proj(resampler.kv_norm(resampler.kv_proj(patches)) + resampler.positions)
        queries = attention.q_proj(resampler.query_norm(resampler.query) + resampler.positions)
        scores = attention._split(queries[None]) @ attention._split(keys).transpose(2, 3)
        weights = (scores * attention.scaling).softmax(-1).mean(1)[0].reshape(64, 8, 8)
    for query in range(64):
        row, column = divmod(query, 8)
        near = weights[query, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert near.sum() > 0.8, f"query {query} attends elsewhere"


def test_a_new_model_may_read_questions_in_lower_case(tiny_sizes):
    sizes = NewModel(vocab_size=500, lowercase_questions=True, **tiny_sizes)
    _, processor = create_model(sizes, ["where is it?"])
    assert processor.lowercase_questions
    message = {"role": "user", "content": "WHERE Is It?"}
    assert processor.fold_questions([message])[0]["content"] == "where is it?"
