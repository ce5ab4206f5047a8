"""Time many questions about one image: with pixels, with image features computed once, and with a shared cache.

    python benchmarks/image_features.py [--questions 16] [--repeats 5] [--max-new-tokens 32] [--model DIR]

The embedded checkpoint answers questions about one phantom greedily, one at a time. Prints the seconds of the three
ways and their ratios, for the first token of each answer and for whole answers. The ways are timed in turn in one
process; raises an error if their answers differ.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import DynamicCache

from bird_hf.checkpoint.load import load_checkpoint
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality
from bird_hf.sample import embedded_checkpoint

Inputs = list[dict[str, torch.Tensor]]
Way = Callable[[Any, Inputs, int], list[list[int]]]


def questions(processor: Any, count: int) -> Inputs:
    """Returns the model's inputs for `count` questions about one phantom."""
    phantom = draw_phantom(Modality.CT, 0)
    image = Image.fromarray(phantom.pixels)
    asked = []
    for number in range(count):
        label, _ = phantom.masks[number % len(phantom.masks)]
        content = [{"type": "image", "image": image}, {"type": "text", "text": f"Where is the {label}?"}]
        asked.append(
            processor.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=True,
            )
        )
    return asked


def answer(model: Any, inputs: dict[str, Any], new_tokens: int) -> list[int]:
    output = model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


def with_pixels(model: Any, asked: Inputs, new_tokens: int) -> list[list[int]]:
    """Answer each question with the pixels of the image."""
    return [answer(model, inputs, new_tokens) for inputs in asked]


def with_features(model: Any, asked: Inputs, new_tokens: int) -> list[list[int]]:
    """Answer with image features that are computed once."""
    features = model.get_image_features(asked[0]["pixel_values"]).pooler_output
    texts = [{name: each[name] for name in ("input_ids", "attention_mask")} for each in asked]
    return [answer(model, text | {"image_features": features}, new_tokens) for text in texts]


def with_cache(model: Any, asked: Inputs, new_tokens: int) -> list[list[int]]:
    """Answer with a cache of everything up to the end of the image, which is computed once."""
    first = asked[0]
    end = int((first["input_ids"][0] == model.config.image_token_id).nonzero().max()) + 1
    cache = DynamicCache(config=model.config)
    model(input_ids=first["input_ids"][:, :end], pixel_values=first["pixel_values"], past_key_values=cache)
    return [
        answer(model, {**inputs, "past_key_values": copy.deepcopy(cache)}, new_tokens) for inputs in asked
    ]


WAYS: dict[str, Way] = {
    "pixels with every question": with_pixels,
    "image features computed once": with_features,
    "shared cache up to the image": with_cache,
}


@torch.inference_mode()
def compare(model: Any, asked: Inputs, new_tokens: int, repeats: int) -> dict[str, float]:
    """Returns the median seconds of each way for all questions. Raises ValueError if their answers differ."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    expected = with_pixels(model, asked, new_tokens)
    for _ in range(repeats):
        for name, way in WAYS.items():
            start = time.perf_counter()
            found = way(model, asked, new_tokens)
            seconds[name].append(time.perf_counter() - start)
            if found != expected:
                raise ValueError(f"{name}: the answers differ from those with pixels")
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--model", type=Path, default=embedded_checkpoint())
    options = parser.parse_args()
    model, processor = load_checkpoint(options.model)
    asked = questions(processor, options.questions)
    for what, new_tokens in (("the first token", 1), ("whole answers", options.max_new_tokens)):
        seconds = compare(model, asked, new_tokens, options.repeats)
        ordinary = seconds["pixels with every question"]
        print(f"{options.questions} questions about one image, {what}")
        for name, value in seconds.items():
            print(f"  {name}: {value:.3f} s, {ordinary / value:.2f} times as fast as with pixels")


if __name__ == "__main__":
    main()
