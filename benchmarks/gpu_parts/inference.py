"""Prefill and decode at the true size, with pixels and with image features computed before."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from PIL import Image

from .flops import vision_flops
from .measure import Lazy, Part, PeakMemory, matmul_peak, seconds
from .models import config, make_model, make_processor

BATCHES = (1, 8, 32)
QUESTION = "Where is the left kidney in this image?"


class Asked:
    """A model, and the inputs of one question about one image."""

    def __init__(self, part: Part):
        size = "tiny" if part.tiny else "full"
        processor = make_processor(size)
        self.part = part
        self.config = config(size, processor.image_token_id)
        self.model = make_model(self.config, part.device, torch.bfloat16)
        content = [
            {"type": "image", "image": Image.radial_gradient("L")},
            {"type": "text", "text": QUESTION},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
        self.input_ids = inputs["input_ids"].to(part.device)
        self.pixel_values = inputs["pixel_values"].to(part.device, torch.bfloat16)

    def inputs(self, source: str, batch: int) -> dict[str, torch.Tensor]:
        """The question as many times as `batch`, with `pixel_values` or `image_features`."""
        pixels = self.pixel_values.repeat(batch, 1, 1, 1)
        ids = self.input_ids.repeat(batch, 1)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if source == "pixel_values":
            return given | {"pixel_values": pixels}
        with torch.no_grad():
            return given | {
                "image_features": torch.stack(self.model.get_image_features(pixels).pooler_output)
            }


def measure_generation(lazy: Lazy[Asked], source: str, batch: int) -> dict[str, Any]:
    """Tokens per second of the prompt, and of the answer behind it."""
    asked = lazy.get()
    device, tiny = asked.part.device, asked.part.tiny
    inputs, tokens = asked.inputs(source, batch), 4 if tiny else 64
    repeats = 1 if tiny else 3

    @torch.no_grad()
    def generate(count: int) -> None:
        length = {"min_new_tokens": count, "max_new_tokens": count}
        asked.model.generate(**inputs, **length, do_sample=False, pad_token_id=0)

    @torch.no_grad()
    def prefill() -> None:
        asked.model(**inputs, use_cache=True, logits_to_keep=1)

    with PeakMemory(device) as memory:
        prompt = seconds(prefill, device, repeats)
        first = seconds(partial(generate, 1), device, repeats, warmup=1)
        whole = seconds(partial(generate, 1 + tokens), device, repeats, warmup=1)
    return {
        "prompt_tokens": inputs["input_ids"].shape[1],
        "new_tokens": tokens,
        "prefill_seconds": prompt,
        "prefill_tokens_per_second": inputs["input_ids"].numel() / prompt,
        "decode_seconds_per_step": (whole - first) / tokens,
        "decode_tokens_per_second": batch * tokens / (whole - first),
        "answers_per_second": batch / whole,
        "peak_memory_bytes": memory.bytes,
    }


def measure_tower(lazy: Lazy[Asked], batch: int, peak: float | None) -> dict[str, Any]:
    """The vision tower alone, and with the resampler and the projector behind it."""
    asked = lazy.get()
    device, repeats = asked.part.device, 1 if asked.part.tiny else 5
    pixels = asked.pixel_values.repeat(batch, 1, 1, 1)

    @torch.no_grad()
    def tower() -> None:
        asked.model.model.vision_tower(pixels)

    @torch.no_grad()
    def features() -> None:
        asked.model.get_image_features(pixels)

    with PeakMemory(device) as memory:
        alone, whole = seconds(tower, device, repeats), seconds(features, device, repeats)
    return {
        "tower_seconds": alone,
        "image_features_seconds": whole,
        "images_per_second": batch / whole,
        "tower_share_of_matmul_peak": vision_flops(asked.config, batch) / alone / peak if peak else None,
        "peak_memory_bytes": memory.bytes,
    }


def measure_model(lazy: Lazy[Asked]) -> dict[str, Any]:
    """What there is to run: parameters and their bytes."""
    asked = lazy.get()
    parameters = list(asked.model.parameters())
    return {
        "parameters": sum(value.numel() for value in parameters),
        "bytes": sum(value.numel() * value.element_size() for value in parameters),
        "tower_parameters": sum(value.numel() for value in asked.model.model.vision_tower.parameters()),
    }


def run(part: Part) -> None:
    peak = part.measure("matmul_peak", partial(matmul_peak, part)).get("flops_per_second")
    asked = Lazy(partial(Asked, part))
    part.measure("model", partial(measure_model, asked))
    for batch in BATCHES:
        part.measure(f"vision_tower_batch_{batch}", partial(measure_tower, asked, batch, peak))
        for source in ("pixel_values", "image_features"):
            part.measure(
                f"{source}_batch_{batch}",
                partial(measure_generation, asked, source, batch),
            )
