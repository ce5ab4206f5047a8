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
    data: Annotated[Path, typer.Option(help="Med-GRIT folder.")],
    task: Annotated[str, typer.Option(help="vg, roc, rc, mia; or all, into one folder.")],
    out: Annotated[Path, typer.Option(help="The prediction file to write (JSON lines); for all, a folder.")],
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per batch.")] = 32,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first questions of each kind, this many.")
    ] = None,
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
    from ..data.folder.publish import open_folder
    from ..eval.predict import failed, is_main_process, load_for_prediction, predict_dataset, predict_run

    choice, decoded = model.choice(out.with_name(out.name + _REPLIES)), decoding.decoding()
    if task == "all":
        counts = predict_run(choice, data, out, split, batch_size, limit, decoding=decoded)
        if is_main_process():
            typer.echo(f"{out}: answers to " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
        return
    rows = open_folder(data, task, split)
    rows = rows.select(range(min(limit, len(rows)))) if limit else rows
    new = predict_dataset(load_for_prediction(choice), rows, out, batch_size, decoded)
    if is_main_process():
        typer.echo(f"{out}: {len(rows)} answers, {new} of them new{failed(out)}")
