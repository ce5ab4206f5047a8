"""How a run is spread over processes: DDP, DeepSpeed's ZeRO, or FSDP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config


def zero_stage(args: TrainingArguments) -> int:
    """The ZeRO stage of a run under DeepSpeed; 0 without DeepSpeed."""
    plugin = args.deepspeed_plugin
    return 0 if plugin is None else int(plugin.hf_ds_config.get_value("zero_optimization.stage", 0))


def sharding_of(args: TrainingArguments) -> str:
    """`zero1` to `zero3`, `fsdp`, or `none`: what decides which files the checkpoints of a run consist of."""
    if args.deepspeed_plugin is not None:
        return f"zero{zero_stage(args)}"
    uses_fsdp = args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return "fsdp" if uses_fsdp else "none"


def gather_head(model: PreTrainedModel) -> None:
    """Gather the head of a model that FSDP2 has sharded, before a step; the step's backward pass shards it again.

    accelerate (1.15) makes the head a unit that is gathered when it is called, but TRL's loss (1.16) does not call it,
    and multiplies with its weight: without this each process would keep the gradient of its own rows, not the mean.
    """
    head = model.get_output_embeddings()
    if isinstance(head, FSDPModule):
        head.unshard()


@contextmanager
def models_are_whole(args: TrainingArguments) -> Iterator[None]:
    """Models that are made inside are not sharded; under ZeRO-3 transformers shards each, with all processes."""
    if zero_stage(args) != 3:
        yield
        return
    config = getattr(args, "hf_deepspeed_config", None) or args.deepspeed_plugin.hf_ds_config
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(config)


def start_deepspeed_on_cpus(args: TrainingArguments) -> None:
    """Start DeepSpeed's process group with `use_cpu`, where accelerate starts torch's only.

    ZeRO-3 needs it to shard a model while it is loaded.
    """
    if args.deepspeed_plugin is not None and args.use_cpu and args.world_size > 1:
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo")
