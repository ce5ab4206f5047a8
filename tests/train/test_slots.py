"""Each image slot in the middle of an object knows it."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.decoding_bird import bells
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration, BirdProjector
from bird_hf.train import attention
from bird_hf.train.slots import BACKGROUND, LookLoss, SlotHead, names_of, slot_targets

LIVER, CYST = 1, 2
CLASSES = {"liver": LIVER, "cyst": CYST}


def thing(label, box):
    return {"label": label, "box": box, "present": box is not None}


def head_of(queries):
    """A head behind a projector of 32 features a slot, for names of two tokens and one, and the projector."""
    vision = {"resampler_hidden_size": 32, "resampler_num_attention_heads": 2, "num_queries": queries}
    projector = BirdProjector(BirdConfig(vision_config=vision, text_config={"hidden_size": 32}))
    return SlotHead(projector, torch.nn.Embedding(5, 32), [[1, 2], [4]], None), projector


def grid(classes):
    """Classes of one picture of 4 x 4 slots, as rows."""
    return classes[0].reshape(4, 4).tolist()


def test_a_box_has_the_slots_around_its_centre_and_the_smaller_one_wins():
    objects = [thing("cyst", [0.5, 0.25, 0.75, 0.5]), thing("liver", [0.0, 0.0, 1.0, 0.5])]
    classes, boxes = slot_targets([objects], CLASSES, 16)
    assert grid(classes) == [
        [BACKGROUND, LIVER, LIVER, BACKGROUND],
        [BACKGROUND, LIVER, CYST, BACKGROUND],
        [BACKGROUND] * 4,
        [BACKGROUND] * 4,
    ]
    assert boxes[0, 6].tolist() == [500, 250, 750, 500]
    assert boxes[0, 1].tolist() == [0, 0, 1000, 500]
    assert not boxes[0, 8:].any()


def test_an_object_between_the_centres_has_the_slot_it_lies_in():
    classes, _ = slot_targets([[thing("cyst", [0.76, 0.76, 0.8, 0.8])]], CLASSES, 16)
    assert classes[0].nonzero().tolist() == [[15]] and classes[0, 15] == CYST


def test_what_is_absent_lies_nowhere():
    classes, boxes = slot_targets([[thing("cyst", None)], []], CLASSES, 16)
    assert classes.shape == (2, 16) and boxes.shape == (2, 16, 4)
    assert not classes.any() and not boxes.any()


def test_names_are_those_that_lie_somewhere():
    rows = [
        {"objects": [thing("liver", [0.0, 0.0, 1.0, 1.0]), thing("spleen", None)]},
        {"objects": [thing("cyst", [0.0, 0.0, 0.5, 0.5]), thing("liver", None)]},
    ]
    assert names_of(Dataset.from_list(rows)) == {"cyst": 1, "liver": 2}


def test_the_loss_is_learnt_away_to_what_the_bells_leave():
    torch.manual_seed(0)
    box = [0.25, 0.125, 0.75, 0.5]
    targets = slot_targets([[thing("liver", box)]], CLASSES, 16)
    head, look = head_of(16)
    features = torch.nn.Parameter(torch.randn(1, 16, 32))
    optimizer = torch.optim.Adam([features, *head.parameters()], 0.03)
    for _ in range(200):
        look(features)
        loss = head.loss(*targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    bell = bells(1001, 6.0)[500]
    least = -(bell[bell > 0] * bell[bell > 0].log()).sum()
    assert 0 < loss.item() - least < 0.2
    on_liver = targets[0][0] == LIVER
    sides = head.sides(torch.nn.functional.rms_norm(look(features)[0, on_liver], (32,))).unflatten(
        -1, (4, 32)
    )
    said = (sides @ head.own_numbers.weight.T).argmax(-1) / 1000
    torch.testing.assert_close(said, torch.tensor([box]).expand_as(said), atol=0.01, rtol=0)


def test_boxes_are_told_in_the_language_models_numbers_where_it_has_them():
    numbers = torch.arange(5, 1006)
    embedding = torch.nn.Embedding(1006, 32)
    for learns in (True, False):
        look = torch.nn.Identity()
        head = SlotHead(look, embedding, [[1, 2], [4]], numbers, learn_embeddings=learns)
        look(torch.randn(1, 16, 32))
        embedding.weight.grad = None
        head.loss(*slot_targets([[thing("liver", [0.0, 0.0, 1.0, 0.5])]], CLASSES, 16)).backward()
        assert head.own_numbers is None and head.sides.weight.grad.abs().sum() > 0
        assert (embedding.weight.grad is not None and bool(embedding.weight.grad[5:].any())) == learns


def test_a_picture_without_objects_has_a_loss_and_no_boxes_in_it():
    head, look = head_of(4)
    look(torch.randn(1, 4, 32))
    head.loss(torch.full((1, 4), BACKGROUND), torch.zeros(1, 4, 4, dtype=torch.long)).backward()
    assert head.sides.weight.grad is None and head.background.grad is not None


def test_a_slot_that_says_a_name_in_the_language_models_embeddings_is_known_by_it():
    torch.manual_seed(0)
    head, look = head_of(4)
    (embedding,) = head.embedding
    said = torch.stack([embedding.weight[[1, 2]].mean(0), embedding.weight[4]])[[0, 0, 1, 1]]
    losses = []
    for classes in ([LIVER, LIVER, CYST, CYST], [CYST, CYST, LIVER, LIVER]):
        look.linear = torch.nn.Identity()
        look.norm = torch.nn.Identity()
        look(said[None])
        losses.append(head.loss(torch.tensor([classes]), torch.zeros(1, 4, 4, dtype=torch.long)).item())
    assert losses[0] < losses[1] - 3
    assert "embedding" not in dict(head.named_parameters())


@pytest.mark.parametrize("queries", [4, 64])
def test_a_box_up_to_the_far_edge_is_inside(queries):
    classes, _ = slot_targets([[thing("cyst", [0.999, 0.999, 1.0, 1.0])]], CLASSES, queries)
    assert classes[0, -1] == CYST


class TestWhereAttentionGoes:
    """A model of four layers, of which the two in the middle are watched."""

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
    def model(self):
        attention.register()
        torch.manual_seed(0)
        config = BirdConfig(vision_config=self.VISION, text_config=self.TEXT, image_token_id=self.IMAGE)
        return BirdForConditionalGeneration._from_config(config, attn_implementation="dense")

    def batch(self):
        """A picture and words, the last of which is to look at slot 2, words alone, and two that are to look at two
        slots, and past them all.
        """
        ids = torch.tensor(
            [[*[self.IMAGE] * 4, 1, 2, 3], [1, 2, 3, 4, 5, 6, 7], [0, *[self.IMAGE] * 4, 4, 5]]
        )
        looks = torch.zeros(3, 7, 5, dtype=torch.bool)
        looks[0, 6, 2] = looks[2, 5, 4] = looks[2, 6, 0] = looks[2, 6, 1] = True
        return ids, looks, torch.randn(2, 3, 16, 16)

    def test_it_is_what_the_watched_heads_leave_elsewhere(self, model):
        watch, (ids, looks, pixels) = LookLoss(model), self.batch()
        model(input_ids=ids, pixel_values=pixels)
        found = watch.loss(ids, looks)
        model.set_attn_implementation("eager")
        seen = model(input_ids=ids, pixel_values=pixels, output_attentions=True).attentions[1:3]
        there = [
            [layer[0, head, 6, 2], layer[2, head, 5, 5], layer[2, head, 6, 1] + layer[2, head, 6, 2]]
            for layer in seen
            for head in (0, 2)  # every other one
        ]
        expected = -torch.stack([share for head in there for share in head]).log().mean()
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    def test_it_is_learnt_away(self, model):
        watch, (ids, looks, pixels) = LookLoss(model), self.batch()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        losses = []
        for _ in range(60):
            model(input_ids=ids, pixel_values=pixels)
            losses.append(watch.loss(ids, looks))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        assert losses[-1] < 0.2 * losses[0]
