"""lmms-eval: a folder for `--include_path` with one task per Med-GRIT task and split.

The functions of a task are in `bird_hf.eval.lmms_task`, so that scores are those of `bird score`.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ...hub.grounding import write
from ..records import Task
from .base import NAME, Export, Trainer
from .rows import ExportRow, Said

_UTILS = '''\
"""The functions of the tasks in this folder. They need bird-hf in the environment of lmms-eval."""

from pathlib import Path

from bird_hf.eval.lmms_task import LmmsTask, mean, mean_over_modalities

_task = LmmsTask(Path(__file__).parent)
doc_to_visual, doc_to_text, doc_to_target = _task.doc_to_visual, _task.doc_to_text, _task.doc_to_target
process_vg, process_roc = _task.process_vg, _task.process_roc
'''
_YAML = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    {split}: {file}
test_split: {split}
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: !function utils.doc_to_target
generation_kwargs:
  max_new_tokens: 256
  temperature: 0
  do_sample: false
process_results: !function utils.process_{task}
metric_list:
{metrics}metadata:
  version: 1.0
"""
_METRIC = """\
  - metric: {name}
    aggregation: !function utils.{aggregation}
    higher_is_better: {better}
"""
# Of both tasks. The first is the paper's; the others are in `eval/lmms_task.py`.
_OURS = {"recall@0.5_paper": "mean_over_modalities", "recall@0.5_strict": "mean_over_modalities"}
_NAMES_OF_ROC = {"name_recall_paper": "mean_over_modalities", "name_recall_strict": "mean_over_modalities"}
_THEIRS = ("IoU", "ACC@0.1", "ACC@0.3", "ACC@0.5", "ACC@0.7", "ACC@0.9", "Center_ACC")


class LmmsEval(Trainer):
    """Rows with the question in the dialect and the reference in BiRD's tags, and a YAML file per task."""

    name: ClassVar[str] = "lmms-eval"
    tasks: ClassVar[tuple[Task, ...]] = (Task.VISUAL_GROUNDING, Task.REFERRING_CLASSIFICATION)

    def file_of(self, task: Task, split: str) -> str:
        return f"{NAME}_{task}_{split}.jsonl"

    def row(self, row: ExportRow, said: Said) -> dict[str, Any]:
        return {
            "image": self.picture_of(row),
            "question": said.question,
            "answer": said.answer,
            "reference": write(row.answer.text, row.answer.spans),
        }

    def register(self, export: Export) -> None:
        super().register(export)
        (export.folder / "utils.py").write_text(_UTILS, encoding="utf-8")
        for file in export.rows:
            name = file.removesuffix(".jsonl")
            task, split = name.removeprefix(f"{NAME}_").split("_", 1)
            names = _OURS if task == Task.VISUAL_GROUNDING else _NAMES_OF_ROC
            means = dict.fromkeys(_THEIRS, "mean") if task == Task.VISUAL_GROUNDING else {}
            metrics = [(each, how, True) for each, how in (names | means).items()]
            metrics.append(("unreadable_rate", "mean", False))
            text = _YAML.format(
                name=name,
                task=task,
                split=split,
                file=file,
                metrics="".join(
                    _METRIC.format(name=each, aggregation=how, better=json.dumps(better))
                    for each, how, better in metrics
                ),
            )
            (export.folder / f"{name}.yaml").write_text(text, encoding="utf-8")
