"""Which kind of source stands at a path."""

from __future__ import annotations

from pathlib import Path

from .base import Source
from .dicom.source import DicomFolder
from .own_images import DESCRIPTION, open_described
from .sa_med2d import SaMed2D


def open_source(path: Path) -> Source:
    """The source at a path. Raises ValueError, in one line, where it is of no known kind.

    A zip (or the `.zip` of an archive in parts), or a folder with `images` and `masks`: SA-Med2D's layout. A folder
    with `labels.yaml`: images and label maps, volumes and label maps, or COCO instances (see own_images.py). A
    folder with DICOM images and segmentations, however deep they stand in it (see dicom_source.py).
    """
    if path.is_file() and path.suffix.lower() == ".zip":
        return SaMed2D.of_archive(path)
    if (path / DESCRIPTION).is_file():
        return open_described(path)
    for folder in (path, path / "SAMed2Dv1"):
        if (folder / "images").is_dir() and (folder / "masks").is_dir():
            return SaMed2D.of_folder(folder)
    if path.is_dir() and len(archives := sorted(path.glob("*.zip"))) == 1:
        return SaMed2D.of_archive(archives[0])
    if path.is_dir() and DicomFolder.is_one(path):
        return DicomFolder(path)
    raise ValueError(
        f"{path} is no source of images: give SA-Med2D (a folder with images/ and masks/, or its .zip), "
        f"a folder with {DESCRIPTION}, or a folder of DICOM files"
    )
