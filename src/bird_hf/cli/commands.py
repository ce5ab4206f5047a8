"""`bird ...`: one thin function per command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..extras import missing_extra
from ..progress import silence_bars_in_files
from ..repository_folders import find_recipe
from .ask import ask
from .data import OutFolder, data_app
from .dialects import dialects
from .model_options import ModelOptions, with_model_options
from .options import (
    FirstModel,
    RcMeasureOption,
    ReportData,
    ReportFolder,
    RunsArgument,
    ScaleOption,
)
from .plan import DevicesOption, MemoryOption, TflopsOption, UtilisationOption, planned
from .predict import predict
from .probe import probe
from .setup import setup_app

if TYPE_CHECKING:
    from ..eval.predictions import Prediction
    from ..eval.split_rows import SplitRows

app = typer.Typer(
    name="bird",
    help="Biomedical refer-and-ground: ask about images, get text with boxes. For research only, never clinical.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(setup_app, name="setup")


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"bird-hf {__version__}")
        raise typer.Exit


@app.callback()
def bird(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def quickstart(out: OutFolder = Path(".")) -> None:
    """Write ./bird and ./med-grit, ask a question of each task about held-out images, and draw the answers."""
    from ..sample import NOTICE, quickstart

    out.mkdir(parents=True, exist_ok=True)
    image_id = ""
    for example in quickstart(out):
        if example.image_id != image_id:
            image_id = example.image_id
            typer.echo(f"\n{image_id}")
        typer.echo(f"  [{example.task}] {example.question.text}{_shown_boxes(example.question)}")
        typer.echo(f"        model:     {example.answer.text}{_shown_boxes(example.answer)}")
        typer.echo(f"        reference: {example.reference.text}{_shown_boxes(example.reference)}")
    typer.echo(f"\nPictures: {out / 'quickstart'} (model solid, reference dashed green). {NOTICE}")


app.command()(ask)
app.command()(dialects)


@app.command()
def convert(
    src: Annotated[
        Path,
        typer.Argument(
            help="Folder in the original layout of Qwen-VL or LLaVA-Med; with --vision, also in that of Qwen-7B."
        ),
    ],
    dst: Annotated[Path, typer.Argument(help="Folder to write the checkpoint to.")],
    vision: Annotated[
        Path | None,
        typer.Option(
            help="With Qwen-7B an OpenCLIP file or folder: its vision tower and a new resampler are added. With "
            "LLaVA-Med a CLIP folder, whose vision tower is taken."
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16, float16 or float32; by default that of the source.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the new resampler's weights.")] = 0,
) -> None:
    """Convert original weights: Qwen-VL's, or the parts of one, into a BiRD checkpoint, LLaVA-Med's into transformers'
    LLaVA. A stopped run can be continued.
    """
    from ..convert import convert

    made = convert(src, dst, vision=vision, dtype=dtype, seed=seed)
    typer.echo(f"{made.path}: {made.num_parameters / 1e6:,.1f} M parameters in {made.dtype}")
    for block, size in made.blocks.items():
        typer.echo(f"  {block}: {size / 1e6:,.1f} M")
    for remark in made.remarks:
        typer.echo(remark, err=True)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder; with --merge, an adapter's.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write it to.", resolve_path=True)],
    push_to: Annotated[
        str | None, typer.Option("--push", help="Then upload it to OWNER/NAME on the hub.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; by default it is private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List files and sizes without uploading.")
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(help="Write a new card: qwen-vl, med-grit, unrecorded, or your YAML file."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="report.json with the tables of the card.")] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="MODEL is a LoRA adapter: merge it into its base model.")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="With --merge: the base model, if not the one that the adapter names.")
    ] = None,
) -> None:
    """Write a checkpoint folder that loads without this package, with a card, and push it to the hub."""
    from ..checkpoint.export import push

    files = _export_files(model, folder, origin, report, merge, base)
    for file in files:
        typer.echo(f"{file.stat().st_size:>14,}  {file.name}")
    typer.echo(f"{sum(file.stat().st_size for file in files):>14,}  bytes in {folder}")
    if push_to is None:
        return
    if dry_run:
        typer.echo(f"not uploaded to {push_to} (--dry-run)")
        return
    typer.echo(push(folder, push_to, private=not public))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    config: Annotated[Path, typer.Option(help="A recipe, such as recipes/nano.yaml.")],
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print what the run costs, by formula; nothing is loaded or trained."),
    ] = False,
    devices: DevicesOption = None,
    memory: MemoryOption = None,
    tflops: TflopsOption = None,
    utilisation: UtilisationOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print one JSON document.")] = False,
) -> None:
    """Train by a recipe. Options override its fields: --learning_rate 1e-4. A stopped run can be continued.

    Example: bird train --plan --config recipes/paper.yaml --devices 4 --memory 40 --tflops 312
    """
    recipe = find_recipe(config)
    _check_recipe(recipe)
    arguments = ["--config", str(recipe), *context.args]
    given = {"devices": devices, "memory": memory, "tflops": tflops, "utilisation": utilisation}
    hardware = {name: value for name, value in given.items() if value is not None}
    if plan:
        typer.echo(planned(arguments, hardware, as_json))
        return
    if hardware or as_json:
        raise ValueError(f"--{next(iter(hardware), 'json')} is for --plan; give that too, or leave it out")
    from ..train.run import main

    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    logging.basicConfig(level=logging.INFO if is_first else logging.ERROR, format="%(message)s")
    final = main(arguments)
    if is_first:
        typer.echo(f"trained model: {final}")


app.command()(predict)


OtherFile = Annotated[
    Path | None,
    typer.Argument(help="A second one with answers to the same questions, to compare.", show_default=False),
]
QuestionsFolder = Annotated[
    Path | None,
    typer.Option(help="Med-GRIT folder of the questions: adds cases, a baseline, and confusion of sides."),
]


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="A prediction file.")],
    task: Annotated[str, typer.Option(help="vg, roc, rc or mia.")],
    other: OtherFile = None,
    rules: Annotated[str, typer.Option(help="paper (those of its scripts) or strict.")] = "paper",
    rc_measure: RcMeasureOption = "spice",
    data: QuestionsFolder = None,
    split: Annotated[str, typer.Option(help="With --data: train or test.")] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score a prediction file by modality, as in Tables 1 and 3 of the paper, with intervals; or compare two."""
    from ..eval.score import check_task, score_predictions
    from ..eval.score_tables import table_of_comparison, table_of_scores

    check_task(task)  # first, because no file could be scored
    if task == "rc":
        from ..eval.captions import check_measure

        check_measure(rc_measure)
    first, rows = _answers_of(predictions, task, data, split)
    if other is None:
        scored = score_predictions(first, task, rules, rows, rc_measure)
        typer.echo(json.dumps(scored) if as_json else table_of_scores(scored))
        return
    from ..eval.compare import compare_predictions

    second, _ = _answers_of(other, task, data, split)
    compared = compare_predictions(first, second, task, rules, rc_measure)
    names = [str(predictions), str(other)]
    typer.echo(json.dumps(compared) if as_json else table_of_comparison(compared, names))


