"""Small sources that the tests of several modules read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from bird_hf.data.records import CLASSES_TABLE
from bird_hf.data.sources.base import Candidate, LeftOut, Source
from bird_hf.data.sources.faults import Drop

SIDE = 64

NOISE = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)

STEM = "ct_00--LIDC--a.b--c--y_0042"

BLOB = np.zeros((SIDE, SIDE), bool)

BLOB[8:30, 20:44] = True


def listed(source: Source) -> tuple[dict[str, Candidate], dict[str, Drop]]:
    items = [*source.listed()]
    return (
        {item.info.image_id: item for item in items if isinstance(item, Candidate)},
        {item.name: item.reason for item in items if isinstance(item, LeftOut)},
    )


def zipped(folder: Path, path: Path, prefix: str = "SAMed2Dv1/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def sa_med2d(
    root: Path, masks: dict[str, np.ndarray], image: np.ndarray | None = NOISE, stem: str = STEM
) -> Path:
    """A folder with one image; masks: `CLASS_INSTANCE` -> mask."""
    (root / "images").mkdir(exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    if image is not None:
        save(root / "images" / f"{stem}.png", image)
    for ids, mask in masks.items():
        save(root / "masks" / f"{stem}--{ids}.png", mask.astype(np.uint8) * 255)
    names = {"liver": "0001", "class2": "0002", "union_all": "0003", "spleen": "0004"}
    (root / CLASSES_TABLE).write_text(json.dumps({"LIDC": names}))
    return root


def photograph(path: Path, exif: int = 1, height: int = SIDE, width: int = SIDE, seed: int = 0) -> None:
    """Save noise of a stored size with an EXIF orientation, as PNG or JPEG."""
    header = Image.Exif()
    header[0x0112] = exif
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=header)


def details(source: Source) -> dict[str, str]:
    """The details of the images that are left out when a source is listed."""
    return {item.name: item.detail for item in source.listed() if isinstance(item, LeftOut)}
