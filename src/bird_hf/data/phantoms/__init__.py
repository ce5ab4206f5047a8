"""Phantoms: procedural pictures of the eight modalities with exactly known objects.

They look like the modality at a glance and are true in what matters to grounding: every object has its
visible extent as a mask, every label of the modality that has no mask is absent, and left and right are
the patient's (CT, MR, X-ray, PET and ultrasound show the patient's right on the picture's left).
They are for tests, demonstrations and scale runs; nothing about them is medical evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from types import MappingProxyType

import numpy as np

from ..records import ImageInfo, ImageName, MaskedImage, Modality
from . import (
    ct,
    dermoscopy,
    endoscopy,
    fundus,
    mr,
    pet,
    ultrasound,
    x_ray,
)
from .sketch import Sketch

MIN_SIDE = 32
# An object that shows less than this share of the picture is hard to see at all: the draw is repeated.
MIN_AREA = 0.0035

_PAINTERS = {
    Modality.CT: ct,
    Modality.MR: mr,
    Modality.X_RAY: x_ray,
    Modality.PET: pet,
    Modality.ENDOSCOPY: endoscopy,
    Modality.DERMOSCOPY: dermoscopy,
    Modality.FUNDUS: fundus,
    Modality.ULTRASOUND: ultrasound,
}

PHANTOM_LABELS: Mapping[Modality, tuple[str, ...]] = MappingProxyType(
    {modality: painter.LABELS for modality, painter in _PAINTERS.items()}
)


def draw_phantom(modality: Modality, seed: int, side: int = 256) -> MaskedImage:
    """The phantom of a seed: the same arguments give the same picture.

    side: the longer side in pixels. pixels are (H, W) uint8, or (H, W, 3) for endoscopy, dermoscopy and
    fundus. Raises ValueError for a side under 32 or a negative seed.
    """
    modality = Modality(modality)
    if side < MIN_SIDE:
        raise ValueError(f"phantom side {side} is too small: give at least {MIN_SIDE} pixels")
    if seed < 0:
        raise ValueError(f"phantom seed {seed} is negative: give 0 or more")
    painter = _PAINTERS[modality]
    key = list(modality.value.encode())
    for attempt in count():
        streams = np.random.SeedSequence([*key, seed, attempt]).spawn(2)
        sketch = painter.draw(side, *map(np.random.default_rng, streams))
        masks = tuple(sketch.canvas.objects())
        if len(masks) >= 2 and all(mask.mean() >= MIN_AREA for _, mask in masks):
            break
    named = {label for label, _ in masks}
    absent = tuple(label for label in painter.LABELS if label not in named)
    return MaskedImage(_info(modality, seed, sketch), sketch.canvas.to_uint8(), masks, absent)


def _info(modality: Modality, seed: int, sketch: Sketch) -> ImageInfo:
    dataset = f"phantom_{modality.value}"
    name = ImageName(sketch.prefix, dataset, f"case{seed:06d}", sketch.axis, sketch.slice_index)
    return ImageInfo(
        image_id=name.write(),
        modality=modality,
        modality_detail=Modality.from_prefix(sketch.prefix)[1],
        region=sketch.region,
        axis=sketch.axis,
        slice_index=sketch.slice_index,
        dataset=dataset,
        case_id=f"{dataset}/{seed}",
        synthetic=True,
    )