def _answers_of(
    path: Path, task: str, data: Path | None, split: str
) -> tuple[Sequence[Prediction], SplitRows | None]:
    """The answers of a file, and the rows that they answer if there is a folder of them."""
    from ..eval.predictions import read_predictions

    found = read_predictions(path, task)
    if data is None:
        return found, None
    from ..data.records import Task
    from ..eval.split_rows import split_rows

    rows = split_rows(found, data, Task(task), split)
    return rows.predictions, rows


@app.command()
def report(
    runs: RunsArgument = None,
    out: ReportFolder = None,
    model: FirstModel = None,
    data: ReportData = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    rules: Annotated[str, typer.Option(help="paper (those of its scripts) or strict.")] = "paper",
    scale: ScaleOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per batch.")] = 32,
    rc_measure: RcMeasureOption = "spice",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write the paper's tables for runs, beside its own figures: report.md, report.json and report.html.

    With --model and --data, predict into RUN first.

    Examples: `bird report runs/bird --model bird --data med-grit`; `bird report runs/a runs/b --data med-grit --out
    both`; `bird report --scale 20k=runs/20k --scale 40k=runs/40k --out study`.
    """
    from ..reports.run_report import Choices, write_report

    paths = runs or []
    if model is not None:
        if data is None:
            raise ValueError("--model and --data go together: give both to predict")
        if len(paths) != 1 or scale:
            raise ValueError("--model predicts into one run; give one RUN and no --scale")
        from ..eval.predict import predict_run

        predict_run(model, data, paths[0], split, batch_size)
    choices = Choices(rules, rc_measure, data, split)
    found, text = write_report(paths, out, choices, scale or [])
    typer.echo(json.dumps(found) if as_json else text)


app.command()(probe)


@app.command()
@with_model_options(default="bird")
def demo(
    model: ModelOptions,
    data: Annotated[Path, typer.Option(help="Med-GRIT folder with the example images.")] = Path("med-grit"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to serve on; 127.0.0.1 can be reached from this machine only.")
    ] = "127.0.0.1",
) -> None:
    """Serve a web page for asking about example images or your own. Ctrl+C stops it."""
    from ..demo.page import run_demo

    run_demo(model.choice(), data, host, port)


def _export_files(
    model: Path, folder: Path, origin: str | None, report: Path | None, merge: bool, base: str | None
) -> list[Path]:
    from ..checkpoint.export import export_checkpoint, export_merged

    if merge:
        if report is not None:
            raise ValueError(
                "--merge writes new weights, which --report is not about; run `bird report` on them, then export again"
            )
        return export_merged(model, folder, base, origin)
    if base is not None:
        raise ValueError("--base is the base model of an adapter; give --merge with it")
    results = None
    if report is not None:
        from ..eval.tables import results_of

        results = results_of(report, model)
    return export_checkpoint(model, folder, origin, results)


def _shown_boxes(grounded) -> str:
    boxes = [item.to_thousandths() for item in grounded.boxes]
    return f"  {boxes}" if boxes else ""


def _check_recipe(path: Path) -> None:
    import yaml

    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file ({error}); see recipes/nano.yaml") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is not a recipe: it must hold `field: value` lines, like recipes/nano.yaml")


def main() -> None:
    """The console script. Wrong input ends in one line on stderr and exit code 2; BIRD_DEBUG=1 shows the traceback."""
    silence_bars_in_files()
    try:
        app(prog_name="bird")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("BIRD_DEBUG"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ModuleNotFoundError):
            message += f"; {missing_extra('train', 'data', 'eval', 'medical', 'space')}"
        print(f"bird: {message}", file=sys.stderr)
        raise SystemExit(2) from None
