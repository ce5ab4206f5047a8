"""Each image slot in the middle of an object knows it."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.modeling_bird import BirdProjector
from bird_hf.train.slots import BACKGROUND, SlotHead, names_of, slot_targets

LIVER, CYST = 1, 2
CLASSES = {"liver": LIVER, "cyst": CYST}


def thing(label, box):
    return {"label": label, "box": box, "present": box is not None}


def head_of(queries):
    """A head behind a projector of 32 features a slot, and the projector."""
    vision = {"resampler_hidden_size": 32, "resampler_num_attention_heads": 2, "num_queries": queries}
    projector = BirdProjector(BirdConfig(vision_config=vision, text_config={"hidden_size": 32}))
    return SlotHead(projector, len(CLASSES)), projector


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
    assert boxes[0, 6].tolist() == [0.5, 0.25, 0.75, 0.5]
    assert boxes[0, 1].tolist() == [0.0, 0.0, 1.0, 0.5]
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


def test_the_loss_is_learnt_away():
    torch.manual_seed(0)
    targets = slot_targets([[thing("liver", [0.0, 0.0, 1.0, 0.5])]], CLASSES, 16)
    head, look = head_of(16)
    features = torch.randn(1, 16, 32)
    optimizer = torch.optim.Adam(head.parameters(), 0.03)
    first = None
    for _ in range(200):
        look(features)
        loss = head.loss(*targets)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first


def test_a_picture_without_objects_has_a_loss_and_no_boxes_in_it():
    head, look = head_of(4)
    look(torch.randn(1, 4, 32))
    head.loss(torch.full((1, 4), BACKGROUND), torch.zeros(1, 4, 4)).backward()
    assert head.box.weight.grad is None and head.name.weight.grad is not None


@pytest.mark.parametrize("queries", [4, 64])
def test_a_box_up_to_the_far_edge_is_inside(queries):
    classes, _ = slot_targets([[thing("cyst", [0.999, 0.999, 1.0, 1.0])]], CLASSES, queries)
    assert classes[0, -1] == CYST
