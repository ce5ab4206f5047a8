"""Build Qwen's tokenizer from the file of byte-pair ranks in its checkpoints."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from pathlib import Path

from transformers import Qwen2Tokenizer

from ..hub.processing_bird import build_tokenizer

RANKS_FILE = "qwen.tiktoken"


def read_tokenizer(path: Path) -> Qwen2Tokenizer:
    """Returns the tokenizer of a file of byte-pair ranks; the control tokens follow the last rank.

    Raises ValueError if the file does not contain byte-pair ranks.
    """
    try:
        lines = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    except ValueError as error:
        raise ValueError(f"{path} is not a file of byte-pair ranks ({error})") from error
    letters = _letters_of_bytes()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocab = {spell(token): rank for token, rank in ranks.items()}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            left, right = _parents(token, ranks)
            merges.append((spell(left), spell(right)))
    return build_tokenizer(vocab, merges)


def _parents(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Returns the two tokens that merge into `token`: the result of byte-pair encoding it with all lower ranks."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        merged = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(parts)]
        at = merged.index(min(merged))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _letters_of_bytes() -> dict[int, str]:
    """The printable character of each byte in byte-level tokenizers: itself, or one from U+0100 upwards."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
