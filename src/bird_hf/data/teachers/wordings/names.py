"""How a name can be written: synonyms and plurals from a table, articles; and words that are in no label."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

Part = Literal["train", "held_out", "all"]

_SYLLABLES = (  # noqa: SIM905
    "ba bre ca chi clo cu da de dri fa fi flo ga gle gu ha hy in ka kre la li lo ma me mo na ne no or pa phe pli pro "
    "qua ra re ro sa ser sta stre sy ta the ti tro tu um va ve vo wa we xe ya zo"
).split()
_WORD_ENDS = ("", *"l m n r s t x ck nd st sis tion ter ule oma ine us".split())  # noqa: SIM905
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


def invented_words(count: int) -> tuple[str, ...]:
    """Words that do not exist, built of syllables, always the same: a list of real words is soon known by heart."""
    rng = np.random.default_rng(0)
    known = {*unknown_words("all")}
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [_SYLLABLES[int(rng.integers(len(_SYLLABLES)))] for _ in range(int(rng.integers(2, 5)))]
        word = "".join(parts) + _WORD_ENDS[int(rng.integers(len(_WORD_ENDS)))]
        if word not in known:
            found[word] = None
    return tuple(found)


def with_article(words: str) -> str:
    """Words after "a" or "an"."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


@cache
def read_table(name: str) -> Any:
    """A YAML table of the teachers."""
    return yaml.safe_load((_TABLES / name).read_text(encoding="utf-8"))


def _synonyms() -> Any:
    return read_table("synonyms.yaml")
