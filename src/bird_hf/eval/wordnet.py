"""WordNet's synonyms of English words, without Java: the synsets that METEOR and SPICE read.

They are text files in the METEOR archive of pycocoevalcap's wheel: `english.synsets` (a word, then the numbers of its
synsets) and `english.exceptions` (a base form, then its irregular forms).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from ..extras import missing_extra

_ARCHIVE = Path("lib", "Meteor-1.5.jar")
# WordNet's rules of detachment (morphy): the ending of an inflected form, and of its base.
_ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
    ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""), ("er", ""),
    ("est", ""), ("er", "e"), ("est", "e"),
)  # fmt: skip
_MIN_STEM = 2  # letters


@lru_cache(maxsize=65_536)
def synsets_of(words: str) -> frozenset[int]:
    """The numbers of the synsets of a word or of words with spaces, in lower case, and of their base forms.

    Raises ValueError if the toolkit that contains WordNet is not installed.
    """
    name = words.strip().lower().replace(" ", "_")
    synsets, bases = _wordnet()
    found = set(synsets.get(name, ()))
    for base in (*bases.get(name, ()), *_detached(name)):
        found.update(synsets.get(base, ()))
    return frozenset(found)


def _detached(name: str) -> Iterator[str]:
    for ending, base in _ENDINGS:
        stem = name.removesuffix(ending)
        if stem != name and len(stem) >= _MIN_STEM:
            yield stem + base


@lru_cache(maxsize=1)
def _wordnet() -> tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[str, ...]]]:
    """The synsets by word, and the base forms by irregular form."""
    try:
        from pycocoevalcap import spice
    except ImportError as error:
        raise ValueError(f"WordNet comes with the COCO caption toolkit; {missing_extra('eval')}") from error
    with zipfile.ZipFile(Path(str(spice.__file__)).parent / _ARCHIVE) as archive:
        synsets = dict(_pairs(archive.read("synonym/english.synsets").decode("utf-8")))
        exceptions = list(_pairs(archive.read("synonym/english.exceptions").decode("utf-8")))
    bases: dict[str, tuple[str, ...]] = {}
    for base, forms in exceptions:
        for form in forms:
            bases[form] = (*bases.get(form, ()), base)
    return {word: tuple(map(int, numbers)) for word, numbers in synsets.items()}, bases


def _pairs(text: str) -> Iterator[tuple[str, list[str]]]:
    lines = text.splitlines()
    for word, values in zip(lines[::2], lines[1::2], strict=True):
        yield word, values.split()
