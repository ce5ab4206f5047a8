"""Training from scratch: a trainer with stages, a detection head, attention supervision and Muon."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedTokenizerBase, get_scheduler, set_seed
from trl import ScriptArguments
from trl.trainer.utils import FusedCausalLMOutput

from ...data.embedded.training_set import render_training_set
from ...hub.modeling_bird import BirdForConditionalGeneration
from ...hub.processing_bird import BirdProcessor, lower_case
from ..collate import IGNORED
from ..held_out import callbacks_of, evaluation_of
from ..label_names import add_label_names
from ..recipe import Recipe
from ..sft import BirdSFTTrainer, attention_of, collator_options, load_model, prepared_rows
from . import cpu_attention
from .attention_supervision import AttentionSupervisionLoss
from .collate import LossWeights, SupervisedCollator
from .config import OWN_FIELDS, VISION, FromScratchConfig
from .coordinate_tokens import CoordinateLabelLoss, coordinate_ids
from .detection_head import DetectionHead, classes_of
from .muon import muon_with_adamw
from .new_model import NewModel, create_model

_TOKENIZER_ROWS = 4000  # more add no words
_TARGETS = ("image_token_classes", "image_token_boxes", "attention_targets")
_HEAD_FILE = "detection_head.safetensors"

log = logging.getLogger(__name__)


class FromScratchTrainer(BirdSFTTrainer):
    """`BirdSFTTrainer` with the losses and the stages of a `FromScratchConfig`.

    The trainer owns the detection head: it is optimized, clipped and checkpointed with the model, but not part of it.
    """

    args: FromScratchConfig
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: LRScheduler | None

    def __init__(
        self,
        *args: Any,
        detection_head: DetectionHead | None = None,
        attention_loss: AttentionSupervisionLoss | None = None,
        coordinate_loss: CoordinateLabelLoss | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.detection_head = None if detection_head is None else detection_head.to(self.args.device)
        self.logs_mfu = (
            detection_head is None
        )  # its FLOPs are not counted, nor what a vision stage leaves out
        self.attention_loss = attention_loss
        self.coordinate_loss = coordinate_loss
        self.stages = self.args.training_stages
        self.stage_starts = [0, *accumulate(stage.steps or 0 for stage in self.stages[:-1])]

    # --- the loss ---

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted negative log-likelihood of the answers, divided by the number of tokens, plus the other losses.

        Dividing by the number of tokens, not by the sum of weights, keeps accumulation exact: a batch of four
        is four batches of one. In a vision stage the loss is the detection loss alone.
        """
        weights = inputs.pop("loss_weights")[:, 1:]
        targets = {name: inputs.pop(name) for name in _TARGETS if name in inputs}
        features = self._image_features(inputs)
        if self.model.training and self.stages[self._stage_at(self.state.global_step)].train == VISION:
            return self._detection_loss(features, targets)
        recorder = None if self.attention_loss is None else self.attention_loss.recorder()
        outputs = self._answer_likelihood(model, inputs, features, recorder)
        tokens = outputs.label_mask.sum()
        total = tokens if num_items_in_batch is None else num_items_in_batch
        loss = -(outputs.log_probs * weights).sum() / torch.as_tensor(total).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages what must be summed
        if features is not None:
            image_loss = self._detection_loss(features, targets)
            if recorder is not None and targets["attention_targets"].any():
                image_loss = image_loss + self._attention_loss(recorder, inputs["input_ids"], targets)
            loss = loss + image_loss
        mode = "train" if self.model.training else "eval"
        accuracy = outputs.is_top1.sum() / tokens.clamp(min=1)
        self._metrics[mode]["mean_token_accuracy"].append(accuracy.item())
        return (loss, outputs) if return_outputs else loss

    def _image_features(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        """Features (N, Q, D) that both the detection head and the language model read; None without a head."""
        if self.detection_head is None or "pixel_values" not in inputs:
            return None
        with self.accelerator.autocast():
            return torch.stack(self.model.get_image_features(inputs.pop("pixel_values")).pooler_output)

    def _answer_likelihood(
        self,
        model: Any,
        inputs: dict[str, Any],
        features: torch.Tensor | None,
        recorder: cpu_attention.AttentionRecorder | None,
    ) -> Any:
        """Log-likelihood of the labels: TRL's, or with Gaussian labels for coordinates."""
        given = inputs | {"image_features": features, "use_cache": False}
        if recorder is not None:
            given["attention_recorder"] = recorder
        if self.coordinate_loss is None:
            return model(**given, fused_lm_head=True)
        labels = given.pop("labels")[:, 1:]
        with self.accelerator.autocast():
            states = self.model.model(**given).last_hidden_state[:, :-1]
            mask = labels != IGNORED
            log_probs, is_top1 = self.coordinate_loss.log_probs(
                states[mask], self.model.lm_head.weight, labels[mask]
            )
        return FusedCausalLMOutput(
            log_probs=log_probs.new_zeros(mask.shape).masked_scatter(mask, log_probs),
            is_top1=is_top1,
            label_mask=mask,
        )

    def _detection_loss(
        self, features: torch.Tensor | None, targets: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        if features is None or self.detection_head is None:
            raise ValueError("a batch has no image to train vision on; drop rows without an image")
        weight = self.args.detection_loss_weight / self.current_gradient_accumulation_steps
        return weight * self.detection_head(
            features, targets["image_token_classes"], targets["image_token_boxes"]
        )

    def _attention_loss(
        self,
        recorder: cpu_attention.AttentionRecorder,
        input_ids: torch.Tensor,
        targets: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        assert self.attention_loss is not None
        loss = self.attention_loss.loss(recorder, input_ids, targets["attention_targets"])
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["attention_loss"].append(loss.item())
        return self.args.attention_loss_weight / self.current_gradient_accumulation_steps * loss

    # --- stages ---

    def _stage_at(self, step: int) -> int:
        return bisect_right(self.stage_starts, step) - 1

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        """The recipe's schedule, once per stage: what a high rate has learnt shows only when the rate falls."""
        if len(self.stages) == 1 or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        ends = [*self.stage_starts[1:], num_training_steps]
        lengths = [end - start for start, end in zip(self.stage_starts, ends, strict=True)]
        factors = [self._schedule(max(1, length)) for length in lengths]

        def factor(step: int) -> float:
            stage = self._stage_at(step)
            return factors[stage](step - self.stage_starts[stage])

        self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, factor)
        return self.lr_scheduler

    def _schedule(self, steps: int) -> Callable[[int], float]:
        """The factor of the learning rate at each step of the recipe's schedule over `steps` steps."""
        schedule = get_scheduler(
            self.args.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1)], lr=1.0),
            num_warmup_steps=self.args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=self.args.lr_scheduler_kwargs,
        )
        return schedule.lr_lambdas[0]

    # --- the detection head's parameters: optimized, clipped and checkpointed with the model's ---

    def _head_parameters(self) -> dict[str, torch.nn.Parameter]:
        head = self.detection_head
        return {} if head is None else dict(head.named_parameters(prefix="detection_head"))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer
        head = self._head_parameters()
        if self.args.muon_learning_rate is None:
            optimizer = super().create_optimizer(model)
            if head:
                optimizer.add_param_group(
                    {"params": [*head.values()], "weight_decay": self.args.weight_decay}
                )
        else:
            trained = self.model if model is None else model
            optimizer = muon_with_adamw(
                [*trained.named_parameters(), *head.items()],
                muon_lr=self.args.muon_learning_rate,
                adamw_lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                weight_decay=self.args.weight_decay,
            )
        if self.detection_head is not None:  # `Trainer` sets the model's gradients to None only
            zero_grad = self.detection_head.zero_grad
            optimizer.register_step_post_hook(lambda *_: zero_grad())
        self.optimizer = optimizer
        return optimizer

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        parameters = [*model.parameters(), *self._head_parameters().values()]
        return self.accelerator.clip_grad_norm_(parameters, self.args.max_grad_norm)

    def _finish_checkpoint(self, folder: Path) -> None:
        if self.detection_head is not None:
            save_file(self.detection_head.state_dict(), folder / _HEAD_FILE)
        super()._finish_checkpoint(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.detection_head is not None:
            self.detection_head.load_state_dict(load_file(Path(resume_from_checkpoint, _HEAD_FILE)))


def build_trainer(
    recipe: Recipe, train_dataset: Dataset, eval_dataset: Dataset | None = None, callbacks: Sequence[Any] = ()
) -> FromScratchTrainer:
    """A trainer for a new model, or for one that was trained from scratch and is trained on."""
    args = recipe.training
    assert isinstance(args, FromScratchConfig)
    if args.attention_loss_weight and recipe.model.attn_implementation != cpu_attention.NAME:
        raise ValueError(f"attention_loss_weight needs attn_implementation {cpu_attention.NAME}; set it")
    if recipe.model.use_peft:
        own = ", ".join(sorted(OWN_FIELDS & vars(args).keys()))
        raise ValueError(
            f"use_peft cannot be combined with the fields of a model from scratch ({own}); remove them"
        )
    set_seed(args.seed)
    cpu_attention.register()
    model, processor = _model_of(recipe, args, train_dataset)
    if args.freeze_vision:
        model.freeze_vision()
    add_label_names(model.config, processor, train_dataset)
    tokenizer = processor.tokenizer
    classes = classes_of(train_dataset) if args.detection_loss_weight else None
    weights = LossWeights(args.punctuation_weight, args.text_weight)
    collator = SupervisedCollator(processor, **collator_options(args), weights=weights, classes=classes)
    train_dataset, steps = prepared_rows(train_dataset, collator, args)
    return FromScratchTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        data_collator=collator,
        packed_steps=steps,
        processing_class=processor,
        callbacks=[*callbacks, *callbacks_of(args)],
        detection_head=None if classes is None else _detection_head(model, tokenizer, classes),
        attention_loss=AttentionSupervisionLoss(model) if args.attention_loss_weight else None,
        coordinate_loss=_coordinate_loss(tokenizer, args.coordinate_label_sigma),
        **evaluation_of(args, eval_dataset, collator),
    )


