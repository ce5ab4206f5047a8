"""Writes the tables in docs/dialects.md from the code: `python docs/make_dialects_table.py`."""

from __future__ import annotations

from pathlib import Path

from bird_hf import Box, GroundedText, Span, dialects
from bird_hf.dialects import Dialect
from bird_hf.markdown import Markup, table

PAGE = Path(__file__).with_name("dialects.md")
START, END = "<!-- dialects: written by docs/make_dialects_table.py -->\n", "<!-- end of dialects -->\n"
IMAGE_WH, PIXELS = (800, 600), (200, 90, 500, 330)
_TASKS = ("vg", "roc", "rc", "mia")


def tables() -> str:
    """What each dialect writes, its convention, how it asks, and what is known of it, as Markdown."""
    found = [dialects.get(name) for name in dialects.names()]
    written = [(Markup(f"`{each.name}`"), _code(each.write(_answer(), image_wh=IMAGE_WH))) for each in found]
    asked = [(Markup(f"`{each.name}`"), *(_code(_asked(each, task)) for task in _TASKS)) for each in found]
    known = [(Markup(f"`{each.name}`"), each.models, each.known) for each in found]
    return "\n\n".join(
        [
            table(("dialect", "the example is written"), written),
            table(
                ("dialect", "frame", "order", "numbers", "rounded", "a step"),
                map(_convention, found),
            ),
            table(
                ("dialect", "what the model sees", "absent objects", "words outside phrases"),
                map(_habits, found),
            ),
            table(("dialect", *_TASKS), asked),
            table(("dialect", "models", "known from, and not known"), known),
            "",
        ]
    )


def _answer() -> GroundedText:
    return GroundedText("left kidney", (Span("left kidney", 0, 11, (Box.from_pixels(PIXELS, IMAGE_WH),)),))


def _convention(dialect: Dialect) -> tuple[object, ...]:
    described, view = dialect.describe(), dialect.view(IMAGE_WH)
    steps = dict.fromkeys(f"1/{grid.scale}" for grid in dialect.grids(view))
    return (
        Markup(f"`{dialect.name}`"),
        dialect.frame,
        described["order"],
        described["grid"],
        described["rounding"],
        " and ".join(steps),
    )


def _habits(dialect: Dialect) -> tuple[object, ...]:
    absent = "a sentence" if dialect.absent is None else _code(dialect.absent)
    words = "are kept" if dialect.keeps_text else "are not written beside boxes"
    return Markup(f"`{dialect.name}`"), dialect.sees, absent, words


def _asked(dialect: Dialect, task: str) -> str:
    template = getattr(dialect.questions, task)
    return "not asked" if template is None else template


def _code(text: str) -> Markup:
    """Text between backticks, more of them than it holds in a row; a bar would end the cell."""
    escaped = text.replace("|", "\\|")
    return Markup(f"```` {escaped} ````" if "`" in escaped else f"`{escaped}`")


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}{tables()}{END}{after}", encoding="utf-8")
