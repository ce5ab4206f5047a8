"""VG and ROC on held-out rows while a model trains: the answers are scored as `bird score` scores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from transformers import EarlyStoppingCallback

from ..data.records import Task
from ..eval.score import score_recall
from ..hub.grounding import read
from ..inference import GroundingModel
from ..questions import Query
from .collate import DROP, SPLIT, GroundingCollator
from .recipe import BirdSFTConfig, nearest
from .row_lengths import images_of, measured_rows
from .rows import image_cells, joined_image
from .sharding import sharding_of
from .throughput import MeasuredTrainer
from .turns import task_of_turn

_TASKS = (Task.VISUAL_GROUNDING, Task.REFERRING_CLASSIFICATION)
_COLUMNS = ("image_id", "messages", "forms", "task", "independent")
_STREAMED_ROWS = 20  # read for each question that is wanted, at most
_SEED = 0  # the same questions in every run, so that runs can be compared
# What an evaluation gives besides: TRL's.
_LOSSES = ("loss", "entropy", "mean_token_accuracy", "attention_loss")


class Question(NamedTuple):
    """A question of a row, its reference as tagged text, and the number of the row."""

    row: int
    text: str
    reference: str


@dataclass(frozen=True)
class HeldOutQuestions:
    """VG and ROC questions of held-out rows; an image is decoded when it is asked about."""

    rows: Dataset
    questions: Mapping[Task, Sequence[Question]]
    images_dir: Path | None = None

    @classmethod
    def choose(
        cls, rows: Dataset | IterableDataset, count: int, images_dir: Path | None = None
    ) -> HeldOutQuestions:
        """Up to `count` questions of each task, drawn from those that can be asked alone about one image.

        Raises ValueError if there are none, or if a reference cannot be scored.
        """
        if isinstance(rows, IterableDataset):
            rows = Dataset.from_list(list(islice(rows, _STREAMED_ROWS * count)), features=rows.features)
        has_one = (np.maximum(images_of(rows), 0 if images_dir is None else 1) == 1).tolist()
        found: dict[Task, list[Question]] = {task: [] for task in _TASKS}
        for task, question in _questions_of(rows):
            if has_one[question.row]:
                found[task].append(question)
        if not any(found.values()):
            raise ValueError(
                "eval_questions: the held-out rows have no VG or ROC question about one image; set dataset_config to "
                "chat, vg or roc"
            )
        draw = np.random.default_rng(_SEED)
        chosen = {
            task: sorted(questions[place] for place in draw.permutation(len(questions))[:count])
            for task, questions in found.items()
            if questions
        }
        for task, questions in chosen.items():
            references = [question.reference for question in questions]
            score_recall(task, references, references, "strict")  # raises before the first step
        return cls(rows, chosen, images_dir)

    @property
    def names(self) -> list[str]:
        """The names of the scores."""
        return [name for task in self.questions for name in (f"{task}_recall", f"{task}_recall_paper")]

    def queries(
        self, process: int = 0, processes: int = 1, at_once: int = 8
    ) -> Iterator[tuple[list[int], list[Query]]]:
        """The share of a process: numbers of questions (over all tasks), and the queries, `at_once` at a time."""
        everything = [question for questions in self.questions.values() for question in questions]
        share = range(process, len(everything), processes)
        for start in range(0, len(share), at_once):
            numbers = list(share[start : start + at_once])
            images = {row: self._image(row) for row in {everything[number].row for number in numbers}}
            yield numbers, [Query(everything[n].text, images[everything[n].row]) for n in numbers]

    def scores(self, responses: Sequence[str]) -> dict[str, float]:
        """Recall of each task by the strict rules (`vg_recall`) and by the paper's (`vg_recall_paper`)."""
        found, start = {}, 0
        for task, questions in self.questions.items():
            answers = responses[start : start + len(questions)]
            start += len(questions)
            references = [question.reference for question in questions]
            for rules, name in (("strict", f"{task}_recall"), ("paper", f"{task}_recall_paper")):
                recall = score_recall(task, answers, references, rules)["recall"]
                found[name] = 0.0 if recall is None else recall
        return found

    def _image(self, number: int) -> Any:
        row = self.rows[number]
        cells = image_cells(row)
        if cells or self.images_dir is None:
            return cells[0]
        return joined_image(row, self.images_dir)


