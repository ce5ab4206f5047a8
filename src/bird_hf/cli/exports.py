"""The options of `bird data export`, and what it does for each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

ExportTo = Annotated[
    Literal[
        "original", "coco", "ms-swift", "llama-factory", "qwen", "internvl", "paligemma", "florence-2", "medgemma",
        "trl", "lmms-eval", "vlmevalkit",
    ],
    typer.Option(
        help="original: Med-GRIT files as published; coco: instances_SPLIT.json; else the trainer that will read it."
    ),
]  # fmt: skip
DialectName = Annotated[
    str | None,
    typer.Option(
        "--dialect", help="How the model writes boxes (see `bird dialects`); by default the trainer's own."
    ),
]
DialectSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the dialect, such as max_pixels=1003520; can be repeated."),
]
Splits = Annotated[
    str | None,
    typer.Option("--split", help="Splits, such as train or train,validation; by default all."),
]
Tasks = Annotated[
    str | None, typer.Option(help="Tasks, such as vg,roc; by default all that the trainer can use.")
]
WithImages = Annotated[bool, typer.Option(help="Whether to write the images too.")]
OwnImages = Annotated[
    Path | None,
    typer.Option("--images-dir", help="Folder with IMAGE_ID.png, for rows that hold no pixels."),
]
Link = Annotated[bool, typer.Option("--link", help="Link to files of --images-dir instead of copying them.")]


def check_options(to: str, taken: tuple[str, ...], given: dict[str, Any]) -> None:
    """Raises ValueError if an option was given that an export to `to` does not have."""
    if wrong := [f"--{name}" for name, value in given.items() if value and name not in taken]:
        raise ValueError(f"--to {to} has no {wrong[0]}; leave it out")


def export_for_trainer(
    data: Path,
    out: Path,
    to: str,
    dialect: str | None,
    settings: list[str],
    splits: str | None,
    tasks: str | None,
    images: bool,
    images_dir: Path | None,
    link: bool,
) -> None:
    """Exports a folder for a trainer, and prints the files and what was left out."""
    from ..data.export.folder import Choice, export_for
    from ..data.export.registry import open_trainer
    from ..data.folder.left_out import LEFT_OUT, left_out_lines
    from ..data.records import Task
    from .dialects import read_settings

    if link and images_dir is None:
        raise ValueError("--link links to the files of --images-dir; give that too")
    if images_dir is not None and not images_dir.is_dir():
        raise ValueError(f"{images_dir} is not a folder; give the one that holds IMAGE_ID.png")
    trainer = open_trainer(to, dialect, **read_settings(settings))
    chosen = tuple(map(Task, names_of(tasks) or ())) or None
    choice = Choice(names_of(splits), chosen, images, images_dir, link)
    exported = export_for(trainer, data, out, choice)
    for name, rows in exported.rows.items():
        typer.echo(f"{out / name}: {rows} rows")
    for reason, count in sorted(exported.left_out.items()):
        typer.echo(f"left out, {reason}: {count}")
    for line in left_out_lines(out / LEFT_OUT, exported.left_out.total()):
        typer.echo(line)


def names_of(text: str | None) -> tuple[str, ...] | None:
    """The names of a list such as `train,test`, each once; None without a list. Raises ValueError if it is empty."""
    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ValueError(f"{text!r} names nothing; give names with commas between them")
    return names
