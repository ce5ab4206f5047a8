"""Write images and masks in the layout of SA-Med2D-20M.

    images/{modality}_{detail}--{dataset}--{original name}--{axis}_{slice}.png
    masks/{image stem}--{class, 4 digits}_{instance, 3 digits}.png
    SAMed2D_v1.json                     image -> its masks
    SAMed2D_v1_class_mapping_id.json    dataset -> {class name: class id}

A mask is binary and shows one object. Class ids are numbered per dataset.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ...atomic_writes import replacing_folder
from ...progress import progress_bar
from ..folder.publish import png_bytes
from ..records import CLASSES_TABLE, IMAGES_TABLE, MaskedImage, MaskName, Modality
from . import PHANTOM_LABELS, draw_phantom

_FOLDERS = ("images", "masks")


def write_phantoms(out: Path, count: int, seed: int, side: int) -> tuple[int, int]:
    """Write `count` phantoms of each modality as an SA-Med2D folder; returns the numbers of images and masks."""
    total = count * len(Modality)
    images = (draw_phantom(modality, seed + number, side) for modality in Modality for number in range(count))
    classes = {f"phantom_{modality.value}": PHANTOM_LABELS[modality] for modality in Modality}
    return write_folder(out, progress_bar(images, total=total, desc="phantoms", unit="image"), classes)


def write_folder(
    out: Path, images: Iterable[MaskedImage], classes: dict[str, tuple[str, ...]]
) -> tuple[int, int]:
    """Write images and masks in SA-Med2D's layout; an older folder of the same datasets at `out` is replaced.

    classes: the class names of each dataset, in the order of their ids. Returns the numbers of images and masks. Raises
    ValueError if `out` holds images or masks of other datasets.
    """
    _check_replaceable(out, classes)
    with replacing_folder(out) as making:
        for folder in _FOLDERS:
            (making / folder).mkdir()
        table = {}
        for image in images:
            mask_names = _write_masks(image, classes[image.info.dataset], making)
            image_name = f"images/{image.info.image_id}.png"
            (making / image_name).write_bytes(png_bytes(image.pixels))
            table[image_name] = mask_names
        class_ids = {
            dataset: {label: f"{number:04d}" for number, label in enumerate(labels)}
            for dataset, labels in classes.items()
        }
        (making / IMAGES_TABLE).write_text(json.dumps(table, indent=1), encoding="utf-8")
        (making / CLASSES_TABLE).write_text(json.dumps(class_ids, indent=1), encoding="utf-8")
    return len(table), sum(len(masks) for masks in table.values())


def _write_masks(image: MaskedImage, labels: Sequence[str], folder: Path) -> list[str]:
    """Write the masks of an image; returns their names, relative to `folder`."""
    seen: Counter[int] = Counter()
    names = []
    for label, mask in image.masks:
        class_id = labels.index(label)
        names.append(f"masks/{MaskName.of(image.info.image_id, class_id, seen[class_id]).write()}.png")
        seen[class_id] += 1
        (folder / names[-1]).write_bytes(png_bytes(mask.astype(np.uint8) * 255))
    return names


def _check_replaceable(out: Path, datasets: Iterable[str]) -> None:
    """Raises ValueError if `out` holds images or masks of other datasets: the user's own SA-Med2D is not replaced."""
    for path in (path for folder in _FOLDERS for path in (out / folder).glob("*")):
        if not any(f"--{dataset}--" in path.name for dataset in datasets):
            raise ValueError(f"{out} holds pictures of another dataset, such as {path}; give another folder")
