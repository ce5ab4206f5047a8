"""Coordinates as whole numbers: a token each for 0 to 1000, whose neighbours are like it from the start.

Digit by digit a box is twelve choices, and 199 and 200 have no digit in common. As one token each it is four, and an
answer that is off by a little can be told from one that is off by a lot: near numbers start with near embeddings, and
what the loss wants is not one number but a bell around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..hub.boxes import THOUSAND
from ..hub.decoding_bird import bells

NUMBERS = [str(number) for number in range(THOUSAND + 1)]
_WAVES = (0.5, 64.0)  # periods of the slowest and the fastest wave in 0 to 1000


def number_ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor | None:
    """The ids of 0 to 1000, (1001,); None where the tokenizer writes them digit by digit."""
    known = tokenizer.get_vocab()
    return torch.tensor([known[number] for number in NUMBERS]) if known.keys() >= set(NUMBERS) else None


def runs_of(ids: Sequence[int]) -> list[list[int]]:
    """[first, last] of each run of ids that follow one another."""
    runs: list[list[int]] = []
    for number in ids:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs


@torch.no_grad()
def start_alike(embeddings: torch.Tensor, ids: torch.Tensor) -> None:
    """Rows of numbers (V, D) -> sines and cosines of them in random directions, as long as rows are on average."""
    width = embeddings.shape[1]
    slowest, fastest = _WAVES
    periods = slowest * (fastest / slowest) ** torch.linspace(0, 1, width // 2)
    angles = 2 * math.pi * torch.arange(len(ids))[:, None] / len(ids) * periods
    waves = (
        torch.cat([angles.sin(), angles.cos()], dim=-1) / (width // 2) ** 0.5
    )  # (1001, D), each of length 1
    directions = nn.init.orthogonal_(torch.empty(waves.shape[1], width))
    embeddings[ids] = embeddings.norm(dim=-1).mean() * waves @ directions


class NumberLoss:
    """Log-likelihood of answers in which a number may be missed by a little.

    ids: of the numbers, from `number_ids`. spread: standard deviation of the bell around a number, in thousandths of
    the picture's side.
    """

    def __init__(self, ids: torch.Tensor, vocab_size: int, spread: float):
        self.ids = ids
        self.value = torch.full((vocab_size,), -1)  # of a token, -1 where it is no number
        self.value[ids] = torch.arange(len(ids))
        self.bells = bells(len(ids), spread)

    def log_probs(
        self, states: torch.Tensor, head: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Last states (n, D), head (V, D), labels (n,) -> (n,), of a number the mean under its bell, and (n,) bool,
        which labels are the likeliest.
        """
        log_probs = F.linear(states, head).float().log_softmax(-1)  # (n, V)
        value = self.value.to(labels.device)[labels]
        bells = self.bells.to(log_probs.device)[value.clamp(min=0)]
        near = (log_probs[:, self.ids] * bells).sum(-1)
        is_top1 = log_probs.argmax(-1) == labels
        return torch.where(value >= 0, near, log_probs.gather(1, labels[:, None])[:, 0]), is_top1
