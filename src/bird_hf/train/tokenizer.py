"""Train a small tokenizer that splits text as Qwen's does and knows the same control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from ..hub.processing_bird import CONTROL_TOKENS, build_tokenizer
from .numbers import NUMBERS

_SMALLEST = 256 + len(CONTROL_TOKENS)  # every byte, and the control tokens
_CONTROL = re.compile("|".join(re.escape(token.content) for token in CONTROL_TOKENS))


def train_tokenizer(texts: Iterable[str], vocab_size: int, whole_numbers: bool = False) -> Qwen2Tokenizer:
    """Byte-pair encoding learned from tagged texts; every digit is a token of its own, or 0 to 1000 are besides.

    `vocab_size` counts bytes and control tokens too, but not whole numbers; fewer tokens come out where the texts hold
    fewer pairs.
    Raises ValueError where it is too small to hold these.
    """
    if vocab_size < _SMALLEST:
        raise ValueError(f"vocab_size is {vocab_size}, but bytes and control tokens alone take {_SMALLEST}")
    blank = Qwen2Tokenizer()
    learner = Tokenizer(models.BPE())
    learner.normalizer = blank.backend_tokenizer.normalizer
    learner.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator((piece for text in texts for piece in _CONTROL.split(text)), trainer)
    learnt = json.loads(learner.to_str())["model"]
    tokenizer = build_tokenizer(learnt["vocab"], [tuple(pair) for pair in learnt["merges"]])
    if whole_numbers:
        tokenizer.add_tokens(NUMBERS)
    return tokenizer
