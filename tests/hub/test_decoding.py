"""While a box is generated, scores of coordinates are smoothed; all other scores stay."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.decoding_bird import CoordinateSmoothing
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train.from_scratch.coordinate_tokens import COORDINATES
from bird_hf.train.from_scratch.new_model import NewModel, create_model

WORD, OPEN, CLOSE, ZERO = 0, 1, 2, 3  # then 1 to 1000
VOCABULARY = ZERO + 1001


def config(**fields) -> BirdConfig:
    known = {
        "coordinate_smoothing_sigma": 10.0,
        "box_token_ids": [OPEN, CLOSE],
        "coordinate_token_runs": [[ZERO, VOCABULARY - 1]],
    }
    return BirdConfig(**known | fields)


def likely(**numbers: float) -> torch.Tensor:
    """Scores (1, V) in which numbers n400 and the like have these probabilities."""
    shares = torch.full((1, VOCABULARY), 1e-9)
    for name, share in numbers.items():
        shares[0, ZERO + int(name[1:])] = share
    return shares.log()


def chosen(ids: list[int], scores: torch.Tensor, **fields) -> int:
    smoothed = CoordinateSmoothing(config(**fields))(torch.tensor([ids]), scores)
    return int(smoothed.argmax()) - ZERO


HILL = likely(n900=0.3, n420=0.2, n425=0.2, n432=0.2)


def test_what_is_likely_as_a_whole_wins_over_a_lone_peak():
    assert int(HILL.argmax()) - ZERO == 900
    assert 420 <= chosen([WORD, OPEN], HILL) <= 432


@pytest.mark.parametrize("ids", [[WORD], [OPEN, ZERO, CLOSE], [OPEN, CLOSE, WORD]])
def test_outside_a_box_nothing_changes(ids):
    assert torch.equal(CoordinateSmoothing(config())(torch.tensor([ids]), HILL), HILL)


def test_each_row_has_its_own_box():
    ids = torch.tensor([[WORD, OPEN], [OPEN, CLOSE], [CLOSE, OPEN]])
    found = CoordinateSmoothing(config())(ids, HILL.expand(3, -1)).argmax(-1) - ZERO
    assert found[1] == 900
    assert found[0] == found[2] != 900


def test_words_keep_their_scores_and_numbers_together_theirs():
    scores = torch.randn(2, VOCABULARY)
    smoothed = CoordinateSmoothing(config())(torch.full((2, 1), OPEN), scores)
    assert torch.equal(smoothed[:, :ZERO], scores[:, :ZERO])
    torch.testing.assert_close(smoothed[:, ZERO:].logsumexp(-1), scores[:, ZERO:].logsumexp(-1))


def test_before_the_first_id_there_is_no_box():
    assert torch.equal(CoordinateSmoothing(config())(torch.empty(1, 0, dtype=torch.long), HILL), HILL)


@pytest.mark.parametrize("edge", [0, 1000])
def test_the_edges_can_be_said(edge):
    assert chosen([OPEN], likely(**{f"n{edge}": 0.6, f"n{abs(edge - 60)}": 0.3})) == edge


def test_the_scores_keep_their_type_and_what_was_given_stays():
    scores = HILL.bfloat16()
    before = scores.clone()
    smoothed = CoordinateSmoothing(config())(torch.tensor([[OPEN]]), scores)
    assert smoothed.dtype == torch.bfloat16
    assert torch.equal(scores, before)


def test_numbers_may_lie_in_several_runs():
    runs = [[ZERO, ZERO + 9], [ZERO + 10, VOCABULARY - 1]]
    assert chosen([OPEN], HILL, coordinate_token_runs=runs) == chosen([OPEN], HILL)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"box_token_ids": None}, "needs box_token_ids and coordinate_token_runs"),
        (
            {"coordinate_token_runs": [[ZERO, ZERO + 9]]},
            "coordinate_token_runs have 10 ids; 0 to 1000 are 1001",
        ),
    ],
)
def test_a_configuration_that_lacks_what_it_needs_is_named(fields, said):
    with pytest.raises(ValueError, match=said):
        CoordinateSmoothing(config(**fields))


# --- in a model ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbered(tiny_sizes):
    """A random model with a token for each number, and its processor."""
    torch.manual_seed(0)
    sizes = NewModel(**tiny_sizes, vocab_size=600, coordinate_tokens=True, coordinate_smoothing_sigma=20.0)
    return create_model(sizes, ["<ref>cyst</ref><box>(281,437),(399,525)</box>"] * 9)


def boxes(model, processor, **options) -> str:
    """What is generated behind an open box, of numbers and nothing else."""
    messages = [{"role": "user", "content": [{"type": "image", "image": Image.new("L", (9, 9))}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=[prompt + "<box>("], images=[Image.new("L", (9, 9))], return_tensors="pt")
    words = sorted(
        {*range(len(processor.tokenizer))} - {*processor.tokenizer.convert_tokens_to_ids(COORDINATES)}
    )
    output = model.generate(
        **inputs, **{"do_sample": False, "max_new_tokens": 3, "suppress_tokens": words} | options
    )
    return processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_model_smooths_where_its_configuration_says_so(numbered, options):
    model, processor = numbered
    smooth = boxes(model, processor, **options)
    model.config.coordinate_smoothing_sigma = 0.0
    try:
        plain = boxes(model, processor, **options)
    finally:
        model.config.coordinate_smoothing_sigma = 20.0
    assert smooth != plain


def test_a_prompt_may_be_given_as_embeddings(numbered):
    model, processor = numbered
    ids = processor.tokenizer("Where?", return_tensors="pt").input_ids
    options = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4}
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(
        model.generate(inputs_embeds=embeds, **options), model.generate(ids, **options)[:, ids.shape[1] :]
    )


def test_a_saved_model_smooths_alike(numbered, tmp_path):
    model, processor = numbered
    assert (
        model.config.coordinate_token_runs[0][1] - model.config.coordinate_token_runs[0][0] == 9
    )  # the digits
    model.save_pretrained(tmp_path)
    assert (tmp_path / "decoding_bird.py").is_file()
    again = BirdForConditionalGeneration.from_pretrained(tmp_path)
    assert boxes(again, processor) == boxes(model, processor)


# --- keys of earlier configurations --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "advice"),
    [
        ({"box_smoothing": 20.0}, "rename it to coordinate_smoothing_sigma"),
        ({"number_token_runs": [[3, 1003]]}, "rename it to coordinate_token_runs"),
        ({"vision_config": {"resampler_identity_init": True}}, "remove it"),
        ({"vision_config": {"resampler_focus": 2.0}}, "remove it"),
    ],
)
def test_an_old_key_of_the_configuration_is_refused(keys, advice):
    with pytest.raises(ValueError, match=f"config.json has the old key .*; {advice}$"):
        BirdConfig(**keys)
