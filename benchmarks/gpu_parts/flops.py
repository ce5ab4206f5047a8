"""FLOPs of a step of the benchmark, by the formulas of `bird train --plan`."""

from __future__ import annotations

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.train.flops import Part, Parts, layer_parameters, tower_flops
from bird_hf.train.flops import Work as Step
from bird_hf.train.flops import training_flops as flops_of

__all__ = ["Step", "training_flops", "vision_flops"]

vision_flops = tower_flops


def training_flops(config: BirdConfig, step: Step, lora_rank: int | None = None) -> float:
    """Of one step as the paper freezes (tower and projector frozen, resampler trained).

    The language model is trained in full, or by LoRA of that rank on all of its linear layers.
    """
    if lora_rank is None:
        return flops_of(config, step)
    _, of_rank_1 = layer_parameters(config)
    adapter = lora_rank * of_rank_1 * config.text_config.num_hidden_layers
    return flops_of(config, step, Parts(language_model=Part(adapter=adapter)))
