"""How the sides of a box are read from scores, where each number from 0 to 1000 is a token of its own.

Each number has a score, and the likeliest alone is often a chance peak: 412 where most of the probability lies around
430. So inside `<box>` a number is taken with its neighbours, under a bell around it. What is likely as a whole wins, in
greedy search as in beams and samples, and how likely it is that a number comes at all stays as it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import LogitsProcessor

from .boxes import THOUSAND
from .configuration_bird import BirdConfig


class BoxSmoothing(LogitsProcessor):
    """Smooths the scores of numbers while a box is being written; `config.box_smoothing` is the bell's deviation."""

    def __init__(self, config: BirdConfig):
        if config.box_token_ids is None or config.number_token_runs is None:
            raise ValueError("box_smoothing needs box_token_ids and number_token_runs in the configuration")
        self.opens, self.closes = config.box_token_ids
        self.numbers = torch.cat([torch.arange(first, last + 1) for first, last in config.number_token_runs])
        if len(self.numbers) != THOUSAND + 1:
            raise ValueError(f"number_token_runs have {len(self.numbers)} ids; 0 to 1000 are {THOUSAND + 1}")
        self.bells = bells(THOUSAND + 1, config.box_smoothing)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Ids so far (B, T) and scores of the next (B, V) -> (B, V)."""
        self.numbers, self.bells = self.numbers.to(scores.device), self.bells.to(scores.device)
        before = scores[:, self.numbers].float()  # (B, 1001)
        share = before.softmax(-1) @ self.bells
        after = share.clamp(min=torch.finfo(share.dtype).tiny).log() + before.logsumexp(-1, keepdim=True)
        inside = self._last(self.opens, input_ids) > self._last(self.closes, input_ids)
        smoothed = scores.clone()
        smoothed[:, self.numbers] = torch.where(inside[:, None], after, before).to(scores.dtype)
        return smoothed

    @staticmethod
    def _last(token: int, input_ids: torch.Tensor) -> torch.Tensor:
        """Where the token stands last in each row, counted from 1; 0 where it does not."""
        places = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
        # One column more: of a prompt that was given as embeddings there are no ids yet.
        return F.pad((input_ids == token) * places, (1, 0)).amax(-1)


def bells(count: int, spread: float) -> torch.Tensor:
    """(count, count): row n is a bell of that standard deviation around the number n, and adds up to 1."""
    apart = torch.arange(count)[:, None] - torch.arange(count)
    heights = torch.exp(-0.5 * (apart / spread) ** 2)
    return heights / heights.sum(-1, keepdim=True)
