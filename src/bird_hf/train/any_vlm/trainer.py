"""Supervised fine-tuning of any vision-language model with TRL's `SFTTrainer`, its boxes in a dialect."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, set_seed
from trl import SFTTrainer, get_peft_config
from trl.models import unwrap_model_for_generation

from ...data.folder.left_out import LEFT_OUT, left_out_lines, write_left_out
from ...data.records import Task
from ...dialects import Dialect, write_dialect
from ..bad_loss import FiniteGradients
from ..recipe import Recipe
from ..row_images import WithImages, check_images
from ..whole_checkpoints import WholeCheckpoints
from .check import checked_questions
from .config import AnyVlmConfig
from .encode import Encoder
from .evaluate import answer, grounding_counts, scores_of
from .load import choose_dialect, load_model, load_processor, shown_part
from .rows import as_dataset, examples_of

_HOW_TO_GIVE_IMAGES = "set images_dir to your folder of IMAGE_ID.png"

log = logging.getLogger(__name__)


class AnyVlmTrainer(WholeCheckpoints, FiniteGradients, SFTTrainer):
    """TRL's `SFTTrainer` for the batches of `Encoder`, whose evaluation asks the model and reads its boxes."""

    args: AnyVlmConfig

    def __init__(self, *args: Any, dialect: Dialect, encoder: Encoder, **kwargs: Any):
        super().__init__(*args, data_collator=encoder, processing_class=encoder.processor, **kwargs)
        self.dialect = dialect
        self.encoder = encoder

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The loss, and the scores of the answers to visual grounding questions."""
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        scores = self.grounding_scores(dataset, metric_key_prefix)
        self.log(scores)
        return metrics | scores

    def grounding_scores(self, dataset: Dataset, prefix: str = "eval") -> dict[str, float]:
        """Scores of the answers to the first visual grounding questions of a dataset; processes share the questions."""
        tasks = dataset.with_format(None).select_columns(["task"])["task"]
        asked = [number for number, task in enumerate(tasks) if task == Task.VISUAL_GROUNDING]
        asked = asked[: self.args.eval_questions]
        share = asked[self.accelerator.process_index :: self.accelerator.num_processes]
        counts: dict[str, int] = dict.fromkeys(grounding_counts([], [], self.dialect), 0)
        with unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model:
            was_training = model.training
            model.eval()
            size = self.args.per_device_eval_batch_size
            for start in range(0, len(share), size):
                rows = [dataset[number] for number in share[start : start + size]]
                responses = answer(model, self.encoder, rows, self.args.max_new_tokens)
                for name, count in grounding_counts(rows, responses, self.dialect).items():
                    counts[name] += count
            model.train(was_training)
        values = torch.tensor([*counts.values()], device=self.accelerator.device)
        summed = self.accelerator.reduce(values, "sum").tolist()
        return scores_of(dict(zip(counts, summed, strict=True)), prefix)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        write_dialect(self.dialect, Path(output_dir or self.args.output_dir))


def build_trainer(
    recipe: Recipe[AnyVlmConfig],
    train_dataset: Dataset,
    eval_dataset: Dataset | None = None,
    callbacks: Sequence[Any] = (),
) -> AnyVlmTrainer:
    """A trainer for a recipe. All questions are checked first; raises ValueError if one cannot be trained."""
    args, config = recipe.training, recipe.model
    set_seed(args.seed)
    template, args.chat_template_path = args.chat_template_path, None
    processor = load_processor(config.model_name_or_path or "", config.model_revision, template)
    model = load_model(config, args.freeze_vision)
    dialect = choose_dialect(args.dialect, config.model_name_or_path, model, processor)
    encoder = Encoder(processor, stops_of(model, processor))
    train_dataset = _questions(train_dataset, dialect, encoder, args, "train")
    train_dataset, found = checked_questions(train_dataset, encoder, dialect, args.max_length, args.too_long)
    log.info("dialect %s; %s", dialect.name, found)
    return AnyVlmTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=None
        if eval_dataset is None
        else _questions(eval_dataset, dialect, encoder, args, "test"),
        callbacks=list(callbacks),
        peft_config=get_peft_config(config),
        dialect=dialect,
        encoder=encoder,
    )


def stops_of(model: PreTrainedModel, processor: Any) -> frozenset[int]:
    """The tokens that end an answer: those of the generation configuration, or else the tokenizer's."""
    found = model.generation_config.eos_token_id
    numbers = found if isinstance(found, list) else [found]
    known = {number for number in numbers if number is not None}
    return frozenset(known or {processor.tokenizer.eos_token_id})


def _questions(rows: Dataset, dialect: Dialect, encoder: Encoder, args: AnyVlmConfig, split: str) -> Dataset:
    """The questions of rows with their images; those that the dialect cannot say are counted and listed in a file."""
    folder = None if args.images_dir is None else Path(args.images_dir)
    kept = [name for name in ("image", "image_id", "image_wh") if name in rows.column_names]
    images = WithImages(rows.select_columns(kept), folder)
    examples, left_out = examples_of(
        rows,
        dialect,
        encoder.control,
        lambda size: shown_part(encoder.processor.image_processor, size),
        lambda number: images.image(number).size,
    )
    if left_out and args.process_index == 0:
        file = Path(args.output_dir) / f"{split}_{LEFT_OUT}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_left_out(left_out, file)
        for line in left_out_lines(file, len(left_out)):
            log.warning("%s", line)
    if not examples:
        raise ValueError(
            f"no question of the {split} split can be asked in dialect {dialect.name}; the first: {left_out[0]}"
            if left_out
            else f"the {split} split has no rows"
        )
    if folder is None:
        check_images(images.images, {example.row for example in examples}, _HOW_TO_GIVE_IMAGES)
    return as_dataset(examples).with_transform(images)
