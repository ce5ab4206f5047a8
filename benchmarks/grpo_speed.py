"""What a step of GRPO costs if the prompt of several answers is computed once, beside TRL's way: once an answer.

    python benchmarks/grpo_speed.py --repeats 3 --config recipes/grpo.yaml --model_name_or_path bird
    python benchmarks/grpo_speed.py --repeats 3 --config recipes/grpo.yaml --num_generations 4

All options but --repeats are those of `bird train`. Both ways sample answers to the same questions, and compute the
loss of the same answers with its gradients, in turn. Printed as JSON: CPU seconds of this process (on a GPU, seconds)
for an answer, medians, and their ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import nullcontext
from typing import Any

import torch
from trl import GRPOTrainer

from bird_hf.train import run
from bird_hf.train.grpo import BirdGRPOTrainer, sampling_from_policy
from bird_hf.train.shared_prompts import each_prompt_once

TRL, OURS = "a prompt for each answer", "each prompt once"
SAMPLING, LOSS = "sampling", "loss and gradients"


class Step:
    """Sampling and loss of one batch of a trainer, in both ways."""

    def __init__(self, trainer: BirdGRPOTrainer) -> None:
        self.trainer, self.model = trainer, trainer.model
        self.model.train()
        args = trainer.args
        questions = range(args.per_device_train_batch_size // args.num_generations)
        rows = [trainer.train_dataset[number] for number in questions for _ in range(args.num_generations)]
        self.inputs = trainer._generate_and_score_completions(rows)  # the loss is that of these answers
        self.answers = len(rows)

    def sampling(self, way: str) -> None:
        prompt = {
            "input_ids": self.inputs["prompt_ids"],
            "attention_mask": self.inputs["prompt_mask"],
            "pixel_values": self.inputs["pixel_values"],
        }
        once = each_prompt_once(self.model) if way == OURS else nullcontext()
        with torch.no_grad(), self.trainer.accelerator.autocast(), sampling_from_policy(self.model), once:
            self.model.generate(**prompt, generation_config=self.trainer.generation_config)

    def loss(self, way: str) -> None:
        answers, mask = self.inputs["completion_ids"], self.inputs["completion_mask"]
        compute = BirdGRPOTrainer if way == OURS else GRPOTrainer
        logps, _, _ = compute._get_per_token_logps_and_entropies(
            self.trainer,
            self.model,
            torch.cat([self.inputs["prompt_ids"], answers], dim=1),
            torch.cat([self.inputs["prompt_mask"], mask], dim=1),
            answers.shape[1],
            pixel_values=self.inputs["pixel_values"],
            num_images=self.inputs["num_images"],
            compute_entropy=True,
        )
        (logps * mask).sum().backward()
        self.model.zero_grad()


def seconds_of(work: Any, way: str) -> float:
    """CPU seconds of this process, or on a GPU seconds."""
    is_on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    clock = time.perf_counter if is_on_gpu else time.process_time
    torch.manual_seed(0)  # the same answers are drawn
    start = clock()
    work(way)
    if is_on_gpu:
        torch.cuda.synchronize()
    return clock() - start


def measure(arguments: list[str], repeats: int) -> dict[str, Any]:
    """Both parts of a step in both ways, `repeats` times in turn after one that is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = ["--save_strategy", "no", "--report_to", "none", "--output_dir", folder]
        step = Step(run.build(run.read([*arguments, *fixed])))
    parts = {SAMPLING: step.sampling, LOSS: step.loss}
    took: dict[str, dict[str, list[float]]] = {part: {TRL: [], OURS: []} for part in parts}
    for repeat in range(repeats + 1):
        for part, work in parts.items():
            for way in (TRL, OURS):
                seconds = seconds_of(work, way)
                if repeat:
                    took[part][way].append(seconds / step.answers)
    found = {
        part: {way: statistics.median(each) for way, each in ways.items()} for part, ways in took.items()
    }
    args = step.trainer.args
    return {
        "device": torch.cuda.get_device_name() if args.device.type == "cuda" else "CPU",
        "answers": step.answers,
        "answers_to_a_question": args.num_generations,
        "tokens_of_a_prompt": float(step.inputs["prompt_mask"].sum(1).float().mean()),
        "tokens_of_an_answer": float(step.inputs["completion_mask"].sum(1).float().mean()),
        "seconds_for_an_answer": found,
        "times": {part: ways[TRL] / ways[OURS] for part, ways in found.items()},
        "times_both": sum(ways[TRL] for ways in found.values()) / sum(ways[OURS] for ways in found.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repeats", type=int, default=3)
    options, arguments = parser.parse_known_args()
    print(json.dumps(measure(arguments, options.repeats), indent=1))


if __name__ == "__main__":
    main()
