"""Coordinates as tokens: one for each number from 0 to 1000, with similar embeddings for near numbers.

Digit by digit a box takes twelve tokens, and 199 and 200 have no digit in common. With a token for each coordinate it
takes four, and the loss can tell a near miss from a far one: embeddings of near numbers start similar, and the label
is a Gaussian around the number instead of the number alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerBase

from ...hub.boxes import THOUSAND
from ...hub.decoding_bird import gaussian_kernel

COORDINATES = [str(number) for number in range(THOUSAND + 1)]
_FREQUENCIES = (0.5, 64.0)  # of the slowest and the fastest wave, in periods over 0 to 1000


def coordinate_ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor | None:
    """The ids of 0 to 1000, (1001,); None if the tokenizer writes them digit by digit."""
    known = tokenizer.get_vocab()
    if not known.keys() >= set(COORDINATES):
        return None
    return torch.tensor([known[number] for number in COORDINATES])


def runs_of(ids: Sequence[int]) -> list[list[int]]:
    """[first, last] of each run of consecutive ids."""
    runs: list[list[int]] = []
    for number in ids:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs


@torch.no_grad()
def init_coordinate_embeddings(embeddings: torch.Tensor, ids: torch.Tensor) -> None:
    """Set rows `ids` of embeddings (V, D) to sines and cosines of the numbers, in random directions.

    Their length is the mean length of all rows.
    """
    width = embeddings.shape[1]
    slowest, fastest = _FREQUENCIES
    periods = slowest * (fastest / slowest) ** torch.linspace(0, 1, width // 2)
    angles = 2 * math.pi * torch.arange(len(ids))[:, None] / len(ids) * periods
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
    waves = waves / (width // 2) ** 0.5  # (1001, D), each of length 1
    directions = nn.init.orthogonal_(torch.empty(waves.shape[1], width))
    embeddings[ids] = embeddings.norm(dim=-1).mean() * waves @ directions


class CoordinateLabelLoss:
    """Log-likelihood of answers with a Gaussian label for each coordinate.

    ids: those of `coordinate_ids`. sigma: standard deviation of the label, in thousandths of the image's side.
    """

    def __init__(self, ids: torch.Tensor, vocab_size: int, sigma: float):
        self.ids = ids
        self.value = torch.full((vocab_size,), -1)  # the number of each token, -1 if it is not a coordinate
        self.value[ids] = torch.arange(len(ids))
        self.kernel = gaussian_kernel(len(ids), sigma)

    def log_probs(
        self, states: torch.Tensor, head: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Last states (n, D), head (V, D), labels (n,) -> (n,) log-likelihoods and (n,) bool, whether the label is
        the likeliest token. For a coordinate it is the mean log-likelihood under its Gaussian.
        """
        log_probs = F.linear(states, head).float().log_softmax(-1)  # (n, V)
        value = self.value.to(labels.device)[labels]
        kernel = self.kernel.to(log_probs.device)[value.clamp(min=0)]
        near = (log_probs[:, self.ids] * kernel).sum(-1)
        is_top1 = log_probs.argmax(-1) == labels
        return torch.where(value >= 0, near, log_probs.gather(1, labels[:, None])[:, 0]), is_top1
