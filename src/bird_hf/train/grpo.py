"""GRPO on a BiRD checkpoint with TRL's `GRPOTrainer`: several answers to each question are sampled and rewarded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, ClassVar, Literal

import torch
from datasets import Dataset, IterableDataset
from peft import PeftModel
from transformers import GenerationConfig, set_seed
from trl import GRPOConfig, GRPOTrainer, get_peft_config

from ..data.records import Task
from ..eval.readings import holds_name
from ..hub.grounding import read
from ..hub.modeling_bird import BirdForConditionalGeneration
from ..hub.processing_bird import refuse_control_tokens
from .bad_loss import FiniteGradients
from .recipe import BirdSFTConfig, Recipe
from .rewards import box_reward
from .row_images import WithImages, check_images
from .sft import attention_of, load_model
from .shared_prompts import each_prompt_once, groups_of, pack_answers, without_adapter
from .turns import task_of_turn
from .whole_checkpoints import WholeCheckpoints

_TURN_COLUMNS = ("messages", "objects", "forms", "task", "independent", "image_id")


@dataclass
class BirdGRPOConfig(GRPOConfig):
    """TRL's `GRPOConfig` with the fields that training a BiRD model needs besides.

    method: `grpo`, by which a recipe is known to be one for this config.
    freeze_vision: train the resampler and the language model only.
    freeze_embeddings: keep the embeddings of tokens frozen, and with them a head that is tied to them. A step samples
        few of the coordinates; AdamW moves the rows of those few as far as any other weight, by what little they say.
    denial_reward: of rightly saying that an object is absent, from 0 to 1. A box is hardly ever worth 1, so a model in
        doubt learns to deny where a denial is.
    """

    method: Literal["sft", "grpo", "any_vlm"] = field(default="grpo", metadata={"help": "how to train"})
    freeze_vision: bool = field(default=True, metadata={"help": "keep the vision tower and projector frozen"})

    freeze_embeddings: bool = field(default=False, metadata={"help": "keep the embeddings of tokens frozen"})
    denial_reward: float = field(default=1.0, metadata={"help": "of rightly saying that an object is absent"})

    OLD_FIELDS: ClassVar[dict[str, str | None]] = BirdSFTConfig.OLD_FIELDS


class BirdGRPOTrainer(WholeCheckpoints, FiniteGradients, GRPOTrainer):
    """TRL's `GRPOTrainer`, which samples from the policy itself (see `sampling_from_policy`).

    The prompt of several answers is computed once: see `shared_prompts`.
    """

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        with sampling_from_policy(model), each_prompt_once(model):
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Log-probabilities of answers (B, C), and entropies if they are asked for; 0 behind the end of an answer."""
        config = without_adapter(self.accelerator.unwrap_model(model)).config
        prompts, answers = input_ids[:, :-logits_to_keep], input_ids[:, -logits_to_keep:]
        groups = groups_of(prompts, attention_mask[:, :-logits_to_keep], pixel_values, config)
        packed = pack_answers(
            groups, answers, attention_mask[:, -logits_to_keep:], pixel_values, self._tokenizer.pad_token_id
        )
        with self.accelerator.autocast():
            # TRL's head, in chunks; targets are those of the states that are kept, so that nothing is shifted.
            outputs = model(**packed.inputs, shift_labels=packed.targets[None], fused_lm_head=True)

        def unpacked(values: torch.Tensor) -> torch.Tensor:
            table = values.new_zeros(answers.shape)
            return table.index_put((packed.rows, packed.columns), values[0])

        return unpacked(outputs.log_probs), unpacked(outputs.entropy) if compute_entropy else None, None


