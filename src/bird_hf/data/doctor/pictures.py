"""Sizes of pictures and boxes of masks, from folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

import numpy as np
from scipy import ndimage

from ..frames import frame_of
from ..sources.base import files_below
from ..sources.faults import FaultyImageError, read_values
from ..sources.image_files import ImageFiles
from ..sources.label_maps import IMAGE_ENDINGS
from .marks import Corners

MOST_CANDIDATES = 16  # boxes of the masks of a picture
MOST_MASK_FILES = 2000
_MOST_VALUES = 64  # a mask with more has been compressed with loss, and is one object


class PictureFolder:
    """The sizes of the pictures below a folder, by the names that rows give them."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError if there is no such folder."""
        if not folder.is_dir():
            raise ValueError(f"--images {folder}: no such folder; it holds the pictures that the file names")
        root = folder.resolve()
        self._root, self._files = root, ImageFiles(root.parent, root.name)

    def sizes(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Name -> width and height of the upright picture, for the names with a readable file."""
        wanted = list(dict.fromkeys(names))
        spelled = {name: [name, *(f"{name}{ending}" for ending in IMAGE_ENDINGS)] for name in wanted}
        found = self._files.find(each for several in spelled.values() for each in several)
        sizes = {}
        for name, several in spelled.items():
            path = next((found[each] for each in several if isinstance(found[each], str)), None)
            if path is None:
                continue
            try:
                sizes[name] = frame_of(self._root / str(path)).upright_wh
            except ValueError:
                continue
        return sizes


class MaskFolder:
    """The masks below a folder, by the pictures that they are of.

    A mask belongs to a picture if its name, or that of its folder, is the picture's without its ending, or is that with
    more behind `_`, `-` or `.`.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ValueError if there is no such folder."""
        if not folder.is_dir():
            raise ValueError(f"--masks {folder}: no such folder; it holds masks named like their pictures")
        self._by_picture: dict[str, list[Path]] = defaultdict(list)
        self.unreadable = 0
        for entry in files_below(folder):
            path = Path(entry.path)
            if path.suffix.lower() in IMAGE_ENDINGS:
                for name in {*_beginnings(path.stem), path.parent.name}:
                    self._by_picture[name].append(path)
        self._read = 0

    def boxes(self, image: str) -> tuple[tuple[int, int], list[Corners]] | None:
        """Size of a picture's masks, and the boxes that objects of it may have; None if there are no masks to read."""
        found: list[Corners] = []
        size: tuple[int, int] | None = None
        for path in sorted(self._by_picture.get(stem_of(image), ()))[:MOST_CANDIDATES]:
            if self._read >= MOST_MASK_FILES:
                break
            self._read += 1
            try:
                mask = _labels_of(path)
            except FaultyImageError:
                self.unreadable += 1
                continue
            height, width = mask.shape
            if size in (None, (width, height)):
                size = (width, height)
                found += mask_boxes(mask)
        found = list(dict.fromkeys(found))[:MOST_CANDIDATES]
        return (size, found) if size and found else None


def stem_of(image: str) -> str:
    """The name of a picture without folders and without the ending of an image file."""
    name = PurePath(image.replace("\\", "/")).name
    return name[: -len(PurePath(name).suffix)] if name.lower().endswith(IMAGE_ENDINGS) else name


def mask_boxes(labels: np.ndarray) -> list[Corners]:
    """The boxes of each value (H, W) but 0, of all of them together, and of their connected parts; half-open pixels."""
    values = [value for value in np.unique(labels)[: _MOST_VALUES + 1] if value]
    shown = (
        [labels != 0]
        if len(values) > _MOST_VALUES or len(values) == 1
        else [labels == each for each in values]
    )
    whole = [ndimage.find_objects(mask.astype(np.uint8))[0] for mask in shown]
    parts = [each for mask in shown for each in ndimage.find_objects(ndimage.label(mask)[0], MOST_CANDIDATES)]
    everything = ndimage.find_objects((labels != 0).astype(np.uint8)) if values else []
    corners = [
        (float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
        for rows, columns in (each for each in [*whole, *everything, *parts] if each is not None)
    ]
    return list(dict.fromkeys(corners))[:MOST_CANDIDATES] if values else []


def header_size(image: Mapping[str, object]) -> tuple[int, int] | None:
    """Width and height of {"bytes"}; None if there are none that can be read."""
    content = image.get("bytes")
    if not isinstance(content, bytes):
        return None
    try:
        return frame_of(content).upright_wh
    except ValueError:
        return None


def _labels_of(path: Path) -> np.ndarray:
    """The values of a mask (H, W); the colours of a coloured one are values. Raises FaultyImageError."""
    values, _, _ = read_values(path)
    if values.ndim == 3:
        values = values[..., :3].astype(np.int64) @ np.array([65536, 256, 1])
    return np.nan_to_num(values) if values.dtype.kind == "f" else values


def _beginnings(stem: str) -> set[str]:
    """A name, and what stands before each of its `_`, `-` and `.`."""
    cuts = [number for number, letter in enumerate(stem) if letter in "_-."]
    return {stem, *(stem[:cut] for cut in cuts[-4:])}
