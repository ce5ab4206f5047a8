"""Image tokens in the middle of an object are trained on its class and box."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from bird_hf.hub.decoding_bird import gaussian_kernel
from bird_hf.train.from_scratch.detection_head import (
    BACKGROUND,
    DetectionHead,
    classes_of,
    detection_targets,
)

pytestmark = pytest.mark.slow

LIVER, CYST = 1, 2
CLASSES = {"liver": LIVER, "cyst": CYST}


def thing(label, box):
    return {"label": label, "box": box, "present": box is not None}


def new_head():
    """A head for features of width 32, and names of two tokens and one."""
    return DetectionHead(torch.nn.Embedding(5, 32), [[1, 2], [4]], None)


def grid(classes):
    """Classes of one image of 4 x 4 image tokens, as rows."""
    return classes[0].reshape(4, 4).tolist()


def test_a_box_has_the_image_tokens_around_its_centre_and_the_smaller_one_wins():
    objects = [thing("cyst", [0.5, 0.25, 0.75, 0.5]), thing("liver", [0.0, 0.0, 1.0, 0.5])]
    classes, boxes = detection_targets([objects], CLASSES, 16)
    assert grid(classes) == [
        [BACKGROUND, LIVER, LIVER, BACKGROUND],
        [BACKGROUND, LIVER, CYST, BACKGROUND],
        [BACKGROUND] * 4,
        [BACKGROUND] * 4,
    ]
    assert boxes[0, 6].tolist() == [500, 250, 750, 500]
    assert boxes[0, 1].tolist() == [0, 0, 1000, 500]
    assert not boxes[0, 8:].any()


def test_an_object_between_the_centres_has_the_image_token_it_lies_in():
    classes, _ = detection_targets([[thing("cyst", [0.76, 0.76, 0.8, 0.8])]], CLASSES, 16)
    assert classes[0].nonzero().tolist() == [[15]] and classes[0, 15] == CYST


def test_an_absent_object_has_no_image_token():
    classes, boxes = detection_targets([[thing("cyst", None)], []], CLASSES, 16)
    assert classes.shape == (2, 16) and boxes.shape == (2, 16, 4)
    assert not classes.any() and not boxes.any()


def test_classes_are_the_labels_that_are_present_somewhere():
    rows = [
        {"objects": [thing("liver", [0.0, 0.0, 1.0, 1.0]), thing("spleen", None)]},
        {"objects": [thing("cyst", [0.0, 0.0, 0.5, 0.5]), thing("liver", None)]},
    ]
    assert classes_of(Dataset.from_list(rows)) == {"cyst": 1, "liver": 2}


def test_the_loss_is_learnt_away_to_the_entropy_of_the_labels():
    torch.manual_seed(0)
    box = [0.25, 0.125, 0.75, 0.5]
    targets = detection_targets([[thing("liver", box)]], CLASSES, 16)
    head = new_head()
    features = torch.nn.Parameter(torch.randn(1, 16, 32))
    optimizer = torch.optim.Adam([features, *head.parameters()], 0.03)
    for _ in range(200):
        loss = head(features, *targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    label = gaussian_kernel(1001, 6.0)[500]
    least = -(label[label > 0] * label[label > 0].log()).sum()
    assert 0 < loss.item() - least < 0.2
    on_liver = targets[0][0] == LIVER
    normed = torch.nn.functional.rms_norm(features[0, on_liver], (32,))
    sides = head.sides(normed).unflatten(-1, (4, 32))
    found = (sides @ head.own_coordinates.weight.T).argmax(-1) / 1000
    torch.testing.assert_close(found, torch.tensor([box]).expand_as(found), atol=0.01, rtol=0)


def test_boxes_are_learnt_in_the_language_models_coordinates_if_it_has_them():
    coordinates = torch.arange(5, 1006)
    embedding = torch.nn.Embedding(1006, 32)
    head = DetectionHead(embedding, [[1, 2], [4]], coordinates)
    targets = detection_targets([[thing("liver", [0.0, 0.0, 1.0, 0.5])]], CLASSES, 16)
    head(torch.randn(1, 16, 32), *targets).backward()
    assert head.own_coordinates is None and head.sides.weight.grad.abs().sum() > 0
    assert embedding.weight.grad[5:].any()


def test_an_image_without_objects_has_a_loss_without_boxes():
    head = new_head()
    head(
        torch.randn(1, 4, 32), torch.full((1, 4), BACKGROUND), torch.zeros(1, 4, 4, dtype=torch.long)
    ).backward()
    assert head.sides.weight.grad is None and head.background.grad is not None


def test_a_class_is_known_by_the_language_models_embeddings_of_its_name():
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(5, 32)
    head = DetectionHead(embedding, [[1, 2], [4]], None)
    features = torch.stack([embedding.weight[[1, 2]].mean(0), embedding.weight[4]])[[0, 0, 1, 1]]
    losses = [
        head(features[None], torch.tensor([classes]), torch.zeros(1, 4, 4, dtype=torch.long)).item()
        for classes in ([LIVER, LIVER, CYST, CYST], [CYST, CYST, LIVER, LIVER])
    ]
    assert losses[0] < losses[1] - 3
    assert {name for name, _ in head.named_parameters()} == {
        "background",
        "sides.weight",
        "own_coordinates.weight",
    }


@pytest.mark.parametrize("queries", [4, 64])
def test_a_box_up_to_the_far_edge_is_inside(queries):
    classes, _ = detection_targets([[thing("cyst", [0.999, 0.999, 1.0, 1.0])]], CLASSES, queries)
    assert classes[0, -1] == CYST
