"""What torch.compile brings: the decoder in training at fixed shapes, the tower, and the decode step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from .inference import Asked
from .measure import Lazy, Part, free_memory, seconds, timed
from .models import config, loss_of, make_batch, make_model, make_processor, make_rows

ROWS = 6  # without gradient checkpointing, which would be a second thing to compile
_BATCH = 8  # of the tower and of decoding


def compile_each(modules: nn.ModuleList, tiny: bool) -> None:
    """Compile a stack of equal layers: one graph serves all of them."""
    for module in modules:
        module.compile(backend="aot_eager" if tiny else "inductor")


def speedup(run: Callable[[], Any], compile_it: Callable[[], None], part: Part) -> dict[str, Any]:
    """Seconds of a run before and after compilation, and what the first compiled run took."""
    repeats = 1 if part.tiny else 5
    eager = seconds(run, part.device, repeats)
    compile_it()
    first = timed(run, part.device)
    compiled = seconds(run, part.device, repeats, warmup=1)
    return {
        "eager_seconds": eager,
        "compiled_seconds": compiled,
        "speedup": eager / compiled,
        "compile_seconds": first - compiled,
    }


def training_case(part: Part, attention: str) -> dict[str, Any]:
    """Forward and backward of packed rows, all of the language model and the resampler trained; no update."""
    size = "tiny" if part.tiny else "full"
    processor = make_processor(size)
    sizes = config(size, processor.image_token_id)
    batch = make_batch(make_rows(2 if part.tiny else ROWS), processor, sizes).to(part.device)
    model = make_model(sizes, part.device, torch.bfloat16)
    model.model.freeze_vision()
    model.set_attn_implementation(attention)

    def forward_backward() -> None:
        loss_of(model, batch).backward()
        model.zero_grad()

    model.train()
    layers = model.model.language_model.layers
    found = speedup(forward_backward, lambda: compile_each(layers, part.tiny), part)
    return found | {"rows": ROWS, "length": batch.input_ids.shape[1], "attention": attention}


def tower_case(part: Part, lazy: Lazy[Asked]) -> dict[str, Any]:
    """Images to features, block by block."""
    asked = lazy.get()
    pixels = asked.pixel_values.repeat(_BATCH, 1, 1, 1)

    @torch.no_grad()
    def features() -> None:
        asked.model.get_image_features(pixels)

    blocks = asked.model.model.vision_tower.blocks
    return speedup(features, lambda: compile_each(blocks, part.tiny), part) | {"batch": _BATCH}


def decode_case(part: Part, lazy: Lazy[Asked], batch: int) -> dict[str, Any]:
    """Decoding with a static cache, for which `generate` compiles the step; on a CPU it does not compile.

    A step takes what an answer takes, less the prompt, over its tokens. The length of the answer stays the same,
    because the static cache is as long as prompt and answer, and another length is compiled anew.
    """
    asked = lazy.get()
    torch.compiler.reset()  # another batch size would be compiled with dynamic shapes
    inputs, tokens = asked.inputs("image_features", batch), 4 if part.tiny else 64
    repeats = 1 if part.tiny else 3

    @torch.no_grad()
    def prefill() -> None:
        asked.model(**inputs, use_cache=True, logits_to_keep=1)

    @torch.no_grad()
    def generate(cache: str | None) -> None:
        length = {"min_new_tokens": 1 + tokens, "max_new_tokens": 1 + tokens}
        asked.model.generate(**inputs, **length, cache_implementation=cache, do_sample=False, pad_token_id=0)

    prompt = seconds(prefill, part.device, repeats)
    eager = seconds(partial(generate, None), part.device, repeats, warmup=1)
    first = timed(partial(generate, "static"), part.device)
    compiled = seconds(partial(generate, "static"), part.device, repeats)
    return {
        "batch": batch,
        "eager_seconds": (eager - prompt) / tokens,
        "compiled_seconds": (compiled - prompt) / tokens,
        "speedup": (eager - prompt) / (compiled - prompt),
        "compile_seconds": first - compiled,
        "tokens_per_second": batch * tokens / (compiled - prompt),
    }


def forget_compiled() -> None:
    """Free a model that compiled code keeps alive."""
    torch.compiler.reset()
    free_memory()


def run(part: Part) -> None:
    part.measure("training_sdpa", partial(training_case, part, "sdpa"))
    forget_compiled()
    if part.device.type == "cuda":
        part.measure("training_flex_attention", partial(training_case, part, "flex_attention"))
    else:
        part.skip("training_flex_attention", "flex attention has no backward pass on a CPU")
    forget_compiled()
    asked = Lazy(partial(Asked, part))
    for batch in (1, _BATCH):
        part.measure(f"decode_batch_{batch}", partial(decode_case, part, asked, batch))
    part.measure("image_features", partial(tower_case, part, asked))  # last: the blocks stay compiled
