"""Supervised fine-tuning of a BiRD checkpoint with TRL's `SFTTrainer`: the paper's training, whole or with LoRA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset, IterableDataset, load_dataset
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel, Trainer, set_seed
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import get_last_checkpoint
from trl import ModelConfig, ScriptArguments, get_peft_config, get_quantization_config

from ..hub.modeling_bird import BirdForConditionalGeneration
from ..hub.packed_attention import BLOCK
from ..hub.processing_bird import BirdProcessor
from .collate import IGNORED, GroundingCollator
from .label_names import add_label_names
from .packed_trainer import PackedTrainer, packed_steps
from .packing import PackedSteps
from .recipe import BirdSFTConfig, Recipe
from .row_lengths import measured_rows


class BirdSFTTrainer(PackedTrainer):
    """TRL's `SFTTrainer` for batches of `GroundingCollator`; the loss is TRL's."""

    args: BirdSFTConfig
    _total_train_tokens: int

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, with the head at supervised positions only, which TRL's own has on GPUs but not on CPUs.

        `num_tokens` is counted here: TRL sums the attention mask, or takes padding for tokens.
        """
        tokens_before = self._total_train_tokens
        given, labels = inputs, inputs["labels"][:, 1:]
        is_kept = labels != IGNORED
        needs_logits = return_outputs or self.compute_loss_func is not None or self.label_smoother is not None
        if not needs_logits and is_kept.any():
            given = inputs | {"labels": None, "shift_labels": labels[is_kept][None]}
            given["states_to_keep"] = F.pad(is_kept, (0, 1))
        loss = super().compute_loss(model, given, return_outputs, num_items_in_batch)
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
    model, processor = load_model(recipe.model, attention_of(recipe))
    if args.freeze_vision:
        model.freeze_vision()
    add_label_names(model.config, processor, train_dataset)
    collator = GroundingCollator(processor, **collator_options(args))
    train_dataset, steps = prepared_rows(train_dataset, collator, args)
    return BirdSFTTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        data_collator=collator,
        processing_class=processor,
        callbacks=list(callbacks),
        peft_config=get_peft_config(recipe.model),
        packed_steps=steps,
    )


def attention_of(recipe: Recipe) -> str | None:
    """The recipe's implementation of attention; packed rows have flex attention on CUDA unless it says otherwise.

    Raises ValueError for flex attention on a CPU, where it has no backward pass.
    """
    name, is_cuda = recipe.model.attn_implementation, recipe.training.device.type == "cuda"
    if name == "flex_attention" and recipe.training.device.type == "cpu":
        raise ValueError("flex_attention cannot be trained on a CPU; set attn_implementation to sdpa")
    return "flex_attention" if name is None and is_cuda and recipe.training.pack_rows else name


def collator_options(args: BirdSFTConfig) -> dict[str, Any]:
    """What a recipe says to `GroundingCollator`."""
    return {
        "max_length": args.max_length,
        "max_turns": args.max_turns,
        "too_long": args.too_long,
        "needs_image": not args.text_only,
        "images_dir": None if args.images_dir is None else Path(args.images_dir),
        "multiple": BLOCK if args.pack_rows and args.device.type == "cuda" else 1,
    }


def prepared_rows(
    dataset: Dataset, collator: GroundingCollator, args: BirdSFTConfig
) -> tuple[Dataset, PackedSteps | None]:
    """The rows that can be trained, and the steps that pack them if the recipe says so. Streamed rows are not known."""
    if isinstance(dataset, IterableDataset):
        return dataset, None
    with args.main_process_first(desc="counting the tokens of rows"):
        dataset, lengths = measured_rows(dataset, collator, args.dataset_num_proc)
    return dataset, packed_steps(args, lengths)


def load_model(
    config: ModelConfig, attention: str | None = None
) -> tuple[BirdForConditionalGeneration, BirdProcessor]:
    """Load the checkpoint that a recipe names.

    Raises ValueError if it names none, or one that cannot be found.
    """
    name = config.model_name_or_path
    if not name:
        raise ValueError(
            "the recipe sets neither `model_name_or_path` (a checkpoint) nor `new_model` (sizes of a new model); "
            "set one of them"
        )
    try:
        model = BirdForConditionalGeneration.from_pretrained(
            name,
            revision=config.model_revision,
            dtype=config.dtype,
            attn_implementation=attention or config.attn_implementation,
            quantization_config=get_quantization_config(config),
        )
        return model, BirdProcessor.from_pretrained(name, revision=config.model_revision)
    except OSError as error:
        raise ValueError(
            f"model_name_or_path {name} is neither a checkpoint folder nor a hub repository that can be reached; "
            "`bird quickstart` writes the folder bird, `bird convert` converts Qwen-VL"
        ) from error


def load_split(script: ScriptArguments, split: str) -> Dataset:
    """The rows of one split of the dataset that a recipe names."""
    if not script.dataset_name:
        raise ValueError("the recipe sets no dataset_name; set it to a Med-GRIT folder or a hub repository")
    return load_dataset(
        script.dataset_name, script.dataset_config, split=split, streaming=script.dataset_streaming
    )


def train(trainer: Trainer) -> Path:
    """Train, resuming from the last checkpoint if there is one; returns the folder of the trained model."""
    output = Path(trainer.args.output_dir)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(output) if output.is_dir() else None)
    return save_for_use(trainer, output / "final")


def save_for_use(trainer: Trainer, folder: Path) -> Path:
    """Save the trained model in bf16, or its adapter, with the processor, ready for `from_pretrained`.

    `save_model` gathers what ZeRO-3 and FSDP have sharded. Raises ValueError if the saved files hold fewer parameters
    than the model.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    is_sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    if isinstance(model, PreTrainedModel) and not is_sharded:
        model.to(torch.bfloat16)
    vars(model.config).pop("use_cache", None)  # written by the trainer, for training only
    trainer.save_model(str(folder))
    if trainer.accelerator.is_main_process:
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle, which loading does not need
        _check_saved(folder, model)
        type(trainer.processing_class).from_pretrained(folder)
    return folder


def _check_saved(folder: Path, model: nn.Module) -> None:
    is_whole = isinstance(model, PreTrainedModel)
    trained = [value for value in model.parameters() if is_whole or value.requires_grad]
    wanted = sum(getattr(value, "ds_numel", value.numel()) for value in trained)  # ds_numel: ZeRO-3's shards
    saved = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as tensors:
            saved += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    if saved < wanted:
        raise ValueError(
            f"{folder} holds {saved:,} of {wanted:,} parameters; the last checkpoint beside it holds the rest"
        )
