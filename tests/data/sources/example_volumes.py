"""Tiny volumes that the tests of several modules write, and what a source makes of them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.records import MaskedImage
from bird_hf.data.sources.base import LeftOut, Source

SHAPE = (20, 24, 12)

# Oblique, its first two axes towards the left and the back, 0.8 x 0.9 x 3 mm: as many scanners store a patient.
_TILT = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = _TILT @ np.diag([-0.8, -0.9, 3.0])
OBLIQUE[:3, 3] = (8, 9, -20)


def noise(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-900, 900, shape).astype(np.int16)


def two_blocks(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A label map with a block of 1 and a block of 2, neither in the middle."""
    labels = np.zeros(shape, np.uint8)
    labels[2:8, 5:20, 3:9] = 1
    labels[11:17, 3:9, 5:11] = 2
    return labels


def write_volume(path: Path, voxels: np.ndarray, affine: np.ndarray | None = OBLIQUE) -> Path:
    """Write a NIfTI file; affine None: without an orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, None)
    image.header.set_sform(affine, code="scanner" if affine is not None else "unknown")
    nib.save(image, path)
    return path


def read_all(source: Source) -> dict[str, MaskedImage]:
    """Every listed image, read; there must be one, and none left out."""
    items = [*source.listed()]
    assert items and not [item for item in items if isinstance(item, LeftOut)]
    return {item.info.image_id: source.read(item) for item in items}


def left_out(source: Source) -> dict[str, LeftOut]:
    """What is left out, by name; nothing may be listed."""
    items = [*source.listed()]
    assert all(isinstance(item, LeftOut) for item in items)
    return {item.name: item for item in items}


def built_labels(source: Path, out: Path) -> dict[str, set[str]]:
    """Build a source; the names of the objects that are present, by case."""
    build(source, out, BuildSettings(seed=1), workers=1)
    found: dict[str, set[str]] = {}
    for split in ("train", "test"):
        for row in open_folder(out, "chat", split).remove_columns("image"):
            present = {each["label"] for each in row["objects"] if each["present"]}
            found.setdefault(row["case_id"], set()).update(present)
    return found
