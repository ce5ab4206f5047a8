"""`bird ...`: one thin function a command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .cli_data import OutFolder, data_app

app = typer.Typer(
    name="bird",
    help="Biomedical refer-and-ground: ask about images, get text with boxes. For research only, never clinical.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")


@app.command()
def quickstart(out: OutFolder = Path(".")) -> None:
    """Put ./bird and ./med-grit into place, ask held-out images a question of each task, write pictures."""
    from .sample import NOTICE, quickstart

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


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    question: Annotated[str, typer.Argument(help='For example "Where is the liver?"')],
    model: Annotated[Path, typer.Option(help="Checkpoint folder.")] = Path("bird"),
    box: Annotated[
        str | None, typer.Option(help="x1,y1,x2,y2 in pixels: what the question is about.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    draw: Annotated[Path | None, typer.Option(help="Write the image with the boxes here (PNG).")] = None,
) -> None:
    """Ask about an image; prints the answer and its boxes in pixels."""
    from .ask import ask, read_box_px
    from .draw import check_png_path, draw_spans, save_png

    if draw is not None:
        check_png_path(draw)
        if draw.exists() and image.exists() and draw.samefile(image):
            raise ValueError(f"--draw {draw} would overwrite the image; give another name")
    answer, picture = ask(model, image, question, None if box is None else read_box_px(box, "--box"))
    if draw is not None:
        save_png(draw_spans(picture, answer.grounded.spans), draw)
    if as_json:
        typer.echo(json.dumps(answer.as_json(), ensure_ascii=False))
        return
    typer.echo(answer.grounded.text)
    for span in answer.grounded.spans:
        for pixels in (item.to_pixels(answer.image_wh) for item in span.boxes):
            typer.echo(f"  {span.phrase}: " + ",".join(f"{value:.0f}" for value in pixels))
    for issue in answer.grounded.issues:
        typer.echo(f"  malformed answer: {issue}", err=True)


@app.command()
def convert(
    src: Annotated[
        Path, typer.Argument(help="Folder in the original Qwen-VL layout; with --vision, Qwen-7B's.")
    ],
    dst: Annotated[Path, typer.Argument(help="Folder that receives the BiRD checkpoint.")],
    vision: Annotated[
        Path | None,
        typer.Option(help="OpenCLIP file or folder whose vision tower SRC gets, and a new resampler."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16, float16 or float32; the source's unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the new resampler.")] = 0,
) -> None:
    """Convert original Qwen-VL weights into a BiRD checkpoint, or assemble one. A stopped run goes on."""
    from .convert import convert

    made = convert(src, dst, vision=vision, dtype=dtype, seed=seed)
    typer.echo(f"{made.path}: {made.num_parameters / 1e6:,.1f} M parameters in {made.dtype}")
    for block, size in made.blocks.items():
        typer.echo(f"  {block}: {size / 1e6:,.1f} M")
    for remark in made.remarks:
        typer.echo(remark, err=True)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    folder: Annotated[Path, typer.Argument(help="Folder that receives it.", resolve_path=True)],
    push_to: Annotated[
        str | None, typer.Option("--push", help="Then upload it: OWNER/NAME on the hub.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A new repository is public, not private.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List files and sizes, upload nothing.")] = False,
    origin: Annotated[
        str | None,
        typer.Option(help="Write the card anew: qwen-vl, med-grit, unrecorded, or your YAML file."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="report.json whose tables go into the card.")] = None,
) -> None:
    """Make a checkpoint folder that opens without this package, with a card, and push it to the hub."""
    from .export import export_checkpoint, push

    results = None
    if report is not None:
        from .eval.run_report import results_of

        results = results_of(report, model)
    files = export_checkpoint(model, folder, origin, results)
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
) -> None:
    """Train by a recipe. Any field of it can be set: --learning_rate 1e-4. A stopped run goes on."""
    _check_recipe(config)
    from .train.run import main

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    typer.echo(f"trained model: {main(['--config', str(config), *context.args])}")


@app.command()
def predict(
    model: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    data: Annotated[Path, typer.Option(help="Med-GRIT folder.")],
    task: Annotated[str, typer.Option(help="vg, roc, rc, mia; or all, into one folder.")],
    out: Annotated[Path, typer.Option(help="The prediction file to write (JSON lines); a folder for all.")],
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 32,
) -> None:
    """Answer every question of a split into a file, one line each. A stopped run goes on."""
    if task == "chat":
        raise ValueError("chat rows hold several questions; give --task vg, roc, rc, mia or all")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: the folder {out.parent} does not exist; create it first")
    from .checkpoint import load_checkpoint
    from .data.folder.publish import open_folder
    from .eval.predict import predict_dataset, predict_run

    if task == "all":
        counts = predict_run(model, data, out, split, batch_size)
        typer.echo(f"{out}: answers to " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
        return
    rows = open_folder(data, task, split)
    new = predict_dataset(*load_checkpoint(model), rows, out, batch_size)
    typer.echo(f"{out}: {len(rows)} answers, {new} of them new")


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="A prediction file.")],
    task: Annotated[str, typer.Option(help="vg, roc or mia.")],
    rules: Annotated[str, typer.Option(help="paper (its own scripts) or strict.")] = "paper",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score a prediction file by modality, as Tables 1 and 3 of the paper are scored."""
    from .eval.predictions import read_predictions
    from .eval.report import as_table, check_task, score_predictions

    check_task(task)  # before the file is looked for: no file would help
    scored = score_predictions(read_predictions(predictions, task), task, rules)
    typer.echo(json.dumps(scored) if as_json else as_table(scored))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of prediction files, or of several such folders.")],
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder, to predict first.")] = None,
    data: Annotated[Path | None, typer.Option(help="Med-GRIT folder, to predict first.")] = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    rules: Annotated[str, typer.Option(help="paper (its own scripts) or strict.")] = "paper",
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write the paper's Tables 3 and 1 into a folder of predictions; with --model and --data, predict them first."""
    from .eval.run_report import write_reports

    if (model is None) != (data is None):
        raise ValueError("--model and --data go together: give both to predict, or neither")
    if model is not None and data is not None:
        from .eval.predict import predict_run

        predict_run(model, data, run, split, batch_size)
    found, text = write_reports(run, rules)
    typer.echo(json.dumps(found) if as_json else text)


