"""A loss on where attention goes while a box is generated or read: to the image tokens of the box.

To say where a thing lies, a model attends from its name to the image token that shows it. Small models find this
step late from the loss of the answers alone (docs/nano.md). Here every other head of two layers is supervised: what a
single head passes on is too narrow for a name and four coordinates.
"""

from __future__ import annotations

import math

import torch

from ...hub.modeling_bird import BirdForConditionalGeneration
from .cpu_attention import AttentionRecorder

_HEADS = slice(None, None, 2)  # every other one


class AttentionSupervisionLoss:
    """Negative log-likelihood of attending to the target image tokens, in two layers of a model.

    The layers are those at a quarter and at half of the depth: in the first, a name of several tokens is not
    represented as one thing yet, and the last prepares the output.
    """

    def __init__(self, model: BirdForConditionalGeneration):
        depth = model.config.text_config.num_hidden_layers
        self.layers = sorted({depth // 4, depth // 2})
        self.image_token_id = model.config.image_token_id

    def recorder(self) -> AttentionRecorder:
        """A recorder for one forward pass, whose records `loss` reads."""
        return AttentionRecorder(self.layers, _HEADS)

    def loss(
        self, recorder: AttentionRecorder, input_ids: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The mean over tokens with a target, from ids (B, T) and targets (B, T, Q + 1) bool.

        The last target column stands for absent objects: the token right after the image tokens. Each row has one
        image, or none and no targets.
        """
        row, token = targets.any(-1).nonzero(as_tuple=True)
        is_image = input_ids == self.image_token_id
        image_of_row = is_image.any(-1).cumsum(0) - 1
        columns = is_image.nonzero()[:, 1].view(-1, targets.shape[-1] - 1)[image_of_row[row]]  # (n, Q)
        columns = torch.cat([columns, columns[:, -1:] + 1], dim=-1)  # (n, Q + 1)
        elsewhere = ~targets[row, token]
        likelihoods = []
        for layer in self.layers:
            query, key, mask = recorder.recorded[layer]
            scores = (query @ key.mT)[row, :, token].float()  # (n, heads, T)
            if mask is not None:
                scores = scores + mask[row, :, token]
            at_image = columns[:, None].expand(-1, scores.shape[1], -1)
            on_target = scores.log_softmax(-1).gather(2, at_image).masked_fill(elsewhere[:, None], -math.inf)
            likelihoods.append(on_target.logsumexp(-1).mean())
        return -torch.stack(likelihoods).mean()
