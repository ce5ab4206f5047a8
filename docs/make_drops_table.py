"""Writes the table of reasons in docs/data.md from the code: `python docs/make_drops_table.py`."""

from __future__ import annotations

from pathlib import Path

from bird_hf.data.sources.faults import Drop

PAGE = Path(__file__).with_name("data.md")
START, END = "<!-- reasons: written by docs/make_drops_table.py -->\n", "<!-- end of reasons -->\n"


def table() -> str:
    """Every reason for which a build leaves an image out, and what to do about it, as Markdown."""
    lines = [f"| `{reason}` | {reason.remedy} |" for reason in Drop]
    return "\n".join(["| reason | what to do |", "|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}{table()}{END}{after}", encoding="utf-8")
