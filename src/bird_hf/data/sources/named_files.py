"""Files below a folder, found by a name that a table gives: the name is compared and never opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from .base import files_below
from .faults import Drop, FaultyImageError

_LONGEST_NAME = 1000  # characters of a name with its folders


class NamedFiles:
    """The files with some endings below a folder, at any depth. A place is a path relative to the folder, with `/`."""

    def __init__(self, root: Path, endings: Sequence[str]) -> None:
        self.root = root
        self._endings = tuple(endings)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in sorted(Path(entry.path) for entry in files_below(root)):
            if path.name.lower().endswith(self._endings):
                place = path.relative_to(root).as_posix()
                self._by_name[path.name.casefold()].append(place)
                self._by_stem[self._stem(path.name).casefold()].append(place)

    def find(self, name: str) -> str:
        """The place of the one file of that name. Raises FaultyImageError if there is none or more than one.

        name: with or without folders and ending, in upper or lower case. Folders, and then the case, are compared only
        if several files have the name.
        """
        parts = PurePosixPath(name[:_LONGEST_NAME].strip().replace("\\", "/")).parts
        key = parts[-1].casefold() if parts else ""
        places = self._by_name.get(key) or self._by_stem.get(key) or []
        if len(places) > 1:
            places = self._in_folder(places, parts[:-1]) or places
        if len(places) > 1:
            places = [place for place in places if parts[-1] in self._names(place)] or places
        if len(places) != 1:
            raise FaultyImageError(
                Drop.MISSING_IMAGE, f"{len(places)} files of this name" if places else "no file of this name"
            )
        return places[0]

    def original_of(self, place: str) -> str:
        """The name of an image: that of its file without the ending, and with its folders if other files share it."""
        path = PurePosixPath(place)
        stem = self._stem(path.name)
        if len(self._by_stem[stem.casefold()]) == 1:
            return stem
        return "-".join((*path.parts[:-1], stem))

    def _names(self, place: str) -> tuple[str, str]:
        name = PurePosixPath(place).name
        return name, self._stem(name)

    def _stem(self, name: str) -> str:
        """The name without its ending; `1.2.840` has none."""
        ending = next((each for each in self._endings if name.lower().endswith(each)), "")
        return name[: -len(ending)] if ending else name

    @staticmethod
    def _in_folder(places: Sequence[str], folders: tuple[str, ...]) -> list[str]:
        """The places whose last folders are these."""
        wanted = tuple(folder.casefold() for folder in folders if folder not in ("/", ".", ".."))
        if not wanted:
            return []
        return [
            place for place in places if PurePosixPath(place.casefold()).parts[:-1][-len(wanted) :] == wanted
        ]
