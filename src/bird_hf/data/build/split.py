"""Training or test: by patient or case, in even shares of every modality and dataset, and checked for leaks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..draws import draw_of
from ..near_duplicates import HashIndex
from ..records import ImageName
from ..sources.label_names import patient_of

TEST_SHARE = 0.12  # BiRD 3: 30 K of 270 K turns, whole cases


@dataclass(frozen=True, slots=True)
class Placed:
    """An image and its split, with what could give a leak away."""

    image_id: str
    case_id: str
    look: bytes
    split: str


def split_cases(
    images: Mapping[str, Counter[tuple[str, str]]], seed: int, share: float = TEST_SHARE
) -> dict[str, str]:
    """case -> "train" or "test".

    images: for each case its numbers of images by (modality, dataset); a case stands under its most frequent. Cases
    come in an order drawn by the seed, and one goes to test where that brings the stratum nearer to its share. What is
    missing or too much is carried to the next stratum, so small ones add up. With two cases or more there is a test.
    """
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case_id, counts in images.items():
        strata[min(counts, key=lambda stratum: (-counts[stratum], stratum))].append(case_id)
    size = {case_id: sum(counts.values()) for case_id, counts in images.items()}
    test: set[str] = set()
    carried = 0.0
    for stratum in sorted(strata):
        wanted = carried + share * sum(size[case_id] for case_id in strata[stratum])
        for case_id in sorted(strata[stratum], key=lambda case_id: (draw_of(seed, case_id), case_id)):
            if abs(wanted - size[case_id]) < abs(wanted):
                test.add(case_id)
                wanted -= size[case_id]
        carried = wanted
    if not test and len(size) > 1:
        test = {min(size, key=lambda case_id: (size[case_id], draw_of(seed, case_id), case_id))}
    return {case_id: "test" if case_id in test else "train" for case_id in images}


def find_leaks(images: Iterable[Placed]) -> list[str]:
    """What stands on both sides, in words: a case, a patient by the file names, or pictures that look the same."""
    leaks: list[str] = []
    sides: dict[tuple[str, str], str] = {}
    looks = HashIndex()
    seen: list[tuple[str, str]] = []  # names and splits alone: there may be a million
    for image in images:
        keys = [("case", image.case_id)]
        with suppress(ValueError):
            name = ImageName.parse(image.image_id)
            keys.append(("patient", f"{name.dataset}/{patient_of(name.dataset, name.original)}"))
        for key in keys:
            if sides.setdefault(key, image.split) != image.split:
                leaks.append(f"{key[0]} {key[1]} is in {sides[key]} and in {image.split}")
        for number in looks.near(image.look):
            other, split = seen[number]
            if split != image.split:
                leaks.append(f"{image.image_id} ({image.split}) looks like {other}")
        looks.add(image.look)
        seen.append((image.image_id, image.split))
    return leaks


def check_no_leak(images: Iterable[Placed]) -> None:
    """Raises ValueError where something stands on both sides: such a dataset is not published."""
    if leaks := find_leaks(images):
        raise ValueError(f"the split leaks in {len(leaks)} places and is not published: {leaks[0]}")
