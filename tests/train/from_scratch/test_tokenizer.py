"""A trained tokenizer knows the control tokens, keeps digits apart and gives every text back."""

from __future__ import annotations

import pytest

from bird_hf.hub.processing_bird import CONTROL_TOKENS
from bird_hf.train.from_scratch.tokenizer import train_tokenizer

pytestmark = pytest.mark.slow

TEXTS = [
    "The left kidney is seen in the left part.",
    "<ref>left kidney</ref><box>(281,437),(399,525)</box>",
] * 9
SMALLEST = 256 + len(CONTROL_TOKENS)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, SMALLEST + 40)


@pytest.mark.parametrize(
    "text",
    [
        "The left kidney is seen.",
        "<ref>left kidney</ref><box>(281,437),(399,525)</box>",
        "nodule <5 mm, naïve Läsion, 腎臓 🙂",  # what it never saw: bytes
        "two  spaces\nand lines\n\n",
        "",
    ],
)
def test_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_digit_is_a_token(tokenizer):
    tokens = tokenizer.tokenize("(281,1000)")
    assert [token for token in tokens if any(map(str.isdigit, token))] == list("2811000")


def test_control_tokens_are_one_token_each_behind_the_vocabulary(tokenizer):
    ids = [tokenizer.convert_tokens_to_ids(token.content) for token in CONTROL_TOKENS]
    assert ids == list(range(len(tokenizer) - len(CONTROL_TOKENS), len(tokenizer)))
    assert tokenizer.encode("<box>") == [tokenizer.convert_tokens_to_ids("<box>")]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_words_of_the_texts_are_learnt_and_control_tokens_are_not(tokenizer):
    assert len(tokenizer) <= SMALLEST + 40
    assert len(tokenizer.tokenize(" left")) == 1  # seen often
    pieces = set(tokenizer.get_vocab()) - {token.content for token in CONTROL_TOKENS}
    assert not [piece for piece in pieces if "ref" in piece or "box" in piece]


def test_fewer_pairs_than_asked_for_give_a_smaller_vocabulary():
    assert len(train_tokenizer(["ab ab"], 5000)) < SMALLEST + 5


def test_same_texts_give_the_same_tokenizer(tokenizer):
    assert train_tokenizer(TEXTS, SMALLEST + 40).get_vocab() == tokenizer.get_vocab()


def test_vocabulary_that_cannot_hold_the_bytes_is_refused():
    train_tokenizer([], SMALLEST)
    with pytest.raises(ValueError, match=f"vocab_size is {SMALLEST - 1}.* take {SMALLEST}"):
        train_tokenizer([], SMALLEST - 1)
