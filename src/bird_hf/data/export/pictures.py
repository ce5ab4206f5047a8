"""The pictures of exported rows: one PNG file per image, with the pixels that the model sees before it resizes.

What a dialect pads or cuts away is padded or cut away here: trainers hand pictures to the model's processor as they
are, and boxes are numbers of what the model sees. If the numbers are pixels of a resized picture, the resized picture
is written, which the same processor keeps as it is.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...dialects import View
from ...hub.pixels import open_image
from ..folder.publish import png_bytes
from ..frames import Frame, frame_of

# A file name and never a path: no separator, no drive, nothing hidden, no control character.
_PLAIN_STEM = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]{0,239}")
_PNG = b"\x89PNG\r\n\x1a\n"  # how every PNG file begins


def check_stem(image_id: str) -> None:
    """Raises ValueError if an image id is not a plain file name: it could lead out of the folder of images."""
    if not _PLAIN_STEM.fullmatch(image_id):
        raise ValueError(f"image_id {image_id[:80]!r} is not a plain file name; this row cannot be trusted")


def upright_png(content: bytes, image_wh: tuple[int, int], name: str) -> bytes:
    """A PNG file of the pixels that the boxes are on: the file itself, unless it is of another kind or has a turn.

    Raises ValueError, with `name`, if the file cannot be read or is of another size.
    """
    try:
        if content.startswith(_PNG) and frame_of(content) == Frame(1, image_wh):
            return content
        upright = open_image(content)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if upright.size != image_wh:
        raise ValueError(f"{name}: the image has {upright.size} pixels, and its row says {image_wh}")
    return png_bytes(np.asarray(upright))


def seen_picture(picture: Image.Image, view: View, padding_rgb: tuple[int, int, int]) -> Image.Image:
    """What the model sees: padding added, or the rest cut away, and resized if the view says to which size."""
    if not view.is_whole:
        left, top, right, bottom = map(round, view.seen_px)
        seen = Image.new("RGB", (right - left, bottom - top), padding_rgb)
        seen.paste(picture.convert("RGB"), (-left, -top))
        picture = seen
    if view.resized_wh is not None and picture.size != view.resized_wh:
        picture = picture.convert("RGB").resize(view.resized_wh, Image.Resampling.BICUBIC)
    return picture


def is_kept(view: View) -> bool:
    """Whether the model sees a picture as it is."""
    return view.is_whole and view.resized_wh in (None, view.image_wh)


@dataclass(frozen=True)
class Pictures:
    """The pictures of rows, and of the user's folder for rows without pixels.

    own: a folder with IMAGE_ID.png for rows without pixels. link: whether files of that folder are linked where the
    model sees them as they are; else they are copied. padding_rgb: the colour of what is added around a picture.
    """

    own: Path | None = None
    link: bool = False
    padding_rgb: tuple[int, int, int] = (0, 0, 0)

    def place(self, row: Mapping[str, Any], view: View, path: Path) -> None:
        """Writes, copies or links the picture of a row to `path`, unless it is there already."""
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        own = None if _has_pixels(row) else self._own_path(row["image_id"])
        if own is None or not is_kept(view) or not _is_upright_png(own, view.image_wh):
            path.write_bytes(self.png(row, view))
        elif self.link:
            path.symlink_to(os.path.abspath(own))
        else:
            shutil.copyfile(own, path)

    def png(self, row: Mapping[str, Any], view: View) -> bytes:
        """The picture of a row as a PNG file. Raises ValueError if there is none, or it cannot be read."""
        name = row["image_id"]
        content = row["image"]["bytes"] if _has_pixels(row) else self._own_path(name).read_bytes()
        upright = upright_png(content, view.image_wh, name)
        if is_kept(view):
            return upright
        stream = io.BytesIO()
        seen_picture(open_image(upright), view, self.padding_rgb).save(stream, format="PNG")
        return stream.getvalue()

    def _own_path(self, name: str) -> Path:
        if self.own is None:
            raise ValueError(
                f"{name}: the row has no pixels; give --images-dir with {name}.png, or --no-images to write rows only"
            )
        path = self.own / f"{name}.png"
        if not path.is_file():
            raise ValueError(f"{path} is missing; the folder of --images-dir must hold every picture")
        return path


def _has_pixels(row: Mapping[str, Any]) -> bool:
    return bool(row["image"] and row["image"]["bytes"])


def _is_upright_png(path: Path, image_wh: tuple[int, int]) -> bool:
    with path.open("rb") as file:
        return file.read(len(_PNG)) == _PNG and frame_of(path) == Frame(1, image_wh)
