"""Phantoms: images of the eight modalities, drawn by a program, with exactly known objects.

They resemble the modality only roughly, but are exact in what grounding needs: the mask of an object is its visible
part, every label of the modality without a mask is absent, and left and right are the patient's (CT, MR, X-ray, PET and
ultrasound show the patient's right on the left of the image). They are for tests, demonstrations and scale runs; they
are not medical evidence.
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
from .drawing import Drawing

MIN_SIDE = 32
# Share of the image; a phantom with a smaller object is redrawn, because the object would be hard to see.
PHANTOM_MIN_AREA = 0.0035

_MODULES = {
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
    {modality: module.LABELS for modality, module in _MODULES.items()}
)


def draw_phantom(modality: Modality, seed: int, side: int = 256) -> MaskedImage:
    """Draw the phantom of a seed; the same arguments give the same image.

    side: the longer side in pixels. The pixels are (H, W) uint8, or (H, W, 3) for endoscopy, dermoscopy and fundus.
    Raises ValueError if the side is under 32 or the seed is negative.
    """
    modality = Modality(modality)
    if side < MIN_SIDE:
        raise ValueError(f"phantom side {side} is too small: give at least {MIN_SIDE} pixels")
    if seed < 0:
        raise ValueError(f"phantom seed {seed} is negative: give 0 or more")
    module = _MODULES[modality]
    key = list(modality.value.encode())
    for attempt in count():
        streams = np.random.SeedSequence([*key, seed, attempt]).spawn(2)
        drawing = module.draw(side, *map(np.random.default_rng, streams))
        masks = tuple(drawing.canvas.objects())
        if len(masks) >= 2 and all(mask.mean() >= PHANTOM_MIN_AREA for _, mask in masks):
            break
    named = {label for label, _ in masks}
    absent = tuple(label for label in module.LABELS if label not in named)
    return MaskedImage(_info(modality, seed, drawing), drawing.canvas.to_uint8(), masks, absent)


def _info(modality: Modality, seed: int, drawing: Drawing) -> ImageInfo:
    dataset = f"phantom_{modality.value}"
    name = ImageName(drawing.prefix, dataset, f"case{seed:06d}", drawing.axis, drawing.slice_index)
    return ImageInfo(
        image_id=name.write(),
        modality=modality,
        modality_detail=Modality.from_prefix(drawing.prefix)[1],
        region=drawing.region,
        axis=drawing.axis,
        slice_index=drawing.slice_index,
        dataset=dataset,
        case_id=f"{dataset}/{seed}",
        synthetic=True,
    )
