"""TRL's `SFTTrainer` for the steps of `PackedSteps`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from .bad_loss import CheckedLossTrainer, NamingCollator
from .packing import PackedSteps, RowLengths, StepRows
from .recipe import BirdSFTConfig


class PackedTrainer(CheckedLossTrainer):
    """`SFTTrainer` whose batch is a whole step: a list of micro-batches, as many on every process.

    Their losses are sums over tokens, divided by the tokens of the step over all processes, so that the step is that of
    its rows, however they were packed.
    """

    def __init__(self, *args: Any, packed_steps: PackedSteps | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.packed_steps = packed_steps
        if packed_steps is not None:
            self.add_callback(_SetEpoch(packed_steps))

    def get_train_dataloader(self) -> DataLoader:
        if self.packed_steps is None:
            return super().get_train_dataloader()
        loader: DataLoader = DataLoader(
            StepRows(self.train_dataset),
            batch_sampler=self.packed_steps,
            collate_fn=NamingCollator(self.data_collator).collate_step,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        if self.packed_steps is None:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = next(epoch_iterator)
        _, tokens = super().get_batch_samples(iter(batches), len(batches), device)
        return [batches], tokens

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """The loss of a step, its gradients exchanged with those of other processes once."""
        if self.packed_steps is None:
            return super().training_step(model, inputs, num_items_in_batch)
        losses = []
        for number, batch in enumerate(inputs, start=1):
            is_last = number == len(inputs)
            self.accelerator.gradient_state._set_sync_gradients(is_last)
            exchanges = is_last or self.accelerator.distributed_type == DistributedType.DEEPSPEED
            with nullcontext() if exchanges else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, batch, num_items_in_batch))
        return torch.stack(losses).sum()


class _SetEpoch(TrainerCallback):
    """Tells `PackedSteps` the epoch, also of a run that is resumed."""

    def __init__(self, steps: PackedSteps):
        self.steps = steps

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.set_epoch(state.global_step // (len(self.steps) // self.steps.processes))


def packed_steps(args: BirdSFTConfig, lengths: RowLengths) -> PackedSteps | None:
    """The steps of a recipe, or None if it does not pack rows."""
    if not args.pack_rows:
        return None
    assert args.max_length is not None and args.global_batch_size is not None
    return PackedSteps(
        lengths,
        args.max_length,
        args.global_batch_size,
        args.global_batch_unit,
        args.per_device_train_batch_size,
        args.world_size,
        args.max_turns,
        args.seed if args.data_seed is None else args.data_seed,
    )
