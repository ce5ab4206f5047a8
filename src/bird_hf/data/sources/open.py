"""Opens the source at a path, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..records import Modality
from .base import Source
from .biomedparse import BiomedParse
from .box_tables import TABLE_ENDINGS, BoxTable
from .coco_images import CocoImages
from .description import DESCRIPTION, Description, read_description
from .dicom.source import DicomFolder
from .label_maps import LabelledImages
from .labelled_volumes import LabelledVolumes
from .mask_folders import MaskFolders
from .sa_med2d import SaMed2D
from .suffixed_masks import SuffixedMasks
from .volume_headers import VOLUME_ENDINGS
from .volume_layouts.suffixed import has_suffixed_volumes, open_suffixed_volumes
from .volume_layouts.total_segmentator import has_total_segmentator, open_total_segmentator
from .volume_layouts.training_folders import has_training_folders, open_training_folders


@dataclass(frozen=True)
class Kind:
    """A kind of source. expects: what the error message says about it. is_at: whether a path holds one.

    opens: path and the modality that the user gives -> the source. names_modality: whether the source itself says its
    modality, so that the user's is refused.
    """

    name: str
    expects: str
    is_at: Callable[[Path], bool]
    opens: Callable[[Path, Modality | None], Source]
    names_modality: bool = True


def open_source(path: Path, modality: Modality | None = None) -> Source:
    """Open the source at a path.

    modality: of a source that does not say it itself. Raises ValueError, in one line, if no kind of source is there,
    something of it is missing, or the modality contradicts it.
    """
    for kind in KINDS:
        if not kind.is_at(path):
            continue
        if modality is not None and kind.names_modality:
            raise ValueError(f"{path} ({kind.name}) says its modality itself; leave --modality out")
        return kind.opens(path, modality)
    expected = "; ".join(f"{kind.name}: {kind.expects}" for kind in KINDS)
    raise ValueError(f"{path} is not a source of images. A source is one of: {expected}")


def open_described(folder: Path, modality: Modality | None = None) -> Source:
    """The source in a folder with `labels.yaml`. Raises ValueError, in one line, if something is missing."""
    about = read_description(folder / DESCRIPTION)
    if modality not in (None, about.modality):
        raise ValueError(
            f"{folder / DESCRIPTION} says {about.modality}, and --modality {modality}; remove one"
        )
    if about.annotations is not None and about.annotations.lower().endswith(TABLE_ENDINGS):
        return BoxTable(folder, about)
    if about.annotations is None and has_suffixed_volumes(folder):
        return open_suffixed_volumes(folder, about)
    if about.annotations is None and not _has_volumes(folder) and SuffixedMasks.is_at(folder):
        return SuffixedMasks(folder, about)
    return _with_images(folder, about)


def _with_images(folder: Path, about: Description) -> Source:
    """A described source with a folder `images`. Raises ValueError, in one line, if something is missing."""
    if not (folder / "images").is_dir():
        raise ValueError(f"{folder} has no folder images; put the images there")
    if about.annotations is not None:
        return CocoImages(folder, about)
    if not (folder / "masks").is_dir():
        raise ValueError(f"{folder} has no folder masks, and {DESCRIPTION} no `annotations`; add one of them")
    if _has_volumes(folder):
        return LabelledVolumes(folder, about)
    return MaskFolders(folder, about) if MaskFolders.is_at(folder) else LabelledImages(folder, about)


def _has_volumes(folder: Path) -> bool:
    """Whether `images` holds volumes, or folders of DICOM series."""
    if not (folder / "images").is_dir():
        return False
    return any(
        path.name.lower().endswith(VOLUME_ENDINGS) or path.is_dir() for path in (folder / "images").iterdir()
    )


def _sa_med2d_folder(path: Path) -> Path | None:
    folders = (path, path / "SAMed2Dv1")
    return next((each for each in folders if (each / "images").is_dir() and (each / "masks").is_dir()), None)


def _sa_med2d_archive(path: Path) -> Path | None:
    """The `.zip` at a path: the path itself, or the only one in that folder."""
    if path.is_file():
        return path if path.suffix.lower() == ".zip" else None
    archives = sorted(path.glob("*.zip")) if path.is_dir() else []
    return archives[0] if len(archives) == 1 else None


# The first kind that a path holds is opened.
KINDS = (
    Kind(
        "nnU-Net or Medical Segmentation Decathlon",
        "dataset.json, imagesTr/ and labelsTr/",
        has_training_folders,
        open_training_folders,
        names_modality=False,
    ),
    Kind(
        "TotalSegmentator",
        "sNNNN/ct.nii.gz or mri.nii.gz, and sNNNN/segmentations/NAME.nii.gz",
        has_total_segmentator,
        open_total_segmentator,
    ),
    Kind(
        "SA-Med2D archive",
        "its .zip",
        lambda path: path.is_file() and _sa_med2d_archive(path) is not None,
        lambda path, _: SaMed2D.of_archive(path),
    ),
    Kind(
        f"folder with {DESCRIPTION}",
        "images with label maps, volumes with label maps, masks in a folder per class or with a suffix, a COCO file, "
        "or a CSV of boxes",
        lambda path: (path / DESCRIPTION).is_file(),
        open_described,
        names_modality=False,
    ),
    Kind(
        "masks in a folder per class",
        "images/NAME.png and masks/CLASS/NAME.png",
        MaskFolders.is_at,
        lambda path, modality: MaskFolders(path, None, modality),
        names_modality=False,
    ),
    Kind(
        "SA-Med2D folder",
        "images/ and masks/",
        lambda path: _sa_med2d_folder(path) is not None,
        lambda path, _: SaMed2D.of_folder(_sa_med2d_folder(path) or path),
    ),
    Kind(
        "BiomedParse",
        "train/NAME_MODALITY_SITE.png and train_mask/NAME_MODALITY_SITE_TARGET.png",
        lambda path: path.is_dir() and BiomedParse.is_at(path),
        lambda path, _: BiomedParse(path),
    ),
    Kind(
        "folder with an SA-Med2D archive",
        "one .zip",
        lambda path: _sa_med2d_archive(path) is not None,
        lambda path, _: SaMed2D.of_archive(_sa_med2d_archive(path) or path),
    ),
    Kind(
        "DICOM",
        "images and segmentations at any depth",
        lambda path: path.is_dir() and DicomFolder.has_dicom(path),
        DicomFolder,
        names_modality=False,
    ),
)
