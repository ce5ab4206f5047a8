"""Memory of ways of training that `training.py` does not measure, for comparison with `bird train --plan`.

float32 weights under bf16 autocast, as `bird train` has them without an engine, do not fit one GPU of 80 GB at the true
depth, so they are measured at the true width with fewer decoder layers. LoRA is that of recipes/lora.yaml on bf16
weights, with float32 adapters as PEFT makes them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model

from .measure import Lazy, Part, PeakMemory
from .models import Batch, config, loss_of, make_batch, make_model, make_processor, make_rows

LAYERS = 8  # of 32
RANK = 16
ATTENTION = r".*language_model.*\.(q|k|v|o)_proj"
BATCH = 4  # rows of five turns


class Trained:
    """A model in training under autocast with AdamW, and a micro-batch."""

    def __init__(self, part: Part, lora: bool):
        size = "tiny" if part.tiny else "full"
        processor = make_processor(size)
        self.device, self.lora = part.device, lora
        self.config = config(size, processor.image_token_id)
        if not lora and not part.tiny:
            self.config.text_config.num_hidden_layers = LAYERS
        self.model = make_model(self.config, part.device, torch.bfloat16 if lora else torch.float32)
        self.model.model.freeze_vision()
        if lora:
            self.model.requires_grad_(False)
            inject_adapter_in_model(LoraConfig(r=RANK, target_modules=ATTENTION), self.model)
            for value in self.trainable:
                value.data = value.data.float()
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.trainable, lr=2e-5, fused=True)
        self.batch: Batch = make_batch(make_rows(BATCH), processor, self.config).to(part.device)

    @property
    def trainable(self) -> list[torch.nn.Parameter]:
        return [value for value in self.model.parameters() if value.requires_grad]


def measure(lazy: Lazy[Trained], checkpointing: bool) -> dict[str, Any]:
    trained = lazy.get()
    model, batch = trained.model, trained.batch
    model.set_attn_implementation("sdpa")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()
    with PeakMemory(trained.device) as memory:
        for _ in range(2):  # gradients and states are there in the second step
            with torch.autocast(trained.device.type, dtype=torch.bfloat16):
                loss = loss_of(model, batch)
            loss.backward()
            trained.optimizer.step()
    trained.optimizer.zero_grad()
    return {
        "layers": trained.config.text_config.num_hidden_layers,
        "rows": len(batch.input_ids),
        "length": batch.input_ids.shape[1],
        "supervised_tokens": batch.supervised,
        "gradient_checkpointing": checkpointing,
        "parameters": sum(value.numel() for value in model.parameters()),
        "trainable_parameters": sum(value.numel() for value in trained.trainable),
        "peak_memory_bytes": memory.bytes,
    }


def run(part: Part) -> None:
    for name, lora in (("float32_autocast", False), ("lora_attention", True)):
        trained = Lazy(partial(Trained, part, lora))
        for checkpointing in (True, False):
            ending = "" if checkpointing else "_without_checkpointing"
            part.measure(f"{name}{ending}", partial(measure, trained, checkpointing))
        trained.drop()
    part.document["settings"] = {"layers_of_float32": LAYERS, "lora_rank": RANK, "rows": BATCH}