def _questions_of(rows: Dataset) -> Iterator[tuple[Task, Question]]:
    """The VG and ROC questions that need no earlier turn."""
    columns = [name for name in _COLUMNS if name in rows.column_names]
    for number, row in enumerate(rows.select_columns(columns)):
        messages, forms = row["messages"], row.get("forms") or []
        pairs = list(zip(messages[::2], messages[1::2], strict=False))
        for turn, (question, answer) in enumerate(pairs if row.get("independent", False) else pairs[:1]):
            texts = [message["content"] for message in (question, answer)]
            roles = (question["role"], answer["role"])
            if roles != ("user", "assistant") or not all(isinstance(text, str) for text in texts):
                continue
            form = forms[turn] if turn < len(forms) else ""
            task = task_of_turn(read(texts[0]), read(texts[1]), form, row.get("task"))
            if task in (Task.VISUAL_GROUNDING, Task.REFERRING_CLASSIFICATION):
                yield task, Question(number, *texts)


class ScoredTrainer(MeasuredTrainer):
    """Answers held-out questions at each evaluation; the scores are metrics of it, such as `eval_vg_recall`.

    An evaluation draws nothing from the generators of the run, so it changes no weight.
    """

    def __init__(
        self,
        *args: Any,
        eval_collator: Any = None,
        held_out: HeldOutQuestions | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.eval_collator = eval_collator
        self.held_out = held_out

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        collator = self.data_collator
        self.data_collator = self.eval_collator or collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        device = self.args.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        if self.held_out is not None and kwargs.get("metric_key_prefix", "eval") == "eval":
            scores = self._scores(self.held_out)
            output.metrics.update({f"eval_{name}": value for name, value in scores.items()})
        return output

    def _scores(self, held_out: HeldOutQuestions) -> dict[str, float]:
        """Each process answers its share, and all get the scores."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        asked = GroundingModel(model.eval(), self.processing_class)
        shares = held_out.queries(
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.args.per_device_eval_batch_size,
        )
        answers: list[tuple[int, str]] = []
        with self.accelerator.autocast():
            for numbers, queries in shares:
                answers += zip(numbers, asked.generate(queries, len(queries)), strict=True)
        model.train(was_training)
        return held_out.scores([text for _, text in sorted(gather_object(answers))])


class StopWithoutGain(EarlyStoppingCallback):
    """transformers' early stopping; a run that is resumed counts the evaluations before it, too."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        since = state.best_global_step or 0
        self.early_stopping_patience_counter = sum(
            name in entry and entry["step"] > since for entry in state.log_history
        )


def evaluation_of(
    args: BirdSFTConfig, rows: Dataset | IterableDataset | None, collator: GroundingCollator
) -> dict[str, Any]:
    """Arguments of a trainer for what a recipe says of evaluation: the rows, their collator, and the questions.

    All turns of a held-out row are evaluated. Raises ValueError for rows or settings that cannot be evaluated.
    """
    if rows is None:
        return {"eval_dataset": None}
    too_long = DROP if args.too_long == DROP else SPLIT
    eval_collator = replace(collator, max_turns=None, too_long=too_long)
    if isinstance(rows, Dataset):
        with args.main_process_first(desc="counting the tokens of held-out rows"):
            rows, _ = measured_rows(rows, eval_collator, args.dataset_num_proc)
    held_out = None
    if args.eval_questions:
        if sharding_of(args) in ("zero3", "fsdp"):
            raise ValueError(
                "eval_questions cannot be answered while a model is sharded (ZeRO-3, FSDP); set it to 0, or use DDP or "
                "ZeRO-2"
            )
        held_out = HeldOutQuestions.choose(rows, args.eval_questions, collator.images_dir)
    _check_metric(args, [] if held_out is None else held_out.names)
    return {"eval_dataset": rows, "eval_collator": eval_collator, "held_out": held_out}


def _check_metric(args: BirdSFTConfig, scores: Sequence[str]) -> None:
    """Raises ValueError, before the first step, if no evaluation gives `metric_for_best_model`."""
    if args.metric_for_best_model is None:
        return
    name = args.metric_for_best_model.removeprefix("eval_")
    known = {*_LOSSES, *scores}
    if name not in known:
        possible = nearest(name, known) or f"use one of {', '.join(sorted(known))}"
        needs = "; scores need eval_questions" if not args.eval_questions else ""
        raise ValueError(f"metric_for_best_model {name} is not computed; {possible}{needs}")


def callbacks_of(args: BirdSFTConfig) -> list[Any]:
    """The callbacks that a recipe asks for."""
    return [] if args.early_stopping_patience is None else [StopWithoutGain(args.early_stopping_patience)]
