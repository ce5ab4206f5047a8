"""How a name can be written: synonyms and plurals from a table, articles; and words that are in no label."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

Part = Literal["train", "held_out", "all"]

_TABLES = Path(__file__).parents[1] / "tables"


@cache
def synonyms_of(label: str) -> tuple[str, ...]:
    """The other names of a label, without the label itself: left clavicle -> left collarbone."""
    tables = _synonyms()
    found = list(tables["labels"].get(label, ()))
    for word, others in tables["words"].items():
        whole = re.compile(rf"\b{re.escape(word)}\b")
        found += [whole.sub(other, label) for other in others if whole.search(label) and other not in label]
    return tuple(dict.fromkeys(found))


@cache
def plural_of(name: str) -> str | None:
    """The plural of a name that an image can show several times, else None: polyp -> polyps."""
    first, space, last = name.rpartition(" ")
    plural = _synonyms()["plurals"].get(last)
    return f"{first}{space}{plural}" if plural else None


def unknown_words(part: Part) -> tuple[str, ...]:
    """Words that are in no label of the embedded data; the held-out ones are for tests only."""
    tables = read_table("unknown_words.yaml")
    train, test = tuple(tables["train"]), tuple(tables["test"])
    return {"train": train, "held_out": test, "all": train + test}[part]


def with_article(words: str) -> str:
    """Words after "a" or "an"."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


@cache
def read_table(name: str) -> Any:
    """A YAML table of the teachers."""
    return yaml.safe_load((_TABLES / name).read_text(encoding="utf-8"))


def _synonyms() -> Any:
    return read_table("synonyms.yaml")
