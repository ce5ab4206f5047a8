"""The layout of SA-Med2D-20M: file names, folders, and the two tables that go with them.

    images/{modality}_{detail}--{dataset}--{original name}--{axis}_{slice}.png
    masks/{image stem}--{class, 4 digits}_{instance, 3 digits}.png
    SAMed2D_v1.json                     image -> its masks
    SAMed2D_v1_class_mapping_id.json    dataset -> {class name: class id}

Masks are binary, one object instance each. Class ids count per dataset.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..folder.publish import png_bytes, replace_folder
from ..records import CLASSES_TABLE, IMAGES_TABLE, MaskedImage, MaskName, Modality
from . import PHANTOM_LABELS, draw_phantom

_FOLDERS = ("images", "masks")


def write_phantoms(out: Path, count: int, seed: int, side: int) -> tuple[int, int]:
    """Write `count` phantoms of each modality as an SA-Med2D folder; returns the numbers of images and masks."""
    total = count * len(Modality)
    pictures = (
        draw_phantom(modality, seed + number, side) for modality in Modality for number in range(count)
    )
    classes = {f"phantom_{modality.value}": PHANTOM_LABELS[modality] for modality in Modality}
    return write_folder(out, tqdm(pictures, total=total, desc="phantoms", unit="image"), classes)


def write_folder(
    out: Path, pictures: Iterable[MaskedImage], classes: dict[str, tuple[str, ...]]
) -> tuple[int, int]:
    """Write images and masks in SA-Med2D's layout; what stood at `out` is replaced once all is written.

    classes: for each dataset its class names, in the order of their ids. Raises ValueError where `out` holds
    images or masks of other datasets.
    """
    _check_replaceable(out, classes)
    making = out.with_name(f".{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    for folder in _FOLDERS:
        (making / folder).mkdir(parents=True)
    table: dict[str, list[str]] = {}
    for picture in pictures:
        info = picture.info
        image_name = f"images/{info.image_id}.png"
        (making / image_name).write_bytes(png_bytes(picture.pixels))
        table[image_name] = []
        seen: Counter[int] = Counter()
        for label, mask in picture.masks:
            class_id = classes[info.dataset].index(label)
            mask_name = f"masks/{MaskName.of(info.image_id, class_id, seen[class_id]).write()}.png"
            seen[class_id] += 1
            (making / mask_name).write_bytes(png_bytes(mask.astype(np.uint8) * 255))
            table[image_name].append(mask_name)
    mapping = {
        dataset: {label: f"{number:04d}" for number, label in enumerate(labels)}
        for dataset, labels in classes.items()
    }
    (making / IMAGES_TABLE).write_text(json.dumps(table, indent=1), encoding="utf-8")
    (making / CLASSES_TABLE).write_text(json.dumps(mapping, indent=1), encoding="utf-8")
    replace_folder(making, out)
    return len(table), sum(len(masks) for masks in table.values())


def _check_replaceable(out: Path, datasets: Iterable[str]) -> None:
    """Somebody's own SA-Med2D must not be replaced: every picture that stands at `out` is of these datasets."""
    for path in (path for folder in _FOLDERS for path in (out / folder).glob("*")):
        if not any(f"--{dataset}--" in path.name for dataset in datasets):
            raise ValueError(f"{out} holds pictures of another dataset, such as {path}; give another folder")
