"""`bird predict`: answers to a split in prediction files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .model_options import DecodingOptions, ModelOptions, with_model_options

_REPLIES = ".replies"  # beside the predictions: an endpoint's answers


Data = Annotated[
    Path, typer.Option(help="Med-GRIT folder; for llava_med the file llava_med_eval_qa50_qa.jsonl.")
]
TaskName = Annotated[
    str, typer.Option(help="vg, roc, rc, mia; all, into one folder; or llava_med, LLaVA-Med's questions.")
]
Out = Annotated[Path, typer.Option(help="The prediction file to write (JSON lines); for all, a folder.")]
Split = Annotated[str, typer.Option(help="train or test.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Questions per batch.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first questions of each kind, this many.")]
Images = Annotated[Path | None, typer.Option(help="For llava_med: the folder of the images.")]


@with_model_options()
def predict(
    model: ModelOptions,
    decoding: DecodingOptions,
    data: Data,
    task: TaskName,
    out: Out,
    split: Split = "test",
    batch_size: BatchSize = 32,
    limit: Limit = None,
    images: Images = None,
) -> None:
    """Answer every question of a split into a file, one line each. A stopped run can be continued.

    Started with `accelerate launch`, each process answers a share. A model of another family is asked in its own way,
    and its answers are written in BiRD's, so that `bird score` reads them; what it said itself stands beside. Answers
    of an endpoint are kept in OUT.replies, and none is asked, or paid for, twice.

    Example: bird predict --model http://127.0.0.1:8000/v1 --served-model Qwen/Qwen3-VL-8B-Instruct --dialect qwen3-vl
    --data med-grit --task vg --out vg.jsonl
    """
    _check(task, out, images)
    from ..eval import predict as predicting

    choice, decoded = model.choice(out.with_name(out.name + _REPLIES)), decoding.decoding()
    if task == "all":
        counts = predicting.predict_run(choice, data, out, split, batch_size, limit, decoding=decoded)
        said = "answers to " + ", ".join(f"{count} {kind}" for kind, count in counts.items())
    else:
        opened = predicting.load_for_prediction(choice)
        if images is not None:
            new = predicting.predict_llava_med(opened, data, images, out, batch_size, limit, decoded)
            said = f"{new} new answers{predicting.failed(out)}"
        else:
            rows = _rows(data, task, split, limit)
            new = predicting.predict_dataset(opened, rows, out, batch_size, decoded)
            said = f"{len(rows)} answers, {new} of them new{predicting.failed(out)}"
    if predicting.is_main_process():
        typer.echo(f"{out}: {said}")


def _check(task: str, out: Path, images: Path | None) -> None:
    if task == "chat":
        raise ValueError("chat rows hold several questions; give --task vg, roc, rc, mia or all")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: the folder {out.parent} does not exist; create it first")
    if (task == "llava_med") != (images is not None):
        raise ValueError("--task llava_med needs --images, the folder of the images; other tasks have none")


def _rows(data: Path, task: str, split: str, limit: int | None) -> Any:
    from ..data.folder.publish import open_folder

    rows = open_folder(data, task, split)
    return rows.select(range(min(limit, len(rows)))) if limit else rows
