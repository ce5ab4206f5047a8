"""Opens an image of any kind: a picture, DICOM (a file, or a folder with one series), NIfTI or NRRD.

Pictures are read by `hub/pixels.py`, as the model's own processor reads them; all other kinds by the readers of
`bird data build`. The kind is decided by the first bytes of a file and, for volumes, by its name. What a DICOM header
says about a patient is neither returned nor quoted in an error.
"""

from __future__ import annotations

import os
import tempfile
from enum import StrEnum
from pathlib import Path

from PIL import Image

from ..data.frames import Frame, frame_of
from ..extras import missing_extra
from ..hub.pixels import open_image as open_picture
from ..hub.pixels import rgb_image
from .view import OpenedImage, Shown, View

ImageSource = str | os.PathLike[str] | bytes | Image.Image | OpenedImage

_HEAD_BYTES = 352  # a NIfTI header, whose name is at its end


class _Kind(StrEnum):
    """The kinds of files; the values are the endings by which their readers know them."""

    PICTURE = ""
    DICOM = ".dcm"
    NIFTI = ".nii"
    NIFTI_GZ = ".nii.gz"
    NRRD = ".nrrd"
    SERIES = "/"  # a folder with DICOM files


_ENDINGS = {str(kind): kind for kind in (_Kind.DICOM, _Kind.NIFTI_GZ, _Kind.NIFTI, _Kind.NRRD)}
_ENDINGS |= dict.fromkeys((".dicom", ".ima"), _Kind.DICOM)


def open_image(source: ImageSource, view: View | None = None, name: str = "") -> OpenedImage:
    """Open an image file, the bytes of one, a folder with one DICOM series, or a PIL image.

    view: which slice or frame to show, and with which window; by default the middle one and a stated window.
    name: what errors call a file, instead of its path.
    Raises ValueError, in one line, if the file cannot be read, if the view does not fit it, or if it needs packages of
    the `medical` extra that are not installed.
    """
    view = view or View()
    if isinstance(source, OpenedImage):
        _check_plain(view, "an opened image")
        return source
    if isinstance(source, Image.Image):
        _check_plain(view, "a PIL image")
        return OpenedImage(rgb_image(source), Shown(_turned(frame_of(source))))
    if isinstance(source, bytes):
        return _open_bytes(source, view)
    path = Path(source)
    try:
        return _open_file(path, view)
    except ValueError as error:
        if not name:
            raise
        message = str(error).replace(f"image {path}", name).replace(str(path), name)
        raise ValueError(message) from error


def _open_file(path: Path, view: View) -> OpenedImage:
    kind = _kind_of_path(path)
    if kind is _Kind.PICTURE:
        picture = open_picture(path)
        _check_plain(view, f"image {path}")
        return OpenedImage(picture, Shown(_turned(frame_of(path))))
    try:
        # This and the readers load what only the extra installs: scipy, nibabel, pynrrd, pydicom.
        from .medical import open_dicom, open_volume

        return open_dicom(path, view) if kind is _Kind.DICOM else open_volume(path, view)
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise ValueError(
            f"{path} needs {package}, which is not installed; {missing_extra('medical')}"
        ) from error


def _open_bytes(content: bytes, view: View) -> OpenedImage:
    kind = _kind_of(content[:_HEAD_BYTES])
    if kind is _Kind.PICTURE:
        picture = open_picture(content)
        _check_plain(view, "the image")
        return OpenedImage(picture, Shown(_turned(frame_of(content))))
    with tempfile.TemporaryDirectory(prefix="bird-") as folder:  # readable by this user only
        path = Path(folder) / f"image{kind}"
        path.write_bytes(content)
        return open_image(path, view, name="the image")


def _kind_of_path(path: Path) -> _Kind:
    """The kind of a file, or of a folder that holds DICOM files; a picture if it cannot be opened."""
    try:
        if path.is_dir():
            found = any(_kind_of_path(each) is _Kind.DICOM for each in path.iterdir() if each.is_file())
            return _Kind.SERIES if found else _Kind.PICTURE
        head = _head(path)
    except OSError:
        return _Kind.PICTURE  # its reader says why
    name = path.name.lower()
    named = [kind for ending, kind in _ENDINGS.items() if name.endswith(ending)]
    return named[0] if named else _kind_of(head)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _kind_of(head: bytes) -> _Kind:
    """The kind of a file by its first bytes."""
    if head[128:132] == b"DICM":
        return _Kind.DICOM
    if head.startswith(b"NRRD"):
        return _Kind.NRRD
    if head.startswith(b"\x1f\x8b"):
        return _Kind.NIFTI_GZ
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return _Kind.NIFTI
    return _Kind.PICTURE


def _check_plain(view: View, name: str) -> None:
    """Raises ValueError if a view asks for what only volumes and DICOM files have."""
    for option, given in (
        ("--slice", view.has_slice),
        ("--frame", view.frame is not None),
        ("--window", view.window is not None),
    ):
        if given:
            raise ValueError(f"{name} is one picture; {option} is for volumes and DICOM files, leave it out")


def _turned(frame: Frame) -> str:
    if frame.exif == 1:
        return ""
    width, height = frame.upright_wh
    return f"EXIF orientation {frame.exif} is applied; boxes are in pixels of the upright picture, {width}x{height}"
