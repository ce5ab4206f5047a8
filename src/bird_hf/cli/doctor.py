"""`bird data doctor`: which convention the boxes of a file are in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonOption

if TYPE_CHECKING:
    from ..data.doctor.diagnosis import Diagnosis

BoxFile = Annotated[Path, typer.Argument(help="Parquet, JSON, JSON lines, CSV, TSV or COCO with boxes.")]
ImageFolder = Annotated[
    Path | None, typer.Option("--images", help="Folder of the pictures, for their sizes.")
]
MaskFolder = Annotated[
    Path | None,
    typer.Option("--masks", help="Folder of masks named like the pictures; they decide most questions."),
]


def doctor(
    file: BoxFile, images: ImageFolder = None, masks: MaskFolder = None, as_json: JsonOption = False
) -> None:
    """Say which convention the boxes of a file are in: scale, order, origin, far corner, frame, dialect.

    Every hypothesis is printed with the number of boxes that contradict it. Where several remain, the answer is "cannot
    tell", with what would decide. The file is not changed, and no other command uses the result.

    Example: bird data doctor answers.jsonl --images pictures --masks masks
    """
    from ..data.doctor.examine import examine

    found = examine(file, images, masks)
    if as_json:
        document = {
            "file": str(file),
            "kind": found.kind,
            "rows": found.rows,
            "notes": list(found.notes),
            "fields": [each.as_json() for each in found.diagnoses],
        }
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{file}: {found.kind}, {found.rows:,} rows")
    for note in found.notes:
        typer.echo(f"note: {note}")
    for each in found.diagnoses:
        _show(each)


def _show(diagnosis: Diagnosis) -> None:
    from ..markdown import Table

    of = f"{diagnosis.boxes:,} boxes, {diagnosis.sized:,} of pictures of known size, {diagnosis.masked:,} with masks"
    typer.echo(f"\n{diagnosis.source}: {of}\n")
    rows = [
        [
            line.dimension,
            line.hypothesis,
            f"{line.against:,} of {line.total:,}",
            line.by,
            "excluded" if line.excluded else "possible",
            line.first or "-",
        ]
        for line in diagnosis.lines
    ]
    header = ["dimension", "hypothesis", "contradicted by", "evidence", "verdict", "first example"]
    typer.echo(f"{Table(header, rows)}\n")
    for note in diagnosis.notes:
        typer.echo(f"note: {note}")
    for sentence in diagnosis.verdict:
        typer.echo(sentence)