@app.command()
def demo(
    model: Annotated[Path, typer.Option(help="Checkpoint folder.")] = Path("bird"),
    data: Annotated[Path, typer.Option(help="Med-GRIT folder: its test images are the examples.")] = Path(
        "med-grit"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 7860,
    host: Annotated[
        str, typer.Option(help="Address of the page; 127.0.0.1 is seen from here only.")
    ] = "127.0.0.1",
) -> None:
    """Serve a page to ask examples or your own images in a browser. Ctrl+C ends it."""
    from .demo import run_demo

    run_demo(model, data, host, port)


def _shown_boxes(grounded) -> str:
    boxes = [item.to_thousandths() for item in grounded.boxes]
    return f"  {boxes}" if boxes else ""


def _check_recipe(path: Path) -> None:
    import yaml

    if not path.is_file():
        raise ValueError(f"{path}: no such recipe; those of the repository are in recipes/")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML ({error}); see recipes/nano.yaml") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is no recipe: it must hold `field: value` lines, as recipes/nano.yaml does")


def main() -> None:
    """The console script. Bad input ends in one line on stderr and exit code 2; BIRD_DEBUG=1 shows the traceback."""
    try:
        app(prog_name="bird")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("BIRD_DEBUG"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ModuleNotFoundError):
            message += "; install what this command needs: pip install 'bird-hf[train,data,medical,space]'"
        print(f"bird: {message}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
