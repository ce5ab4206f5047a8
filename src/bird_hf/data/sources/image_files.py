"""Finds image files by the names that a table or a JSON file gives them.

Such names were written on other computers: with folders, with `\\`, or in other case. A name is never opened as a path;
it is compared with the files that there are, and counts only if exactly one fits.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .archives import Place
from .base import files_below

_EXACT, _SAME_PATH, _OTHER_CASE = 3_000_000, 2_000_000, 1_000_000  # above any number of parts in common


@dataclass(frozen=True)
class NoFile:
    """Why a name has no file, in words."""

    why: str


class ImageFiles:
    """The files below a folder, at any depth."""

    def __init__(self, root: Path, folder: str) -> None:
        self._folder = folder
        start = root / folder
        self._paths = {Path(entry.path).relative_to(start).as_posix() for entry in files_below(start)}
        self._by_case: dict[str, list[str]] = defaultdict(list)
        self._by_end: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self._paths):
            folded = _folded(path)
            self._by_case[folded].append(path)
            parts = folded.split("/")
            for first in range(len(parts)):
                self._by_end["/".join(parts[first:])].append(path)
        self._depth = max((path.count("/") + 1 for path in self._paths), default=0)

    def find(self, names: Iterable[str]) -> dict[str, str | NoFile]:
        """Name -> path of its file below the folder, with `/`.

        A file with the name's own path comes first, then one in other case, then the one with the most folders in
        common at the end. Of several names for one file the closest has it.
        """
        found: dict[str, str | NoFile] = {}
        claims: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for name in dict.fromkeys(names):
            rank, paths = self._fitting(name)
            if len(paths) == 1:
                claims[paths[0]].append((rank, name))
            else:
                found[name] = NoFile(f"{len(paths):,} files fit" if paths else "no file fits")
        for path, claimed in claims.items():
            best = max(rank for rank, _ in claimed)
            closest = [name for rank, name in claimed if rank == best]
            for _, name in claimed:
                alone = closest == [name]
                found[name] = path if alone else NoFile(f"{path} fits {len(claimed):,} names")
        return found

    def place(self, path: str) -> Place:
        """Where `FolderFiles` reads a file, of which the path below the folder is given."""
        head, _, name = path.rpartition("/")
        return [f"{self._folder}/{head}" if head else self._folder, name]

    def _fitting(self, name: str) -> tuple[int, list[str]]:
        """The files that fit a name best, and how well."""
        if name in self._paths:
            return _EXACT, [name]
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            return 0, []
        path = "/".join(parts)
        if path in self._paths:
            return _SAME_PATH, [path]
        folded = _folded(path)
        if paths := self._by_case.get(folded):
            return _OTHER_CASE, paths
        ends = folded.split("/")
        for common in range(min(len(ends), self._depth), 0, -1):
            if paths := self._by_end.get("/".join(ends[-common:])):
                return common, paths
        return 0, []


def original_of(path: str) -> str:
    """The name of an image in its dataset: its file name without the ending, after the folders that it is in."""
    parts = PurePosixPath(path)
    return "--".join((*parts.parts[:-1], parts.stem))


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
