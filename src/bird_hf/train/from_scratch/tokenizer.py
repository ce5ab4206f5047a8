"""Training of a small tokenizer that splits text as Qwen's does and has the same control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from ...hub.processing_bird import CONTROL_TOKENS, build_tokenizer
from .coordinate_tokens import COORDINATES

_SMALLEST = 256 + len(CONTROL_TOKENS)  # every byte, and the control tokens
_CONTROL = re.compile("|".join(re.escape(token.content) for token in CONTROL_TOKENS))


def train_tokenizer(texts: Iterable[str], vocab_size: int, coordinate_tokens: bool = False) -> Qwen2Tokenizer:
    """Learn a byte-pair encoding from tagged texts; every digit is a token, with `coordinate_tokens` also 0 to 1000.

    `vocab_size` counts bytes and control tokens, but not coordinate tokens; the vocabulary is smaller if the texts
    have fewer pairs.
    Raises ValueError if `vocab_size` is too small for bytes and control tokens.
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
    if coordinate_tokens:
        tokenizer.add_tokens(COORDINATES)
    return tokenizer
