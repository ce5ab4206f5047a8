"""Supervised fine-tuning of a BiRD checkpoint with TRL's `SFTTrainer`: the paper's training, whole or with LoRA."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from transformers import set_seed
from transformers.trainer_utils import rotate_checkpoints
from trl import ModelConfig, ScriptArguments, SFTTrainer, get_peft_config, get_quantization_config

from ..checkpoint.load import check_folder, find_checkpoint, load_processor
from ..hub.modeling_bird import BirdForConditionalGeneration, BirdModel
from ..hub.processing_bird import BirdProcessor
from .bad_loss import ROW_NAMES, NamingCollator, keep_batch
from .checkpoints import WRITE_ERRORS, checkpoint_folder, last_whole_checkpoint, write_manifest
from .collate import GroundingCollator
from .label_names import add_label_names
from .recipe import BirdSFTConfig, Recipe
from .resuming import FINAL
from .saving import on_main_process, save_for_use
from .sharding import gather_head


class BirdSFTTrainer(SFTTrainer):
    """TRL's `SFTTrainer` for batches of `GroundingCollator`; the loss is TRL's.

    A checkpoint counts only once it is whole (see `checkpoints`), and a loss that is not finite stops the run.
    """

    args: BirdSFTConfig
    data_collator: Any
    _total_train_tokens: int

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for module in self.model.modules():
            if isinstance(module, BirdModel):
                module.reads_blank_images = self.accelerator.num_processes > 1

    def get_train_dataloader(self) -> Any:
        collator = self.data_collator
        self.data_collator = NamingCollator(collator)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """TRL's step. Raises ValueError if the loss of any process is not finite, before the weights are changed."""
        names = inputs.pop(ROW_NAMES, [])
        gather_head(self.accelerator.unwrap_model(model))
        loss = super().training_step(model, inputs, *args, **kwargs)
        is_finite = torch.isfinite(loss).all()
        if self.accelerator.gather(is_finite.reshape(1)).all():
            return loss
        step = self.state.global_step + 1
        if is_finite:
            raise ValueError(f"the loss of another process is not finite at step {step}; the run stops")
        output = Path(self.args.output_dir)
        folder = keep_batch(output, step, self.accelerator.process_index, loss.item(), inputs, names)
        raise ValueError(
            f"the loss is {loss.item()} at step {step} (rows {', '.join(names)}); no weight was changed by it, and the "
            f"batch is kept in {folder}: docs/train_on_gpus.md says how to open it"
        )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As in `Trainer`, which takes one more step when it resumes from a checkpoint of the last step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in `Trainer`; older checkpoints are removed only once this one is whole.

        Raises ValueError if it cannot be written.
        """
        folder = checkpoint_folder(self.args.output_dir, self.state.global_step)
        failure = (
            f"{folder} cannot be written, and earlier checkpoints stay; make room, then run the same command"
        )
        on_main_process(self, lambda: shutil.rmtree(folder, ignore_errors=True), failure)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        except WRITE_ERRORS as error:
            if self.accelerator.is_main_process:
                shutil.rmtree(folder, ignore_errors=True)  # what a full disk needs first
            raise ValueError(f"{failure} ({' '.join(str(error).split())[:200]})") from error
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        on_main_process(self, lambda: self._finish_checkpoint(folder), failure)

    def _finish_checkpoint(self, folder: Path) -> None:
        """What the main process does once all others have written their files."""
        write_manifest(folder)
        best = self.state.best_model_checkpoint
        rotate_checkpoints(self.args.output_dir, self.args.save_total_limit, best, use_mtime=True)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss. `num_tokens` is counted here: TRL sums the attention mask, which has a row per token here."""
        tokens_before = self._total_train_tokens
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.model.training:
            tokens = (inputs["input_ids"] != self.processing_class.tokenizer.pad_token_id).sum()
            self._total_train_tokens = (
                tokens_before + self.accelerator.gather_for_metrics(tokens).sum().item()
            )
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss


def build_trainer(
    recipe: Recipe, train_dataset: Dataset, eval_dataset: Dataset | None = None, callbacks: Sequence[Any] = ()
) -> BirdSFTTrainer:
    """A trainer for a recipe that starts from a checkpoint."""
    args = recipe.training
    set_seed(args.seed)
    model, processor = load_model(recipe.model)
    if args.freeze_vision:
        model.freeze_vision()
    add_label_names(model.config, processor, train_dataset)
    return BirdSFTTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        data_collator=GroundingCollator(processor, args.max_length, args.max_turns),
        processing_class=processor,
        callbacks=list(callbacks),
        peft_config=get_peft_config(recipe.model),
    )


def load_model(config: ModelConfig) -> tuple[BirdForConditionalGeneration, BirdProcessor]:
    """Load the checkpoint that a recipe names.

    Raises ValueError if it names none, one that cannot be found, or one of another architecture.
    """
    name = config.model_name_or_path
    if not name:
        raise ValueError(
            "the recipe sets neither `model_name_or_path` (a checkpoint) nor `new_model` (sizes of a new model); "
            "set one of them"
        )
    is_path = "/" in name and Path(name).parent.is_dir()  # in a folder that exists, so no repository is meant
    folder = Path(name) if is_path else find_checkpoint(name, config.model_revision)
    if not folder.is_dir():
        raise ValueError(
            f"model_name_or_path {name} is neither a checkpoint folder (there is none of this name) nor the OWNER/NAME "
            "of a hub repository; `bird quickstart` writes the folder bird, `bird convert` converts Qwen-VL"
        )
    check_folder(folder)
    model, report = BirdForConditionalGeneration.from_pretrained(
        folder,
        dtype=config.dtype,
        attn_implementation=config.attn_implementation,
        quantization_config=get_quantization_config(config),
        output_loading_info=True,
    )
    if report["missing_keys"]:
        count, first = len(report["missing_keys"]), min(report["missing_keys"])
        raise ValueError(
            f"{folder}: {count} tensors of the weights are missing, such as {first}; copy it again"
        )
    return model, load_processor(folder)


def load_split(script: ScriptArguments, split: str) -> Dataset:
    """The rows of one split of the dataset that a recipe names."""
    if not script.dataset_name:
        raise ValueError("the recipe sets no dataset_name; set it to a Med-GRIT folder or a hub repository")
    return load_dataset(
        script.dataset_name, script.dataset_config, split=split, streaming=script.dataset_streaming
    )


def train(trainer: BirdSFTTrainer) -> Path:
    """Train, resuming from the last whole checkpoint if there is one; returns the folder of the trained model."""
    output = Path(trainer.args.output_dir)
    checkpoint = last_whole_checkpoint(output)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return save_for_use(trainer, output / FINAL)
