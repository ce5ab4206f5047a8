"""Generation of box coordinates for tokenizers with one token for each number from 0 to 1000.

The likeliest coordinate alone is often an isolated peak: 412 while most of the probability lies around 430. So inside
`<box>` the probability of each coordinate is averaged with its neighbours' under a Gaussian. The total probability of
coordinates stays the same, so this works with greedy search, beam search and sampling alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import LogitsProcessor

from .boxes import THOUSAND
from .configuration_bird import BirdConfig


class CoordinateSmoothing(LogitsProcessor):
    """Smooths the scores of coordinates while a box is generated, with `config.coordinate_smoothing_sigma`.

    Raises ValueError if the configuration lacks the token ids, or they are not those of 0 to 1000.
    """

    def __init__(self, config: BirdConfig):
        if config.box_token_ids is None or config.coordinate_token_runs is None:
            raise ValueError(
                "coordinate_smoothing_sigma needs box_token_ids and coordinate_token_runs in the configuration"
            )
        self.box_open, self.box_close = config.box_token_ids
        self.coordinates = torch.cat(
            [torch.arange(first, last + 1) for first, last in config.coordinate_token_runs]
        )
        if len(self.coordinates) != THOUSAND + 1:
            raise ValueError(
                f"coordinate_token_runs have {len(self.coordinates)} ids; 0 to 1000 are {THOUSAND + 1}"
            )
        self.kernel = gaussian_kernel(THOUSAND + 1, config.coordinate_smoothing_sigma)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Ids so far (B, T) and scores of the next (B, V) -> (B, V)."""
        self.coordinates, self.kernel = self.coordinates.to(scores.device), self.kernel.to(scores.device)
        before = scores[:, self.coordinates].float()  # (B, 1001)
        share = before.softmax(-1) @ self.kernel
        after = share.clamp(min=torch.finfo(share.dtype).tiny).log() + before.logsumexp(-1, keepdim=True)
        inside = self._last(self.box_open, input_ids) > self._last(self.box_close, input_ids)
        smoothed = scores.clone()
        smoothed[:, self.coordinates] = torch.where(inside[:, None], after, before).to(scores.dtype)
        return smoothed

    @staticmethod
    def _last(token: int, input_ids: torch.Tensor) -> torch.Tensor:
        """Position of the token's last occurrence in each row, counted from 1; 0 if there is none."""
        positions = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
        # Padded by a column, because a prompt given as embeddings starts without ids.
        return F.pad((input_ids == token) * positions, (1, 0)).amax(-1)


def gaussian_kernel(count: int, sigma: float) -> torch.Tensor:
    """(count, count): row n is a Gaussian of standard deviation sigma around n that adds up to 1."""
    distance = torch.arange(count)[:, None] - torch.arange(count)
    heights = torch.exp(-0.5 * (distance / sigma) ** 2)
    return heights / heights.sum(-1, keepdim=True)
