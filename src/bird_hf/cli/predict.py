"""`bird predict`: answers to a split in prediction files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .model_options import DecodingOptions, ModelOptions, with_model_options

_REPLIES = ".replies"  # beside the predictions: an endpoint's answers


@with_model_options()
def predict(
    model: ModelOptions,
    decoding: DecodingOptions,
    data: Annotated[
        Path, typer.Option(help="Med-GRIT folder; for llava_med the file llava_med_eval_qa50_qa.jsonl.")
    ],
    task: Annotated[
        str, typer.Option(help="vg, roc, rc, mia; all, into one folder; or llava_med, LLaVA-Med's questions.")
    ],
    out: Annotated[Path, typer.Option(help="The prediction file to write (JSON lines); for all, a folder.")],
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per batch.")] = 32,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first questions of each kind, this many.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="For llava_med: the folder of the images.")] = None,
) -> None:
    """Answer every question of a split into a file, one line each. A stopped run can be continued.

    Started with `accelerate launch`, each process answers a share. A model of another family is asked in its own way,
    and its answers are written in BiRD's, so that `bird score` reads them; what it said itself stands beside. Answers
    of an endpoint are kept in OUT.replies, and none is asked, or paid for, twice.

    Example: bird predict --model http://127.0.0.1:8000/v1 --served-model Qwen/Qwen3-VL-8B-Instruct --dialect qwen3-vl
    --data med-grit --task vg --out vg.jsonl
    """
    if task == "chat":
        raise ValueError("chat rows hold several questions; give --task vg, roc, rc, mia or all")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: the folder {out.parent} does not exist; create it first")
    if (task == "llava_med") != (images is not None):
        raise ValueError("--task llava_med needs --images, the folder of the images; other tasks have none")
    from ..data.folder.publish import open_folder
    from ..eval import predict as predicting
    from ..eval.predict import failed, is_main_process, load_for_prediction

    choice, decoded = model.choice(out.with_name(out.name + _REPLIES)), decoding.decoding()
    if images is not None:
        new = predicting.predict_llava_med(
            load_for_prediction(choice), data, images, out, batch_size, limit, decoded
        )
        if is_main_process():
            typer.echo(f"{out}: {new} new answers{failed(out)}")
        return
    if task == "all":
        counts = predicting.predict_run(choice, data, out, split, batch_size, limit, decoding=decoded)
        if is_main_process():
            typer.echo(f"{out}: answers to " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
        return
    rows = open_folder(data, task, split)
    rows = rows.select(range(min(limit, len(rows)))) if limit else rows
    new = predicting.predict_dataset(load_for_prediction(choice), rows, out, batch_size, decoded)
    if is_main_process():
        typer.echo(f"{out}: {len(rows)} answers, {new} of them new{failed(out)}")
