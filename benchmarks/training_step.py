"""What a training step of the nano costs: attention, turns that share their image, and Muon by shape.

    python benchmarks/training_step.py [--rows 8] [--repeats 5]

Prints ratios of times measured side by side in one run, in bf16 autocast on this machine's CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import yaml
from PIL import Image
from torch.optim import Muon

from bird_hf.data.embedded.sample_set import sample_phantoms
from bird_hf.data.embedded.training_set import TURNS
from bird_hf.data.records import dialogue_row
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train.collate import GroundingCollator
from bird_hf.train.from_scratch import cpu_attention
from bird_hf.train.from_scratch.muon import ShapewiseMuon, muon_with_adamw
from bird_hf.train.from_scratch.new_model import NewModel, create_model


def rows(count: int) -> list[dict]:
    """Rows as training has them: a phantom and its independent turns."""
    rng = np.random.default_rng(0)
    made = []
    for image, record in sample_phantoms("train", -(-count // 8)):
        dialogue = write_dialogue(record, rng, TURNS, absent=1)
        made.append(dialogue_row(dialogue, Image.fromarray(image.pixels)))
    return made[:count]


def separate(rows: list[dict]) -> list[dict]:
    """The same turns, each with its own copy of the image."""
    return [
        row | {"messages": row["messages"][start : start + 2]}
        for row in rows
        for start in range(0, len(row["messages"]), 2)
    ]


def step(model: BirdForConditionalGeneration, batch: dict[str, torch.Tensor]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch, use_cache=False).loss
    loss.backward()
    model.zero_grad()


def muons(model: BirdForConditionalGeneration) -> dict[str, Muon]:
    """torch's Muon and ours over the matrices that a recipe gives to Muon, each with a gradient."""
    ours, _ = muon_with_adamw(model.named_parameters(), 0.01, 1e-3, (0.9, 0.95), 0.0).optimizers
    (group,) = ours.param_groups
    for matrix in group["params"]:
        matrix.grad = torch.randn_like(matrix)
    return {
        kind.__name__: kind(group["params"], lr=0.01, weight_decay=0.0, ns_steps=group["ns_steps"])
        for kind in (Muon, ShapewiseMuon)
    }


def seconds(run: Callable[[], None], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cpu_attention.register()
    data = rows(options.rows)
    with open("recipes/nano.yaml", encoding="utf-8") as recipe:
        sizes = NewModel.from_dict(yaml.safe_load(recipe)["new_model"])
    texts = [message["content"] for row in data for message in row["messages"]]
    model, processor = create_model(sizes, texts, cpu_attention.NAME)
    model.train()
    collate = GroundingCollator(processor)
    packed, alone = collate(data), collate(separate(data))

    times = {}
    for name in ("sdpa", "eager", cpu_attention.NAME):
        model.set_attn_implementation(name)
        times[name] = seconds(lambda: step(model, packed), options.repeats)
    print(f"forward and backward of {options.rows} images, {packed['input_ids'].shape[1]} tokens each")
    for name, value in times.items():
        print(
            f"  {name}: {value:.2f} s, {times[cpu_attention.NAME] / value:.2f} of {cpu_attention.NAME}'s speed"
        )
    apart = seconds(lambda: step(model, alone), options.repeats)
    print(
        f"turns that share their image: {apart / times[cpu_attention.NAME]:.1f} times as fast as each turn with its own"
    )
    steps = {name: seconds(optimizer.step, options.repeats) for name, optimizer in muons(model).items()}
    ratio = steps["Muon"] / steps["ShapewiseMuon"]
    print(f"Muon's step, the matrices of a shape together: {ratio:.1f} times as fast as one by one")


if __name__ == "__main__":
    main()
