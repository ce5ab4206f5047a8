"""Training with TRL's SFTTrainer: a trainer for a recipe, and a run.

The trainer is extended by what TRL offers: a collator, an optimizer, and `compute_loss` in a subclass.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import get_scheduler, set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTTrainer, TrlParser
from trl.trainer.utils import FusedCausalLMOutput

from ..data.embedded.training_set import render_training_set
from ..hub.modeling_bird import BirdForConditionalGeneration
from ..hub.processing_bird import BirdProcessor
from . import attention
from .collate import IGNORED, GroundingCollator
from .new_models import build_on, create_model
from .numbers import NumberLoss, number_ids
from .optimizers import muon_with_adamw
from .questions import kept_up_to, lower_layers, without_answers
from .recipe import BirdSFTConfig
from .slots import UNKNOWN, LookLoss, SlotHead, names_of

_TOKENIZER_ROWS = 4000  # more add no words
# What a batch tells besides the text and its images.
_AIDS = ("slot_classes", "slot_boxes", "slot_looks", "is_question", "asked_classes", "asked_boxes")

log = logging.getLogger(__name__)


class BirdSFTTrainer(SFTTrainer):
    """SFTTrainer with per-token loss weights and, if the recipe asks for it, Muon."""

    args: BirdSFTConfig
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: LRScheduler | None
    number_loss: NumberLoss | None = None
    look_loss: LookLoss | None = None

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        """The recipe's schedule; where slots or questions come first, one of its own for each stage.

        What a rate that stays high has learnt is seen only when it falls (docs/decisions.md).
        """
        stages = [self.args.slot_warmup_steps, self.args.question_warmup_steps]
        if not any(stages) or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        stages.append(num_training_steps - sum(stages))
        begins = [sum(stages[:number]) for number in range(len(stages))]
        rates = [self._rates(steps) for steps in stages]

        def rate(step: int) -> float:
            stage = bisect_right(begins, step) - 1
            return rates[stage](step - begins[stage])

        self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, rate)
        return self.lr_scheduler

    def _rates(self, steps: int) -> Callable[[int], float]:
        """What the recipe's schedule multiplies rates by, for so many steps."""
        schedule = get_scheduler(
            self.args.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1)], lr=1.0),
            num_warmup_steps=self.args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=self.args.lr_scheduler_kwargs,
        )
        return schedule.lr_lambdas[0]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.args.muon_learning_rate is None or self.optimizer is not None:
            return super().create_optimizer(model)
        self.optimizer = muon_with_adamw(
            self.model if model is None else model,
            muon_lr=self.args.muon_learning_rate,
            adamw_lr=self.args.learning_rate,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            weight_decay=self.args.weight_decay,
            muon_parts=self.args.muon_parts,
        )
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted negative log-likelihood of the answers' tokens, divided by their number.

        Dividing by the number of tokens, not by the sum of weights, keeps accumulation exact: a batch of four
        is four batches of one.
        """
        weights = inputs.pop("loss_weights")[: self.args.answer_rows, 1:]
        aids = {name: inputs.pop(name) for name in _AIDS if name in inputs}
        step = self.state.global_step if self.model.training else math.inf
        if step < self.args.slot_warmup_steps:
            with self.accelerator.autocast():
                self.model.get_image_features(inputs["pixel_values"])
            return self._slot_loss(aids)
        if step < self.args.slot_warmup_steps + self.args.question_warmup_steps:
            return self._read_questions(inputs, aids)
        mode = "train" if self.model.training else "eval"
        with self._looks_kept():
            outputs = self._answers(model, self._answered(inputs))
        tokens = outputs.label_mask.sum()
        counted = num_items_in_batch is not None and self.args.answer_rows is None
        total = num_items_in_batch if counted else tokens
        loss = -(outputs.log_probs * weights).sum() / torch.as_tensor(total).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages what must be summed
        if not self.args.keep_looks:
            loss = loss + self._loss_of_aids(inputs["input_ids"], aids)
        accuracy = outputs.is_top1.sum() / tokens.clamp(min=1)
        self._metrics[mode]["mean_token_accuracy"].append(accuracy.item())
        return (loss, outputs) if return_outputs else loss

    def _answers(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Log-likelihood of the labels, by TRL's head or, where numbers are whole, by ours."""
        if self.number_loss is None:
            return model(**inputs, fused_lm_head=True)
        labels = inputs.pop("labels")[:, 1:]
        with self.accelerator.autocast():
            states = self.model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
            mask = labels != IGNORED
            log_probs, is_top1 = self.number_loss.log_probs(
                states[mask], self.model.lm_head.weight, labels[mask]
            )
        return FusedCausalLMOutput(
            log_probs=log_probs.new_zeros(mask.shape).masked_scatter(mask, log_probs),
            is_top1=is_top1,
            label_mask=mask,
        )

    def _answered(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The rows of a batch that are answered, and their images."""
        rows = self.args.answer_rows
        if rows is None:
            return inputs
        cut = {name: value[:rows] for name, value in inputs.items()}
        if "pixel_values" in inputs:
            images = (cut["input_ids"] == self.model.config.image_token_id).any(-1).sum()
            cut["pixel_values"] = inputs["pixel_values"][:images]
        return cut

    def _looks_kept(self) -> AbstractContextManager[None]:
        if not self.args.keep_looks:
            return nullcontext()
        return kept_up_to(self.model.model.language_model.layers[self.look_loss.depth - 1])

    def _read_questions(self, inputs: dict[str, Any], aids: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of the questions alone, by the lower layers alone."""
        cut = without_answers({**inputs, **aids})
        seen = {name: cut[name] for name in ("input_ids", "position_ids", "attention_mask", "pixel_values")}
        base = self.model.model
        with self.accelerator.autocast(), lower_layers(base.language_model, self.look_loss.depth):
            base(**seen, use_cache=False)
        return self._loss_of_aids(cut["input_ids"], cut)

    def _loss_of_aids(self, input_ids: torch.Tensor, aids: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the model has just seen and looked at, and what its questions then know."""
        loss = self._slot_loss(aids) if "slot_classes" in aids else torch.zeros(())
        looks = aids.get("slot_looks")
        if self.look_loss is not None and looks is not None and looks.any():
            missed = self.look_loss.loss(input_ids, looks)
            self._metrics["train" if self.model.training else "eval"]["look_loss"].append(missed.item())
            loss = loss + self.args.look_loss_weight / self.current_gradient_accumulation_steps * missed
        if "asked_classes" in aids and (aids["asked_classes"] != UNKNOWN).any():
            known = self.model.question_head.loss(aids["asked_classes"], aids["asked_boxes"])
            loss = loss + self.args.slot_loss_weight / self.current_gradient_accumulation_steps * known
        return loss

    def _slot_loss(self, aids: dict[str, torch.Tensor]) -> torch.Tensor:
        """Of the features that the model has last seen."""
        weight = self.args.slot_loss_weight / self.current_gradient_accumulation_steps
        return weight * self.model.slot_head.loss(aids["slot_classes"], aids["slot_boxes"])


def build_trainer(
    config: BirdSFTConfig, train_dataset: Dataset, callbacks: Sequence[Any] = ()
) -> BirdSFTTrainer:
    """A trainer for a recipe: model and processor loaded or new, vision frozen or not, our collator."""
    set_seed(config.seed)
    attention.register()
    model, processor = load_or_create(config, train_dataset)
    if config.freeze_vision:
        model.freeze_vision()
    collator = GroundingCollator(processor, config.loss_weights, config.max_length, config.max_turns)
    look_loss = _add_aids(config, model, collator, train_dataset)
    trainer = BirdSFTTrainer(
        model=model,
        args=config,
        train_dataset=train_dataset,
        data_collator=collator,
        processing_class=processor,
        callbacks=list(callbacks),
    )
    ids = number_ids(processor.tokenizer)
    if config.number_spread and ids is not None:
        trainer.number_loss = NumberLoss(ids, len(processor.tokenizer), config.number_spread)
    trainer.look_loss = look_loss
    return trainer


def _add_aids(
    config: BirdSFTConfig,
    model: BirdForConditionalGeneration,
    collator: GroundingCollator,
    train_dataset: Dataset,
) -> LookLoss | None:
    """What a recipe asks for besides the answers: on slots, on where attention goes, on questions."""
    for name in ("slot_loss_weight", "look_loss_weight", "number_spread"):
        if config.world_size > 1 and getattr(config, name):
            raise ValueError(f"{name} is for one process; unset it to train on several")
    if config.look_loss_weight and not (
        config.slot_loss_weight and config.attn_implementation == attention.NAME
    ):
        raise ValueError(f"look_loss_weight needs slot_loss_weight, and attn_implementation {attention.NAME}")
    if config.question_warmup_steps and not config.look_loss_weight:
        raise ValueError("question_warmup_steps needs look_loss_weight")
    if config.keep_looks and not config.question_warmup_steps:
        raise ValueError("keep_looks needs question_warmup_steps")
    if config.answer_rows and not (config.keep_looks and config.gradient_accumulation_steps == 1):
        raise ValueError("answer_rows needs keep_looks, and no gradient_accumulation_steps")
    if config.slot_loss_weight:
        collator.classes = names_of(train_dataset)
        model.slot_head = _slot_head(config, model, collator, model.model.projector)
    if not config.look_loss_weight:
        return None
    look_loss = LookLoss(model, config.look_layers)
    if config.question_warmup_steps:
        collator.reads_questions = True
        layer = model.model.language_model.layers[look_loss.depth - 1]
        # Of questions no kind is rare: those about what is absent count as all others.
        model.question_head = _slot_head(config, model, collator, layer, background_weight=1.0)
    return look_loss


def _slot_head(
    config: BirdSFTConfig,
    model: BirdForConditionalGeneration,
    collator: GroundingCollator,
    reads: nn.Module,
    **options: float,
) -> SlotHead:
    """What reads slots, or what has been looked up in them; a name has its tokens as it begins a phrase and as it
    follows a word.
    """
    tokenizer = collator.processor.tokenizer
    tokens = [tokenizer.encode(f"{name} {name}", add_special_tokens=False) for name in collator.classes]
    speaks = bool(config.model or config.text_model)
    embedding, numbers = model.get_input_embeddings(), number_ids(tokenizer)
    return SlotHead(reads, embedding, tokens, numbers, learn_embeddings=not speaks, **options)


def load_or_create(
    config: BirdSFTConfig, train_dataset: Dataset
) -> tuple[BirdForConditionalGeneration, BirdProcessor]:
    """The checkpoint that the recipe names, or a new model of the sizes it gives."""
    if config.model:
        model = BirdForConditionalGeneration.from_pretrained(
            config.model, dtype=torch.float32, attn_implementation=config.attn_implementation
        )
        return model, BirdProcessor.from_pretrained(config.model)
    if not config.new_model:
        raise ValueError(
            "the recipe names neither `model` (a checkpoint) nor `new_model` (sizes); set one of them"
        )
    if config.text_model:
        return build_on(config.text_model, config.new_model, config.attn_implementation)
    return create_model(config.new_model, conversation_texts(train_dataset), config.attn_implementation)


def load_training_data(config: BirdSFTConfig) -> Dataset:
    """The rows to train on; rendered first where the recipe says so and they are not there yet."""
    if config.render_images and not Path(config.data).exists():
        log.info("rendering %d images into %s", config.render_images, config.data)
        render_training_set(Path(config.data), config.render_images, config.seed)
    return load_dataset(config.data, config.data_config, split="train")


def main(arguments: Sequence[str]) -> Path:
    """Run a recipe: `--config recipes/NAME.yaml [--field value ...]`; returns the folder of the trained model.

    A run that was stopped goes on from its last checkpoint.
    """
    (config,) = TrlParser(BirdSFTConfig).parse_args_and_config(list(arguments))
    trainer = build_trainer(config, load_training_data(config))
    last = get_last_checkpoint(config.output_dir) if Path(config.output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    return save_for_use(trainer, Path(config.output_dir) / "final")


def save_for_use(trainer: BirdSFTTrainer, folder: Path) -> Path:
    """Save model and processor in bf16 safetensors, ready for `from_pretrained`."""
    model = trainer.accelerator.unwrap_model(trainer.model).to(torch.bfloat16)
    for head in ("slot_head", "question_head"):
        if hasattr(model, head):
            delattr(model, head)
    vars(model.config).pop("use_cache", None)  # the trainer wrote there what holds for training
    if trainer.accelerator.is_main_process:
        model.save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
    return folder


def conversation_texts(dataset: Dataset) -> Iterator[str]:
    """What conversations of the dataset consist of, the template's own words among it; images are not touched."""
    step = max(1, len(dataset) // _TOKENIZER_ROWS)
    for row in dataset.select_columns(["messages"]).select(range(0, len(dataset), step)):
        yield "system\nYou are a helpful assistant."
        for message in row["messages"]:
            yield f"{message['role']}\n"
            yield "Picture 1: "
            yield message["content"]
