"""How much of a GRPO step is signal: how alike the gradients of steps are that start from the same weights.

    python benchmarks/grpo_signal.py --steps 8 --config recipes/grpo.yaml --model_name_or_path bird
    python benchmarks/grpo_signal.py --steps 8 --config recipes/grpo.yaml --temperature 1.0

All options but --steps are those of `bird train`. The recipe runs with learning rate 0, so every step draws other
questions and answers from the same model. Printed as JSON: the mean cosine of the gradients of two steps for each part
that is trained, and the means of the rewards. With cosine c, the mean of n steps has cosine sqrt(n c / (1 + (n - 1) c))
with the true gradient.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from typing import Any

import torch
from transformers import TrainerCallback

from bird_hf.train import run

PARTS = ("resampler", "embed_tokens", "language_model")  # the first whose name occurs in that of a parameter
LOGGED = ("reward", "frac_reward_zero_std", "entropy", "reward/brevity", "reward/overlap", "reward/wording")


class Gradients(TrainerCallback):
    """Keeps the gradient of every step, on the CPU, by part; see `PARTS`."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        parts: dict[str, list[torch.Tensor]] = {}
        for name, value in model.named_parameters():
            if value.grad is not None:
                part = next((each for each in PARTS if each in name), "other")
                parts.setdefault(part, []).append(value.grad.detach().float().flatten().cpu())
        self.steps.append({part: torch.cat(values) for part, values in parts.items()})

    def cosines(self) -> dict[str, dict[str, float]]:
        """Mean cosine of two steps, and the standard deviation over pairs."""
        found = {}
        for part in self.steps[0]:
            pairs = itertools.combinations([step[part] for step in self.steps], 2)
            values = torch.stack([torch.cosine_similarity(*pair, dim=0) for pair in pairs])
            found[part] = {"mean": values.mean().item(), "std": values.std(correction=0).item()}
        return found


def measure(arguments: list[str], steps: int) -> dict[str, Any]:
    """Run `steps` steps of a recipe with learning rate 0."""
    if steps < 2:
        raise ValueError(f"--steps is {steps}; two gradients are compared, so it must be at least 2")
    with tempfile.TemporaryDirectory() as folder:
        fixed = {"learning_rate": 0.0, "max_steps": steps, "logging_steps": 1, "save_strategy": "no"}
        options = [word for name, value in fixed.items() for word in (f"--{name}", str(value))]
        recipe = run.read([*arguments, *options, "--output_dir", folder])
        gradients = Gradients()
        trainer = run.build(recipe, [gradients])
        trainer.train()
    rows = [row for row in trainer.state.log_history if "reward" in row]
    args = trainer.args
    return {
        "steps": steps,
        "answers_per_step": args.per_device_train_batch_size * args.gradient_accumulation_steps,
        "temperature": args.temperature,
        "scale_rewards": args.scale_rewards,
        "means": {name: sum(row[name] for row in rows) / len(rows) for name in LOGGED},
        "cosines": gradients.cosines(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--steps", type=int, default=8)
    options, arguments = parser.parse_known_args()
    print(json.dumps(measure(arguments, options.steps), indent=1))


if __name__ == "__main__":
    main()
