"""Muon for the matrices of the blocks, AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024) orthogonalises the update of a matrix. Embeddings, the head, norms, biases and position
tables are no matrices in that sense and stay with AdamW. Both are torch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

_NEVER_MUON = ("embed_tokens", "lm_head", "position_embedding", "resampler.query")


class MuonWithAdamW(Optimizer):
    """Two torch optimizers behind one face: their groups side by side, so that a scheduler drives both."""

    def __init__(self, muon: Muon, adamw: AdamW):
        self.optimizers: tuple[Optimizer, ...] = (muon, adamw)
        # The groups themselves are handed over, not copies: a scheduler writes the learning rates into them.
        super().__init__([*muon.param_groups, *adamw.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None if closure is None else closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]


def muon_with_adamw(
    model: nn.Module, muon_lr: float, adamw_lr: float, betas: tuple[float, float], weight_decay: float
) -> MuonWithAdamW:
    """Split a model's trainable parameters between Muon and AdamW.

    Weight decay applies to matrices only: to Muon's, and to none of AdamW's.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim == 2 and not any(part in name for part in _NEVER_MUON)
            (matrices if is_matrix else others).append(parameter)
    # Four Newton-Schulz steps instead of torch's five: on matrices this small they are a good part of a step.
    if not matrices or not others:
        raise ValueError(
            "Muon needs matrices to train and AdamW something besides them; unset muon_learning_rate"
        )
    muon = Muon(matrices, lr=muon_lr, weight_decay=weight_decay, ns_steps=4)
    return MuonWithAdamW(muon, AdamW(others, lr=adamw_lr, betas=betas, weight_decay=0.0))
