"""`bird setup ...`: puts what pip cannot install where the package finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

setup_app = typer.Typer(
    help="Download what the package needs and pip does not install.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@setup_app.callback()
def setup() -> None:
    pass


@setup_app.command()
def spice(
    source: Annotated[
        Path | None, typer.Option("--from", help="Copy the archives from this folder instead of downloading.")
    ] = None,
) -> None:
    """Put the Java archives of SPICE (369 MiB, Maven Central) into the cache, or into BIRD_CORENLP."""
    from ..eval.corenlp import set_up

    typer.echo(f"SPICE is ready: {set_up(source)}")
