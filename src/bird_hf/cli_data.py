"""`bird data ...`: one thin function a command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from .data.folder.subsets import SIZES, read_sizes

BuildSource = Annotated[
    Path, typer.Argument(help="SA-Med2D (folder or .zip), DICOM, or a folder with labels.yaml.")
]
Subsets = Annotated[
    str, typer.Option(help="Turns of nested training configs: 20000 makes chat_20k, vg_20k, ...")
]
Pixels = Annotated[
    bool | None, typer.Option("--pixels/--no-pixels", help="Rows hold images; by default where free.")
]
Wordings = Annotated[
    Literal["plain", "varied"],
    typer.Option(help="Templates' questions in the training split; the test split has the plain ones."),
]
_SUBSETS = ",".join(map(str, SIZES))
data_app = typer.Typer(help="Make and look at Med-GRIT data.", no_args_is_help=True, rich_markup_mode=None)

# Resolved, because a folder is made beside its place and then moved there: "." has no name to put beside.
OutFolder = Annotated[
    Path, typer.Option("--out", file_okay=False, resolve_path=True, help="Folder that receives the result.")
]


@data_app.command("sample")
def data_sample(out: OutFolder = Path("med-grit"), wordings: Wordings = "varied") -> None:
    """Render the embedded sample: real slices and phantoms, all four tasks, as Parquet."""
    from .data.embedded.sample_set import write_sample

    _echo_rows(write_sample(out, wordings))


@data_app.command("phantoms")
def data_phantoms(
    out: OutFolder = Path("phantoms"),
    count: Annotated[int, typer.Option(min=1, help="Pictures of each modality.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture.")] = 0,
    side: Annotated[int, typer.Option(min=64, max=2048, help="Longer side in pixels.")] = 256,
) -> None:
    """Draw phantoms of all eight modalities with their masks, in the layout of SA-Med2D."""
    from .data.phantoms.sa_med2d_folder import write_phantoms

    pictures, masks = write_phantoms(out, count, seed, side)
    typer.echo(f"{pictures} images and {masks} masks in {out}")


@data_app.command("build")
def data_build(
    src: BuildSource,
    out: OutFolder = Path("med-grit"),
    teacher: Annotated[
        str, typer.Option(help="Who writes the words: templates (offline), or openai (a chat model).")
    ] = "templates",
    model: Annotated[str | None, typer.Option(help="The chat model; its key is OPENAI_API_KEY.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Its endpoint, if not OpenAI's own.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Images wanted.")] = 60_000,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images; 0 is one a core.")] = 0,
    engine: Annotated[str, typer.Option(help="processes, or ray: on RAY_ADDRESS, else here.")] = "processes",
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampling, split and words.")] = 0,
    pixels: Pixels = None,
    subsets: Subsets = _SUBSETS,
    wordings: Wordings = "varied",
    batch: Annotated[bool, typer.Option("--batch", help="Ask the chat model through its Batch API.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count its tokens, ask nothing.")] = False,
    prompt_price: Annotated[float, typer.Option(min=0, help="Of a million, for --dry-run.")] = 0.0,
    reply_price: Annotated[float, typer.Option(min=0, help="Of a million, for --dry-run.")] = 0.0,
) -> None:
    """Build Med-GRIT from images and masks. A stopped build goes on when it is called again."""
    from .data.build.pipeline import BuildSettings, build
    from .data.build.publish import drop_table, image_table
    from .data.build.review_files import read_review
    from .data.teachers.open import open_teacher

    sizes, rejected = read_sizes(subsets), read_review(out / "review").turns
    words = open_teacher(teacher, seed, out / ".build" / "replies", model, base_url, batch, rejected)
    settings = BuildSettings(limit, seed, words.name, pixels=pixels, subsets=sizes, wordings=wordings)
    workers = workers or os.cpu_count() or 1
    if dry_run:
        from .data.build.costs import as_table, estimate_build

        found = estimate_build(src, out, settings, workers, words, engine)
        typer.echo(as_table(found, prompt_price, reply_price))
        return
    manifest = build(src, out, settings, workers, words, engine)
    typer.echo(f"{image_table(manifest)}\n\n{drop_table(manifest)}\n")
    _echo_rows(manifest["rows"])


@data_app.command("review")
def data_review(
    out: Annotated[Path, typer.Argument(file_okay=False, help="The --out of `bird data build`.")],
    source: Annotated[
        Path | None, typer.Option(help="What it was built from, to show pictures that it holds no copy of.")
    ] = None,
    each: Annotated[int, typer.Option(min=1, help="Questions of each modality and task.")] = 5,
) -> None:
    """Write names and a sample of questions as tables to accept or reject; the next build honours them."""
    from .reports.review import write_review

    for path, count in write_review(out, each, source).items():
        typer.echo(f"{path}: {count}")


@data_app.command("import")
def data_import(
    src: Annotated[list[Path], typer.Argument(help="Original Med-GRIT JSON files, or folders of them.")],
    images: Annotated[Path, typer.Option(help="Folder that holds ID.png of every entry.")],
    out: OutFolder = Path("med-grit"),
    split: Annotated[
        str | None, typer.Option(help="train, validation or test: of files whose names say none.")
    ] = None,
    pixels: Annotated[bool, typer.Option(help="Whether rows carry the images.")] = True,
) -> None:
    """Original Med-GRIT files (VG, RO, GC, MII) and their images -> a Med-GRIT folder; broken entries are counted."""
    from .data.original.importer import import_original

    imported = import_original(src, images, out, split, pixels)
    _echo_rows(imported.rows)
    for line in imported.left_out_lines():
        typer.echo(line)


@data_app.command("export")
def data_export(
    data: Annotated[Path, typer.Argument(help="A Med-GRIT folder.")],
    out: OutFolder,
    images: Annotated[bool, typer.Option(help="Whether to write the rows' pixels too.")] = True,
) -> None:
    """A Med-GRIT folder -> original Med-GRIT files and images, in a new folder."""
    from .data.original.exporter import export_original

    for name, turns in export_original(data, out, images).items():
        typer.echo(f"{out / name}: {turns} turns")


@data_app.command("stats")
def data_stats(
    data: Annotated[Path, typer.Argument(help="A Med-GRIT folder.")] = Path("med-grit"),
    out: OutFolder = Path("stats"),
) -> None:
    """Count turns, images, boxes and labels: tables (Markdown, JSON) and figures."""
    from .reports.statistics import write_statistics

    for path in write_statistics(data, out):
        typer.echo(str(path))


@data_app.command("audit")
def data_audit(
    data: Annotated[Path, typer.Argument(help="A Med-GRIT folder.")] = Path("med-grit"),
    out: Annotated[Path, typer.Option(help="The report to write (HTML).")] = Path("audit.html"),
) -> None:
    """Flag suspect labels, words and pictures in a report with thumbnails; nothing is dropped."""
    from .reports.audit import write_audit

    for suspicion, count in write_audit(data, out).items():
        typer.echo(f"{suspicion}: {count}")
    typer.echo(str(out))


@data_app.command("show")
def data_show(
    data: Annotated[Path, typer.Argument(help="A Med-GRIT folder.")] = Path("med-grit"),
    out: Annotated[Path, typer.Option(help="The picture to write (PNG).")] = Path("med-grit.png"),
    task: Annotated[str, typer.Option(help="vg, roc, rc, mia or chat.")] = "vg",
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    count: Annotated[int, typer.Option(min=1, max=200, help="Number of rows.")] = 16,
) -> None:
    """A contact sheet of rows: images with boxes, questions and answers."""
    from .draw import check_png_path, save_png
    from .reports.contact_sheet import contact_sheet_of

    check_png_path(out)
    save_png(contact_sheet_of(data, task, split, count), out)
    typer.echo(str(out))


def _echo_rows(rows: Mapping[str, Mapping[str, int]]) -> None:
    """How many rows a dataset has: a line a config."""
    for task, counts in rows.items():
        typer.echo(f"{task}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))
