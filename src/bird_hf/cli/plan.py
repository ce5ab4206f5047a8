"""`bird train --plan`: its options, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

DevicesOption = Annotated[int | None, typer.Option(min=1, help="With --plan: number of GPUs (default 8).")]
MemoryOption = Annotated[float | None, typer.Option(help="With --plan: memory of a GPU in GB (default 80).")]
TflopsOption = Annotated[
    float | None,
    typer.Option(help="With --plan: peak TFLOP/s of a GPU in bf16 (default 989, H100; A100: 312)."),
]
UtilisationOption = Annotated[
    float | None,
    typer.Option(help="With --plan: share of the peak that training reaches (default 0.35)."),
]


def planned(arguments: Sequence[str], hardware: Mapping[str, Any], as_json: bool) -> str:
    """The plan of a recipe as text, or as one JSON document."""
    from ..train.plan import Hardware, make_plan
    from ..train.plan_tables import text_of_plan

    plan = make_plan(arguments, Hardware(**hardware))
    return json.dumps(plan) if as_json else text_of_plan(plan)
