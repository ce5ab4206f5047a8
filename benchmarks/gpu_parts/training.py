"""A training step at the true size, as the paper freezes: packed rows beside one turn a row padded to 2048."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model

from bird_hf.hub.packed_attention import PADDING

from .flops import Step, training_flops
from .measure import Lazy, Part, PeakMemory, matmul_peak, seconds, timed
from .models import (
    ORIGINAL_LENGTH,
    TURNS,
    Batch,
    config,
    loss_of,
    make_batch,
    make_model,
    make_processor,
    make_rows,
    one_turn_rows,
)

GLOBAL_PAIRS = 128  # BiRD 4.2: global batch
PAPER_PAIRS = 2 * 240_000  # BiRD 4.2: Med-GRIT-240k; two epochs by the authors' script
LORA_RANK = 64
ROWS = 12  # of a micro-batch of packed rows: about as many tokens as 4 rows padded to 2048
PACKED_LENGTHS = (2048, 4096, 8192)  # of sequences of rows packed across images
TINY_PACKED_LENGTHS = (1024,)
_LINEAR = r".*language_model\.layers\.\d+\..*(q|k|v|o|gate|up|down)_proj"

Optimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


class Trained:
    """A model in training, its optimizer, and batches of each way of laying out the same rows."""

    def __init__(self, part: Part, lora: bool, optimizer: Optimizer):
        self.part, self.lora = part, lora
        processor = make_processor("tiny" if part.tiny else "full")
        self.config = config("tiny" if part.tiny else "full", processor.image_token_id)
        self.model = make_model(self.config, part.device, torch.bfloat16)
        self.model.model.freeze_vision()
        if lora:
            self._add_lora()
        self.model.train()
        self.model.model.vision_tower.eval()
        self.trainable = [value for value in self.model.parameters() if value.requires_grad]
        self.optimizer = optimizer(self.trainable)
        rows = make_rows(2 if part.tiny else ROWS)
        few = one_turn_rows(rows)[: 2 if part.tiny else 4]  # the authors' script: 4 a device
        original = 192 if part.tiny else ORIGINAL_LENGTH
        make = partial(make_batch, processor=processor, config=self.config)
        self.batches = {"packed": make(rows), "original": make(few, length=original)}
        for length in TINY_PACKED_LENGTHS if part.tiny else PACKED_LENGTHS:
            self.batches[f"across_{length}"] = make(rows, pack_to=length)

    def _add_lora(self) -> None:
        self.model.model.language_model.requires_grad_(False)
        self.model.lm_head.requires_grad_(False)
        settings = LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=_LINEAR)
        inject_adapter_in_model(settings, self.model)
        self.model.model.resampler.requires_grad_(True)  # peft has frozen all but its own

    def checkpointing(self, on: bool) -> None:
        if on:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            self.model.gradient_checkpointing_disable()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def measure_step(
    lazy: Lazy[Trained], rows: str, attention: str, checkpointing: bool, peak: float | None
) -> dict[str, Any]:
    """Time a micro-batch forward and backward, and an update; pairs per second at the paper's global batch."""
    trained = lazy.get()
    device, model = trained.part.device, trained.model
    model.set_attn_implementation(attention)
    trained.checkpointing(checkpointing)
    batch = trained.batches[rows].to(device)
    losses: list[float] = []

    def forward_backward() -> None:
        loss = loss_of(model, batch, is_causal=rows == "original")
        loss.backward()
        losses.append(loss.detach())

    try:
        with PeakMemory(device) as memory:
            forward_backward()
            trained.update()  # the states of the optimizer come into being here
            micro = seconds(forward_backward, device, repeats=1 if trained.part.tiny else 4, warmup=1)
            update = timed(trained.update, device)
    finally:
        trained.optimizer.zero_grad()
    return _figures(trained, batch, micro, update, peak) | {
        "attention": attention,
        "gradient_checkpointing": checkpointing,
        "peak_memory_bytes": memory.bytes,
        "first_loss": float(losses[0]),
        "last_loss": float(losses[-1]),
    }


