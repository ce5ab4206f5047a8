"""`bird data ...`: one thin function per command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..data.folder.subsets import SIZES, read_sizes
from .doctor import doctor
from .exports import (
    DialectName,
    DialectSettings,
    ExportTo,
    Link,
    OwnImages,
    Splits,
    Tasks,
    WithImages,
    check_options,
    export_for_trainer,
    names_of,
)

BuildSource = Annotated[
    Path, typer.Argument(help="SA-Med2D (folder or .zip), DICOM, or a folder with labels.yaml.")
]
Subsets = Annotated[
    str, typer.Option(help="Turns per nested training config: 20000 adds chat_20k, vg_20k, ...")
]
Teacher = Annotated[
    str, typer.Option(help="What writes the dialogues: templates (offline), or openai (a chat model).")
]
Pixels = Annotated[
    bool | None,
    typer.Option(
        "--pixels/--no-pixels", help="Whether rows hold the images; by default if the licence allows it."
    ),
]
Wordings = Annotated[
    Literal["plain", "varied"],
    typer.Option(help="Templates' questions in the training split; the test split has the plain ones."),
]
ChatModel = Annotated[str | None, typer.Option(help="The chat model; set OPENAI_API_KEY to its key.")]
Endpoint = Annotated[str | None, typer.Option(help="Endpoint of the chat model, if not OpenAI's.")]
Masks = Annotated[bool, typer.Option("--masks", help="Add the column masks: outlines as COCO run lengths.")]
Turns = Annotated[
    int | None, typer.Option(min=1, help="Most questions per image, of templates; by default about 5.")
]
Limit = Annotated[int, typer.Option(min=1, help="Largest number of images.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read images; 0 is one per core.")]
ImageModality = Annotated[
    str | None,
    typer.Option("--modality", help="Of the images, if the source does not say it: ct, mr, x_ray, ..."),
]
Price = Annotated[float, typer.Option(min=0, help="Of a million tokens, for the costs of --dry-run.")]
_SUBSETS = ",".join(map(str, SIZES))
data_app = typer.Typer(
    help="Make, check and inspect Med-GRIT data.", no_args_is_help=True, rich_markup_mode=None
)

# Resolved, because a folder is first written beside its final place under a name made from its own; "." has none.
OutFolder = Annotated[
    Path, typer.Option("--out", file_okay=False, resolve_path=True, help="Folder to write the result to.")
]


@data_app.command("sample")
def data_sample(out: OutFolder = Path("med-grit"), wordings: Wordings = "varied") -> None:
    """Write the embedded sample as Parquet: real slices and phantoms, all four tasks."""
    from ..data.embedded.sample_set import write_sample

    _echo_rows(write_sample(out, wordings))


@data_app.command("phantoms")
def data_phantoms(
    out: OutFolder = Path("phantoms"),
    count: Annotated[int, typer.Option(min=1, help="Pictures of each modality.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture.")] = 0,
    side: Annotated[int, typer.Option(min=64, max=2048, help="Longer side in pixels.")] = 256,
) -> None:
    """Draw phantoms of all eight modalities with their masks, in the layout of SA-Med2D."""
    from ..data.phantoms.sa_med2d_folder import write_phantoms

    pictures, masks = write_phantoms(out, count, seed, side)
    typer.echo(f"{pictures} images and {masks} masks in {out}")


@data_app.command("build")
def data_build(
    src: BuildSource,
    out: OutFolder = Path("med-grit"),
    teacher: Teacher = "templates",
    model: ChatModel = None,
    base_url: Endpoint = None,
    limit: Limit = 60_000,
    workers: Workers = 0,
    engine: Annotated[str, typer.Option(help="processes, or ray: at RAY_ADDRESS, else local.")] = "processes",
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampling, split and dialogues.")] = 0,
    pixels: Pixels = None,
    subsets: Subsets = _SUBSETS,
    wordings: Wordings = "varied",
    batch: Annotated[bool, typer.Option("--batch", help="Use the Batch API of the chat model.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the chat model's tokens.")] = False,
    prompt_price: Price = 0.0,
    reply_price: Price = 0.0,
    modality: ImageModality = None,
    masks: Masks = False,
    turns: Turns = None,
) -> None:
    """Build Med-GRIT from images and masks. Run the same command again to continue a stopped build."""
    from ..data.build.pipeline import BuildSettings, build
    from ..data.build.publish import drop_table, image_table, left_out_count
    from ..data.build.review_files import read_review
    from ..data.teachers.open import open_teacher

    sizes, rejected = read_sizes(subsets), read_review(out / "review").turns
    words = open_teacher(teacher, seed, out / ".build" / "replies", model, base_url, batch, rejected, turns)
    settings = BuildSettings(limit, seed, words.name, pixels=pixels, subsets=sizes, wordings=wordings)
    settings = replace(settings, modality=_modality(modality), masks=masks, turns=turns)
    if dry_run:
        from ..data.build.costs import as_table, estimate_build

        found = estimate_build(src, out, settings, _count(workers), words, engine)
        return typer.echo(as_table(found, prompt_price, reply_price))
    manifest = build(src, out, settings, _count(workers), words, engine)
    typer.echo(f"{image_table(manifest)}\n\n{drop_table(manifest)}\n")
    _echo_rows(manifest["rows"])
    _echo_left_out(out, left_out_count(manifest["dropped"]))


@data_app.command("check")
def data_check(
    src: BuildSource,
    out: OutFolder = Path("check"),
    limit: Limit = 60_000,
    workers: Workers = 0,
    modality: ImageModality = None,
) -> None:
    """Say what a build would take and leave out, and draw six images with their marks; nothing is built."""
    from ..data.build.pipeline import BuildSettings
    from ..data.build.publish import drop_table, left_out_count
    from ..reports.check import PICTURE, write_check

    settings = BuildSettings(limit, modality=_modality(modality))
    found = write_check(src, out, settings, _count(workers))
    typer.echo(f"{found.taken}\n\n{drop_table({'dropped': found.dropped})}\n")
    _echo_left_out(out, left_out_count(found.dropped))
    typer.echo(str(out / PICTURE))


data_app.command("doctor")(doctor)


@data_app.command("review")
def data_review(
    out: Annotated[Path, typer.Argument(file_okay=False, help="The --out folder of `bird data build`.")],
    source: Annotated[
        Path | None,
        typer.Option(help="The source of the build, to show images whose pixels the build does not hold."),
    ] = None,
    each: Annotated[int, typer.Option(min=1, help="Questions per modality and task.")] = 5,
) -> None:
    """Write tables of labels and sampled questions to accept or reject; the next build applies the decisions."""
    from ..reports.review import write_review

    for path, count in write_review(out, each, source).items():
        typer.echo(f"{path}: {count}")


@data_app.command("import")
def data_import(
    src: Annotated[list[Path], typer.Argument(help="Original Med-GRIT JSON files, or folders of them.")],
    images: Annotated[Path, typer.Option(help="Folder with ID.png for every entry.")],
    out: OutFolder = Path("med-grit"),
    split: Annotated[
        str | None, typer.Option(help="train, validation or test, for files whose names hold none.")
    ] = None,
    pixels: Annotated[bool, typer.Option(help="Whether rows hold the images.")] = True,
    orientation: Annotated[
        Literal["stored", "upright"] | None,
        typer.Option(help="The pixels that boxes of images with an EXIF orientation were made on."),
    ] = None,
) -> None:
    """Convert original Med-GRIT files (VG, RO, GC, MII) and their images; broken entries are skipped and counted."""
    from ..data.frames import Orientation
    from ..data.original.importer import import_original

    made_on = Orientation(orientation) if orientation else None
    imported = import_original(src, images, out, split, pixels, made_on)
    _echo_rows(imported.rows)
    for line in imported.left_out_lines():
        typer.echo(line)
    _echo_left_out(out, sum(imported.left_out.values()))


@data_app.command("export")
def data_export(
    data: Annotated[Path, typer.Argument(help="A Med-GRIT folder.")],
    out: OutFolder,
    to: ExportTo = "original",
    dialect: DialectName = None,
    split: Splits = None,
    tasks: Tasks = None,
    images: WithImages = True,
    images_dir: OwnImages = None,
    link: Link = False,
    settings: DialectSettings = None,
) -> None:
    """Convert a Med-GRIT folder for a trainer, to COCO, or to original Med-GRIT files, in a new folder.

    Example: bird data export med-grit --to llama-factory --dialect qwen3-vl --out for-training
    """
    options = {"dialect": dialect, "set": settings, "split": split, "tasks": tasks, "images-dir": images_dir}
    if to == "coco":
        from ..data.export.coco import export_coco

        check_options(to, ("split",), options | {"link": link})
        for name, boxes in export_coco(data, out, images, names_of(split)).items():
            typer.echo(f"{out / name}: {boxes} boxes")
    elif to == "original":
        from ..data.original.exporter import export_original

        check_options(to, (), options | {"link": link})
        for name, turns in export_original(data, out, images).items():
            typer.echo(f"{out / name}: {turns} turns")
    else:
        export_for_trainer(data, out, to, dialect, settings or [], split, tasks, images, images_dir, link)


@data_app.command("stats")
def data_stats(
    data: Annotated[Path, typer.Argument(help="A Med-GRIT folder.")] = Path("med-grit"),
    out: OutFolder = Path("stats"),
) -> None:
    """Count turns, images, boxes and labels; writes tables (Markdown, JSON) and figures."""
    from ..reports.statistics import write_statistics

    for path in write_statistics(data, out):
        typer.echo(str(path))


@data_app.command("audit")
def data_audit(
    data: Annotated[Path, typer.Argument(help="A Med-GRIT folder.")] = Path("med-grit"),
    out: Annotated[Path, typer.Option(help="The report to write (HTML).")] = Path("audit.html"),
) -> None:
    """Flag suspect labels, words and images in a report with thumbnails; the data stays as it is."""
    from ..reports.audit import write_audit

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
    """Write a contact sheet of rows: images with boxes, questions and answers."""
    from ..draw import check_png_path, save_png
    from ..reports.contact_sheet import contact_sheet_of

    check_png_path(out)
    save_png(contact_sheet_of(data, task, split, count), out)
    typer.echo(str(out))


def _echo_rows(rows: Mapping[str, Mapping[str, int]]) -> None:
    """Print the number of rows per config and split, one line per config."""
    for task, counts in rows.items():
        typer.echo(f"{task}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))


def _echo_left_out(out: Path, count: int) -> None:
    """Print the first images that were left out, with what to do, and the file that holds all."""
    from ..data.folder.left_out import LEFT_OUT, left_out_lines

    for line in left_out_lines(out / LEFT_OUT, count):
        typer.echo(line)


def _modality(name: str | None) -> str | None:
    """The name of a modality as rows have it. Raises ValueError, with the known ones, if it is unknown."""
    from ..data.records import Modality

    return None if name is None else Modality(name).value


def _count(workers: int) -> int:
    """The number of processes of --workers."""
    return workers or os.cpu_count() or 1
