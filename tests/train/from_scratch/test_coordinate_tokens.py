"""Coordinates are tokens, near ones start similar, and a near miss costs less than a far one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bird_hf.train.from_scratch.coordinate_tokens import (
    COORDINATES,
    CoordinateLabelLoss,
    coordinate_ids,
    init_coordinate_embeddings,
    runs_of,
)
from bird_hf.train.from_scratch.tokenizer import train_tokenizer

pytestmark = pytest.mark.slow

TEXTS = ["<ref>left kidney</ref><box>(281,437),(399,525)</box>"] * 9


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 600, coordinate_tokens=True)


@pytest.mark.parametrize("text", ["<box>(0,45),(999,100)</box>", "1001 of 5 mm", "T1, 007"])
def test_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_coordinate_is_one_token(tokenizer):
    ids = coordinate_ids(tokenizer)
    assert len(ids) == len(COORDINATES) == 1001
    assert [tokenizer.encode(number) for number in ("0", "45", "1000")] == [[ids[n]] for n in (0, 45, 1000)]
    around = ["<box>", "(", ",", "),(", ",", ")", "</box>"]
    assert len(tokenizer.encode("<box>(281,437),(399,525)</box>")) == 4 + len(around)


def test_digits_alone_are_not_coordinate_tokens():
    assert coordinate_ids(train_tokenizer(TEXTS, 600)) is None


@pytest.mark.parametrize(
    ("ids", "runs"), [([], []), ([7], [[7, 7]]), ([3, 4, 5, 9, 8], [[3, 5], [9, 9], [8, 8]])]
)
def test_runs_of_ids(ids, runs):
    assert runs_of(ids) == runs


def test_it_is_saved_and_loaded_with_its_coordinates(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_near_coordinates_start_similar_and_as_long_as_other_embeddings(tokenizer):
    torch.manual_seed(0)
    embedding, ids = nn.Embedding(len(tokenizer), 64).weight.detach(), coordinate_ids(tokenizer)
    others = torch.ones(len(tokenizer), dtype=torch.bool)
    others[ids] = False
    before = embedding.clone()
    init_coordinate_embeddings(embedding, ids)
    after = embedding
    assert torch.equal(after[others], before[others])
    torch.testing.assert_close(after[ids].norm(dim=-1).mean(), before.norm(dim=-1).mean(), rtol=1e-3, atol=0)
    likeness = torch.cosine_similarity(after[ids[500]][None], after[ids], dim=-1)
    assert likeness.argmax() == 500
    assert likeness[501] > likeness[505] > likeness[520] > likeness[600]


class TestLoss:
    """Three numbers and a word, read from states that are the logits themselves."""

    IDS = torch.tensor([3, 1, 0])  # of 0, 1 and 2; token 2 is a word

    def of(self, logits, label, sigma):
        loss = CoordinateLabelLoss(self.IDS, 4, sigma)
        return loss.log_probs(torch.tensor([logits]), torch.eye(4), torch.tensor([label]))

    def test_a_word_has_its_log_likelihood(self):
        logits = [0.3, -1.0, 2.0, 0.0]
        found, best = self.of(logits, 2, 1.0)
        torch.testing.assert_close(found[0], torch.tensor(logits).log_softmax(-1)[2])
        assert best.tolist() == [True]

    def test_a_coordinate_is_the_mean_under_its_gaussian(self):
        logits = torch.tensor([0.3, -1.0, 2.0, 0.0]).log_softmax(-1)
        kernel = torch.exp(-0.5 * torch.tensor([0.0, 1.0, 2.0]) ** 2)
        found, _ = self.of([0.3, -1.0, 2.0, 0.0], 3, 1.0)  # the number 0
        torch.testing.assert_close(found[0], (logits[self.IDS] * kernel / kernel.sum()).sum())

    def test_a_near_miss_costs_less(self):
        near, _ = self.of([0.0, 4.0, 0.0, 0.0], 3, 1.0)  # 1 is said where 0 is wanted
        far, _ = self.of([4.0, 0.0, 0.0, 0.0], 3, 1.0)  # 2 is said
        assert near > far + 0.5
