"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[Path, typer.Option("--model", help="Checkpoint folder, or OWNER/NAME on the hub.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RcMeasureOption = Annotated[
    str,
    typer.Option(
        "--rc-measure", help="Of captions (rc): spice (Java, `bird setup spice`) or scene_graph_f1."
    ),
]
