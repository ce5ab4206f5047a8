"""Writes docs/cli.md from the commands' own help: `python docs/make_cli_page.py`."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from bird_hf.cli import app

PAGE = Path(__file__).with_name("cli.md")
HEAD = "<!-- Written by docs/make_cli_page.py. Change the help in the code, then run it. -->\n\n"


def page() -> str:
    """The help of `bird` and of each of its commands, as Markdown."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="bird")
    text = get_docs_for_click(obj=command, ctx=context, name="bird", title="The bird command")
    return HEAD + text.strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