@contextmanager
def sampling_from_policy(model: BirdForConditionalGeneration | PeftModel) -> Iterator[None]:
    """Leaves out, in `generate`, what a checkpoint changes about the model's probabilities.

    These are the smoothing of coordinates (`config.coordinate_smoothing_sigma`) and the settings of its
    `generation_config`, such as `sequence_bias`. The loss is computed from the model's own probabilities, so answers
    must be drawn from them too.
    """
    plain = without_adapter(model)
    sigma, settings = plain.config.coordinate_smoothing_sigma, plain.generation_config
    plain.config.coordinate_smoothing_sigma, plain.generation_config = None, GenerationConfig()
    try:
        yield
    finally:
        plain.config.coordinate_smoothing_sigma, plain.generation_config = sigma, settings


def build_trainer(
    recipe: Recipe[BirdGRPOConfig],
    train_dataset: Dataset,
    eval_dataset: Dataset | None = None,
    callbacks: Sequence[Any] = (),
) -> BirdGRPOTrainer:
    """A trainer for a recipe that starts from a checkpoint, with the rewards of `rewards.py`."""
    args = recipe.training
    set_seed(args.seed)
    model, processor = load_model(recipe.model, attention_of(recipe))
    if args.freeze_vision:
        model.freeze_vision()
    if args.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return BirdGRPOTrainer(
        model=model,
        reward_funcs=[rewarded(args.denial_reward)],
        args=args,
        train_dataset=grounding_prompts(train_dataset),
        eval_dataset=None if eval_dataset is None else grounding_prompts(eval_dataset),
        processing_class=processor,
        callbacks=list(callbacks),
        peft_config=get_peft_config(recipe.model),
    )


def rewarded(denial: float) -> Callable[..., list[float]]:
    """`box_reward` with what a denial is worth. Raises ValueError if that is not from 0 to 1."""
    if not 0 <= denial <= 1:
        raise ValueError(f"denial_reward is {denial}; it must be from 0 to 1")
    reward = partial(box_reward, denial=denial)
    return wraps(box_reward)(reward)  # TRL logs a reward by its name


def grounding_prompts(dataset: Dataset) -> Dataset:
    """The visual grounding questions of Med-GRIT rows, one per row.

    Columns: `prompt` (messages), `image`, `reference` (the answer as tagged text) and `absent` (names asked for that
    the image does not show). An image is decoded when one of its questions is read.
    Raises ValueError if the dataset is streamed, holds no such question, or if an image of one is missing.
    """
    if isinstance(dataset, IterableDataset):
        raise ValueError("method grpo draws questions at random; set dataset_streaming: false")
    missing = {"image", "messages"} - {*dataset.column_names}
    if missing:
        raise ValueError(
            f"the dataset has no column {' or '.join(sorted(missing))}; is it a Med-GRIT folder?"
        )
    turns = dataset.select_columns([name for name in _TURN_COLUMNS if name in dataset.column_names])
    questions = [
        {**question, "row": number} for number, row in enumerate(turns) for question in _questions_of(row)
    ]
    if not questions:
        raise ValueError("the dataset has no visual grounding question; set dataset_config to chat or vg")
    images = dataset.select_columns(["image"])
    remedy = "method grpo needs the pixels of all images in the dataset"
    check_images(images, {question["row"] for question in questions}, remedy)
    return Dataset.from_list(questions).with_transform(WithImages(images))


def _questions_of(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    messages = row["messages"]
    refuse_control_tokens(messages)
    objects = row.get("objects") or ()
    absent = [item["label"] for item in objects if not item["present"]]
    forms = row.get("forms") or []
    for number, start in enumerate(range(0, len(messages) - 1, 2)):
        question, answer = messages[start], messages[start + 1]
        form = forms[number] if number < len(forms) else ""
        if (question["role"], answer["role"]) != ("user", "assistant"):
            raise ValueError(
                f"row {row.get('image_id', 'without image_id')}: messages are not pairs of user and assistant"
            )
        reference = read(answer["content"])
        if task_of_turn(read(question["content"]), reference, form, row.get("task")) is Task.VISUAL_GROUNDING:
            before = [] if row.get("independent", False) else messages[:start]
            yield {
                "prompt": [*before, question],
                "reference": answer["content"],
                "absent": [name for name in absent if holds_name(reference.text, name)],
            }
