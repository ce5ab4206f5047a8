"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[Path, typer.Option("--model", help="Checkpoint folder, or OWNER/NAME on the hub.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
