"""Options that several commands have, and the long ones of `bird report`."""

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
RunsArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Runs: folders of prediction files, folders of such folders, or prediction files."),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder of the report; by default RUN, or ./report for several runs or a file."
    ),
]
FirstModel = Annotated[
    Path | None,
    typer.Option("--model", help="Checkpoint folder or OWNER/NAME on the hub, to predict first."),
]
ReportData = Annotated[
    Path | None,
    typer.Option("--data", help="Med-GRIT folder of the questions: adds pictures, cases, a baseline, sides."),
]
ScaleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scale", help="TURNS=RUN, such as 20k=runs/small, repeated: draws scores by amount of data."
    ),
]
