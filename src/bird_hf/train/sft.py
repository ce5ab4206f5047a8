"""Supervised fine-tuning of a BiRD checkpoint with TRL's `SFTTrainer`: the paper's training, whole or with LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from datasets import Dataset, IterableDataset, load_dataset
from transformers import Trainer, set_seed
from trl import ModelConfig, ScriptArguments, get_peft_config, get_quantization_config

from ..checkpoint.load import check_folder, find_checkpoint, load_processor
from ..extras import missing_extra
from ..hub.modeling_bird import BirdForConditionalGeneration, BirdModel
from ..hub.packed_attention import BLOCK
from ..hub.processing_bird import BirdProcessor
from . import segment_attention
from .bad_loss import FiniteGradients
from .cached_tower import CachedTower
from .checkpoints import last_whole_checkpoint
from .collate import IGNORED, GroundingCollator
from .held_out import ScoredTrainer, callbacks_of, evaluation_of
from .label_names import add_label_names
from .mixture import balanced_places
from .packed_trainer import packed_steps
from .packing import PackedSteps
from .recipe import BirdSFTConfig, Recipe
from .resuming import FINAL
from .row_lengths import measured_rows
from .saving import save_for_use
from .streaming import streamed_rows
from .whole_checkpoints import WholeCheckpoints


class BirdSFTTrainer(WholeCheckpoints, FiniteGradients, ScoredTrainer):
    """TRL's `SFTTrainer` for batches of `GroundingCollator`; the loss is TRL's.

    A checkpoint counts only once it is whole (see `checkpoints`), and a loss that is not finite stops the run. The log
    holds what `MeasuredTrainer` and `ScoredTrainer` measure.
    """

    args: BirdSFTConfig
    cached_tower: CachedTower | None = None
    _total_train_tokens: int

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for module in self.model.modules():
            if isinstance(module, BirdModel):
                module.reads_blank_images = self.accelerator.num_processes > 1

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, with the head at supervised positions only, which TRL's own has on GPUs but not on CPUs.

        `num_tokens` is counted here: TRL sums the attention mask, or takes padding for tokens.
        """
        tokens_before = self._total_train_tokens
        if self.cached_tower is not None:
            inputs = self.cached_tower.replace_pixels(inputs)
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
    model, processor = load_model(recipe.model, attention_of(recipe, recipe.training.pack_rows))
    if args.freeze_vision:
        model.freeze_vision()
    add_label_names(model.config, processor, train_dataset)
    collator = GroundingCollator(processor, **collator_options(args))
    train_dataset, steps = prepared_rows(train_dataset, collator, args)
    trainer = BirdSFTTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        data_collator=collator,
        processing_class=processor,
        callbacks=[*callbacks, *callbacks_of(args)],
        peft_config=get_peft_config(recipe.model),
        **evaluation_of(args, eval_dataset, collator),
        packed_steps=steps,
    )
    if args.cache_image_features is not None:
        trainer.cached_tower = CachedTower.of(trainer, train_dataset, eval_dataset)
    return trainer


def attention_of(recipe: Recipe, packs_rows: bool = False) -> str | dict[str, str] | None:
    """The recipe's implementation of attention; for the language model alone, on a CPU, that of segments.

    If the recipe leaves it open, packed rows have flex attention on CUDA, and all rows have segments on a CPU.
    Raises ValueError for flex attention on a CPU, where it has no backward pass, and for segments elsewhere.
    """
    name, device = recipe.model.attn_implementation, recipe.training.device.type
    if name == "flex_attention" and device == "cpu":
        raise ValueError(
            "flex_attention cannot be trained on a CPU; leave attn_implementation out, or set it to sdpa"
        )
    if name == segment_attention.NAME and device != "cpu":
        raise ValueError(f"{name} attention is for CPUs; leave attn_implementation out")
    if device == "cpu" and name in (None, segment_attention.NAME):
        segment_attention.register()
        return {"text_config": segment_attention.NAME}
    return "flex_attention" if name is None and device == "cuda" and packs_rows else name


def collator_options(args: BirdSFTConfig) -> dict[str, Any]:
    """What a recipe says to `GroundingCollator`."""
    return {
        "max_length": args.max_length,
        "max_turns": args.max_turns,
        "too_long": args.too_long,
        "needs_image": not args.text_only,
        "images_dir": None if args.images_dir is None else Path(args.images_dir),
        "multiple": BLOCK if args.pack_rows and args.device.type == "cuda" else 1,
        "with_image_keys": args.cache_image_features is not None,
    }


def prepared_rows(
    dataset: Dataset, collator: GroundingCollator, args: BirdSFTConfig
) -> tuple[Dataset, PackedSteps | None]:
    """The rows that can be trained, and the steps that pack them if the recipe says so; streamed rows never are."""
    if isinstance(dataset, IterableDataset):
        return streamed_rows(dataset, collator, args), None
    with args.main_process_first(desc="counting the tokens of rows"):
        dataset, lengths = measured_rows(dataset, collator, args.dataset_num_proc)
    if args.balance_by is not None:
        places = balanced_places(dataset, args.balance_by)
        dataset, lengths = dataset.select(places), lengths.select(places.tolist())
    return dataset, packed_steps(args, lengths)


def load_model(
    config: ModelConfig, attention: str | dict[str, str] | None = None
) -> tuple[BirdForConditionalGeneration, BirdProcessor]:
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
    _check_bits(config)
    model, report = BirdForConditionalGeneration.from_pretrained(
        folder,
        dtype=config.dtype,
        attn_implementation=attention or config.attn_implementation,
        quantization_config=get_quantization_config(config),
        output_loading_info=True,
    )
    if report["missing_keys"]:
        count, first = len(report["missing_keys"]), min(report["missing_keys"])
        raise ValueError(
            f"{folder}: {count} tensors of the weights are missing, such as {first}; copy it again"
        )
    return model, load_processor(folder)


def _check_bits(config: ModelConfig) -> None:
    """Raises ValueError if weights of 4 or 8 bits are to be trained themselves, or bitsandbytes is not installed."""
    if not (config.load_in_4bit or config.load_in_8bit):
        return
    field = "load_in_4bit" if config.load_in_4bit else "load_in_8bit"
    if not config.use_peft:
        raise ValueError(f"{field} freezes the weights, so there is nothing to train; set use_peft: true")
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"{field} needs bitsandbytes; {missing_extra('quantized')}")


def load_split(script: ScriptArguments, split: str) -> Dataset:
    """The rows of one split of the dataset that a recipe names."""
    if not script.dataset_name:
        raise ValueError(
            "the recipe sets no dataset_name; set it to a Med-GRIT folder or a hub repository, or set datasets"
        )
    return load_dataset(
        script.dataset_name, script.dataset_config, split=split, streaming=script.dataset_streaming
    )


def train(trainer: Trainer) -> Path:
    """Train, resuming from the last whole checkpoint if there is one; returns the folder of the trained model."""
    output = Path(trainer.args.output_dir)
    checkpoint = last_whole_checkpoint(output)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return save_for_use(trainer, output / FINAL)
