"""Muon for the matrices of the blocks, AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024) orthogonalises the update of a matrix. Embeddings, the head, norms, biases and position
tables are not matrices in that sense and are left to AdamW. Both are torch's own; Muon's step takes all matrices of one
shape at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

_ADAMW_PARTS = ("embed_tokens", "lm_head", "position_embedding", "resampler.query")


class ShapewiseMuon(Muon):
    """torch's Muon, but the matrices of one shape are orthogonalised in one batch.

    A small model has dozens of matrices of equal shape, and each alone is too small to keep a processor busy
    (`benchmarks/training_step.py` compares the two).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for matrices in by_shape.values():
                self._update(matrices, group)
        return loss

    def _update(self, matrices: list[nn.Parameter], group: dict[str, Any]) -> None:
        gradients = [matrix.grad for matrix in matrices]
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        buffers = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        directions = buffers
        if group["nesterov"]:
            directions = torch._foreach_lerp(gradients, buffers, group["momentum"])
        rows, columns = matrices[0].shape
        updates = orthogonalised(
            torch.stack(directions), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        lr = group["lr"] * max(1.0, rows / columns) ** 0.5  # torch's adjust_lr_fn="original"
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, list(updates.to(matrices[0].dtype)), alpha=-lr)


def orthogonalised(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """The nearest matrices with singular values about 1, by Newton-Schulz in bf16: (N, rows, columns) twice."""
    a, b, c = coefficients
    found = matrices.bfloat16()
    tall = found.shape[1] > found.shape[2]
    if tall:
        found = found.mT
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=eps)  # spectral norm at most 1
    for _ in range(steps):
        gram = found @ found.mT  # (N, short, short)
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.mT if tall else found


class MuonWithAdamW(Optimizer):
    """Two torch optimizers as one: their parameter groups side by side, so that a scheduler sets both."""

    def __init__(self, muon: Muon, adamw: AdamW):
        self.optimizers: tuple[Optimizer, ...] = (muon, adamw)
        # The groups themselves, not copies: a scheduler writes the learning rates into them.
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
    parameters: Iterable[tuple[str, nn.Parameter]],
    muon_lr: float,
    adamw_lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> MuonWithAdamW:
    """Split named parameters, those that are trained, between Muon and AdamW.

    Weight decay applies to the matrices of Muon only.
    Raises ValueError if one of the two gets none.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in parameters:
        if parameter.requires_grad:
            is_matrix = parameter.ndim == 2 and not any(part in name for part in _ADAMW_PARTS)
            (matrices if is_matrix else others).append(parameter)
    if not matrices or not others:
        raise ValueError(
            "Muon needs matrices to train and AdamW something besides them; unset muon_learning_rate"
        )
    # Four Newton-Schulz steps instead of torch's five: on matrices this small they are a good part of a step.
    muon = ShapewiseMuon(matrices, lr=muon_lr, weight_decay=weight_decay, ns_steps=4)
    return MuonWithAdamW(muon, AdamW(others, lr=adamw_lr, betas=betas, weight_decay=0.0, fused=True))
