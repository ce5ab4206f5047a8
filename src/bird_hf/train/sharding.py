"""How a run is spread over processes: DDP, DeepSpeed's ZeRO, or FSDP."""

from __future__ import annotations

import os

from transformers import TrainingArguments


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


def start_deepspeed_on_cpus(args: TrainingArguments) -> None:
    """Start DeepSpeed's process group with `use_cpu`, where accelerate starts torch's only.

    ZeRO-3 needs it to shard a model while it is loaded.
    """
    if args.deepspeed_plugin is not None and args.use_cpu and args.world_size > 1:
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo")
