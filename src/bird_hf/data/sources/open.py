"""Opens the source at a path, whatever its kind."""

from __future__ import annotations

from pathlib import Path

from ..records import Modality
from .base import Source
from .coco_images import CocoImages
from .description import DESCRIPTION, read_description
from .dicom.source import DicomFolder
from .label_maps import LabelledImages
from .labelled_volumes import LabelledVolumes
from .sa_med2d import SaMed2D
from .volume_headers import VOLUME_ENDINGS
from .volume_layouts.suffixed import has_suffixed_volumes, open_suffixed_volumes
from .volume_layouts.total_segmentator import has_total_segmentator, open_total_segmentator
from .volume_layouts.training_folders import has_training_folders, open_training_folders


def open_source(path: Path, modality: Modality | None = None) -> Source:
    """Open the source at a path. Raises ValueError, in one line, if its kind is unknown.

    SA-Med2D: a zip archive (for a split archive its `.zip`), or a folder with `images` and `masks`. A folder with
    `labels.yaml`: images with label maps, volumes with label maps, or COCO instances (see description.py). nnU-Net,
    Medical Segmentation Decathlon and TotalSegmentator as they come (see volume_layouts). Any other folder with DICOM
    images and segmentations, at any depth (see dicom/source.py). modality: of a source that does not say it itself.
    """
    if has_training_folders(path):
        return open_training_folders(path, modality)
    if has_total_segmentator(path):
        return open_total_segmentator(path, modality)
    if path.is_file() and path.suffix.lower() == ".zip":
        return SaMed2D.of_archive(path)
    if (path / DESCRIPTION).is_file():
        return open_described(path)
    for folder in (path, path / "SAMed2Dv1"):
        if (folder / "images").is_dir() and (folder / "masks").is_dir():
            return SaMed2D.of_folder(folder)
    if path.is_dir() and len(archives := sorted(path.glob("*.zip"))) == 1:
        return SaMed2D.of_archive(archives[0])
    if path.is_dir() and DicomFolder.has_dicom(path):
        return DicomFolder(path)
    raise ValueError(
        f"{path} is not a source of images: give SA-Med2D (a folder with images/ and masks/, or its .zip), "
        f"a folder with {DESCRIPTION}, nnU-Net, Medical Segmentation Decathlon, TotalSegmentator, or a folder of "
        "DICOM files"
    )


def open_described(folder: Path) -> Source:
    """The source in a folder with `labels.yaml`. Raises ValueError, in one line, if something is missing."""
    about = read_description(folder / DESCRIPTION)
    if about.annotations is None and has_suffixed_volumes(folder):
        return open_suffixed_volumes(folder, about)
    if not (folder / "images").is_dir():
        raise ValueError(f"{folder} has no folder images; put the images there")
    if about.annotations is not None:
        return CocoImages(folder, about)
    if not (folder / "masks").is_dir():
        raise ValueError(f"{folder} has no folder masks, and {DESCRIPTION} no `annotations`; add one of them")
    images = [*(folder / "images").iterdir()]
    if any(path.name.lower().endswith(VOLUME_ENDINGS) or path.is_dir() for path in images):
        return LabelledVolumes(folder, about)
    return LabelledImages(folder, about)