def _figures(
    trained: Trained, batch: Batch, micro: float, update: float, peak: float | None
) -> dict[str, Any]:
    """Rates of a whole step of the paper: its micro-batches one after the other, and one update."""
    steps = GLOBAL_PAIRS / batch.pairs
    took = steps * micro + update
    work = Step(len(batch.pixel_values), batch.tokens, batch.supervised, batch.visible)
    flops = training_flops(trained.config, work, LORA_RANK if trained.lora else None)
    return {
        "microbatch": {
            "rows": len(batch.pixel_values),
            "sequences": len(batch.input_ids),
            "length": batch.input_ids.shape[1],
            "pairs": batch.pairs,
            "supervised_tokens": batch.supervised,
            "padding_share": float((batch.turn_ids == PADDING).float().mean()),
            "seconds": micro,
            "flops": flops,
        },
        "optimizer_seconds": update,
        "pairs_per_second": GLOBAL_PAIRS / took,
        "hours_of_the_papers_run": PAPER_PAIRS / GLOBAL_PAIRS * took / 3600,
        "tokens_per_second": steps * batch.tokens / took,
        "mfu": flops / micro / peak if peak else None,
        "trainable_parameters": sum(value.numel() for value in trained.trainable),
    }


def adamw(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW whose states are bf16, as its parameters are. Fused: no copies of them while it steps."""
    return torch.optim.AdamW(parameters, lr=2e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def adamw_8bit(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, lr=2e-5, betas=(0.9, 0.95), weight_decay=0.1)


def run(part: Part) -> None:
    peak = part.measure("matmul_peak", partial(matmul_peak, part)).get("flops_per_second")
    ways = {
        "packed_sdpa": ("packed", "sdpa", True),
        "original": ("original", "sdpa", True),
        "packed_flex": ("packed", "flex_attention", True),
        "packed_sdpa_without_checkpointing": ("packed", "sdpa", False),
    }
    for length in TINY_PACKED_LENGTHS if part.tiny else PACKED_LENGTHS:
        for name, attention in (("flex", "flex_attention"), ("sdpa", "sdpa")):
            ways[f"across_{length}_{name}"] = (f"across_{length}", attention, True)
    settings = {"lora": (True, adamw), "full": (False, adamw), "full_8bit": (False, adamw_8bit)}
    for setting, (lora, optimizer) in settings.items():
        trained = Lazy(partial(Trained, part, lora, optimizer))
        for way, (rows, attention, checkpointing) in ways.items():
            name = f"{setting}_{way}"
            if setting == "full_8bit" and (find_spec("bitsandbytes") is None or part.device.type != "cuda"):
                part.skip(name, "bitsandbytes is not installed, or there is no CUDA")
            elif attention == "flex_attention" and part.device.type != "cuda":
                part.skip(name, "flex attention has no backward pass on a CPU")
            else:
                part.measure(name, partial(measure_step, trained, rows, attention, checkpointing, peak))
        trained.drop()
    part.document["settings"] = {
        "turns_per_image": TURNS,
        "across_N": "rows packed across images into sequences of up to N tokens; packed: one row a sequence",
        "global_pairs": GLOBAL_PAIRS,
        "lora_rank": LORA_RANK,
        "rates": "of a step of global_pairs: its micro-batches one after the other and one update",
        "mfu": "of a micro-batch forward and backward, without what checkpointing repeats, over matmul_peak",
    }
    part.document["times_faster_than_original"] = {
        f"{setting}_{way}": ratio
        for setting in settings
        for way in ways
        if way != "original" and (ratio := _ratio(part, setting, way)) is not None
    }


def _ratio(part: Part, setting: str, way: str) -> float | None:
    """Pairs per second over those of the original's way."""
    found, original = (part.cases.get(f"{setting}_{name}", {}) for name in (way, "original"))
    if "pairs_per_second" not in found or "pairs_per_second" not in original:
        return None
    return found["pairs_per_second"] / original["pairs_per_second"]
