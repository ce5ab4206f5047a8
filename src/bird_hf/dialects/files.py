"""`dialect.json`: the dialect of exported rows, a model or answers, with its settings and its convention in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..atomic_writes import write_text
from .base import Dialect
from .registry import get

FILE_NAME = "dialect.json"
_LARGEST_FILE = 64 * 1024  # bytes


def write_dialect(dialect: Dialect, path: Path) -> Path:
    """Writes a dialect to a file, or into a folder as `dialect.json`; returns the file."""
    file = path / FILE_NAME if path.is_dir() else path
    content = {"dialect": dialect.name, "settings": dialect.settings, **dialect.describe()}
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return file


def read_dialect(path: Path) -> Dialect:
    """The dialect of a file, or of the `dialect.json` of a folder.

    Raises ValueError if the file is not one, or says of its convention what this version does not do: boxes would be
    read in another way than they were written.
    """
    file = path / FILE_NAME if path.is_dir() else path
    content = _load(file)
    name, settings = content.get("dialect"), content.get("settings", {})
    if not isinstance(name, str) or not isinstance(settings, dict):
        raise ValueError(
            f'{file} is not a dialect file: it needs "dialect" (a name) and "settings" (an object)'
        )
    try:
        dialect = get(name, **settings)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    described = dialect.describe()
    if unknown := [key for key in content if key not in ("dialect", "settings", *described)]:
        raise ValueError(
            f'{file}: {unknown[0][:80]!r} is not known; settings of a dialect stand under "settings", and {name} has '
            f"{', '.join(dialect.settings) or 'none'}"
        )
    for key, ours in described.items():
        if key in content and content[key] != ours:
            theirs = str(content[key])[:80]
            raise ValueError(
                f"{file}: {key} is {theirs!r} there and {ours!r} in {name}; the file is of another version, or was "
                "changed by hand (only `settings` can be)"
            )
    return dialect


def _load(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        data = opened.read(_LARGEST_FILE + 1)
    if len(data) > _LARGEST_FILE:
        raise ValueError(f"{file} is not a dialect file: it is larger than {_LARGEST_FILE // 1024} KiB")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not a dialect file: it is not JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a dialect file: it is not a JSON object")
    return content