def _model_of(
    recipe: Recipe, args: FromScratchConfig, train_dataset: Dataset
) -> tuple[BirdForConditionalGeneration, BirdProcessor]:
    if args.new_model is None:
        return load_model(recipe.model, attention_of(recipe, recipe.training.pack_rows))
    if recipe.model.model_name_or_path:
        raise ValueError("the recipe sets both `model_name_or_path` and `new_model`; remove one")
    sizes = NewModel.from_dict(args.new_model)
    texts = conversation_texts(train_dataset, sizes.lowercase_questions)
    return create_model(sizes, texts, attention_of(recipe, recipe.training.pack_rows))


def _detection_head(
    model: BirdForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, classes: dict[str, int]
) -> DetectionHead:
    """A head that knows each class by the tokens of its name, as they start a phrase and as they follow a word."""
    tokens = [tokenizer.encode(f"{name} {name}", add_special_tokens=False) for name in classes]
    return DetectionHead(model.get_input_embeddings(), tokens, coordinate_ids(tokenizer))


def _coordinate_loss(tokenizer: PreTrainedTokenizerBase, sigma: float) -> CoordinateLabelLoss | None:
    if not sigma:
        return None
    ids = coordinate_ids(tokenizer)
    if ids is None:
        raise ValueError(
            "coordinate_label_sigma needs a model with coordinate tokens; unset it, or set coordinate_tokens in "
            "new_model"
        )
    return CoordinateLabelLoss(ids, len(tokenizer), sigma)


def render_missing(script: ScriptArguments, args: FromScratchConfig) -> None:
    """Render the training set of a recipe if it asks for it and the folder does not exist."""
    if args.render_images and script.dataset_name and not Path(script.dataset_name).exists():
        log.info("rendering %d images into %s", args.render_images, script.dataset_name)
        render_training_set(Path(script.dataset_name), args.render_images, args.seed)


def conversation_texts(dataset: Dataset, lowercase_questions: bool = False) -> Iterator[str]:
    """The texts of a dataset's conversations and of the chat template; images are not decoded.

    lowercase_questions: the questions as `BirdProcessor` with this option reads them.
    """
    step = max(1, len(dataset) // _TOKENIZER_ROWS)
    for row in dataset.select_columns(["messages"]).select(range(0, len(dataset), step)):
        yield "system\nYou are a helpful assistant."
        for message in row["messages"]:
            yield f"{message['role']}\n"
            yield "Picture 1: "
            is_folded = lowercase_questions and message["role"] == "user"
            yield lower_case(message["content"]) if is_folded else message["content"]
