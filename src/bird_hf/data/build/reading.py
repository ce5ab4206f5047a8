"""Read images of a source in the workers of a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..folder.publish import png_bytes
from ..masks import outlines_of, record_of
from ..near_duplicates import difference_hash
from ..records import MaskedImage, Modality
from ..sources.base import Candidate, Source
from ..sources.coco import pack_runs, runs_of
from ..sources.faults import Drop, FaultyImageError
from ..sources.open import open_source
from .review import Review
from .state import ReadResult


@dataclass(frozen=True)
class ReadOptions:
    """The source that a worker opens, and what it returns of each image.

    modality: see `open_source`. min_area: see `record_of`. pixels, phantom_pixels: whether the pixels of images, or of
    phantoms, are returned. masks: whether the outlines are.
    """

    src: Path
    review: Review
    min_area: float
    modality: str | None = None
    pixels: bool = False
    phantom_pixels: bool = False
    masks: bool = False


def read_chunk(options: ReadOptions, candidates: Iterable[Candidate]) -> list[ReadResult]:
    """Read some images."""
    source = _opened(options.src, options.modality)
    results = []
    for candidate in candidates:
        objects: Counter[str] = Counter()
        try:
            found = source.read(candidate)
            objects.update(label for label, _ in (*found.masks, *found.boxes))
            result = _result(options, found, objects)
        except FaultyImageError as error:
            result = ReadResult(candidate.info.image_id, objects, error.reason, detail=error.detail)
        results.append(result)
    return results


def opened(src: Path, modality: str | None) -> Source:
    """Open a source with the modality of a build's settings. Raises ValueError as `open_source` does."""
    return open_source(src, Modality(modality)) if modality else open_source(src)


def _result(options: ReadOptions, found: MaskedImage, objects: Counter[str]) -> ReadResult:
    """An image with the review's names. Raises FaultyImageError if no object is left."""
    image = options.review.read(found)
    record = record_of(image, options.min_area)
    if not record.present:
        raise FaultyImageError(Drop.NO_OBJECTS, _too_small(image, options.min_area))
    keep = options.pixels or (options.phantom_pixels and image.info.synthetic)
    runs = None
    if options.masks:
        outlines = outlines_of(image, options.min_area)
        runs = {instance_id: pack_runs(runs_of(mask)) for instance_id, mask in outlines.items()}
    return ReadResult(
        image.info.image_id,
        objects,
        None,
        record,
        difference_hash(image.pixels),
        png_bytes(image.pixels) if keep else None,
        sum(objects.values()) - len(image.masks) - len(image.boxes),
        runs=runs,
    )


def _too_small(image: MaskedImage, min_area: float) -> str:
    """Why an image has no instance: it has no mark, or all are below the least area."""
    if not (image.masks or image.boxes):
        return "no object is marked"
    areas = [float(mask.mean()) for _, mask in image.masks] + [box.area for _, box in image.boxes]
    return f"the largest object covers {max(areas):.3%} of the image, the least area is {min_area:.3%}"


@cache
def _opened(src: Path, modality: str | None) -> Source:
    """Open the source, once per process."""
    return opened(src, modality)
