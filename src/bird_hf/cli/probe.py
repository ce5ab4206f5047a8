"""`bird probe`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption


def probe(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder, or OWNER/NAME on the hub.")],
    before: Annotated[
        Path | None, typer.Option(help="The checkpoint before training, or its file by --out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the JSON document, with all answers, to a file.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 (the default), bfloat16 or float16.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask 40 general questions in words and 20 about plain pictures, before and after training on images with boxes.

    Example: bird probe runs/paper/final --before qwen-vl-chat-bird --out probe.json
    """
    from ..eval.probe import probe_checkpoint, table_of_probe

    document = probe_checkpoint(model, before, out, dtype)
    typer.echo(json.dumps(document) if as_json else table_of_probe(document))
