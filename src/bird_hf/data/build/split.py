"""Train and test splits by patient or case, in equal shares of every modality and dataset, and a check for leaks."""

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
class PlacedImage:
    """An image with its split, and the values by which leaks are found. image_hash: see `near_duplicates`."""

    image_id: str
    case_id: str
    image_hash: bytes
    split: str


def split_cases(
    images: Mapping[str, Counter[tuple[str, str]]], seed: int, share: float = TEST_SHARE
) -> dict[str, str]:
    """Return the split of each case: case_id -> "train" or "test".

    images: for each case its numbers of images by (modality, dataset); a case belongs to its most frequent stratum.
    Cases are visited in an order drawn by the seed, and a case goes to test if that brings the stratum nearer to its
    share. The remainder, positive or negative, is carried to the next stratum, so that small strata add up. With two
    cases or more, the test split is not empty.
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


def find_leaks(images: Iterable[PlacedImage]) -> list[str]:
    """Return one line per leak: a case, a patient (by the file names) or near-duplicate images in both splits."""
    leaks: list[str] = []
    splits: dict[tuple[str, str], str] = {}
    hashes = HashIndex()
    seen: list[tuple[str, str]] = []  # image ids and splits only: there may be a million
    for image in images:
        keys = [("case", image.case_id)]
        with suppress(ValueError):
            name = ImageName.parse(image.image_id)
            keys.append(("patient", f"{name.dataset}/{patient_of(name.dataset, name.original)}"))
        for key in keys:
            if splits.setdefault(key, image.split) != image.split:
                leaks.append(f"{key[0]} {key[1]} is in {splits[key]} and in {image.split}")
        for number in hashes.near(image.image_hash):
            name, split = seen[number]
            if split != image.split:
                leaks.append(f"{image.image_id} ({image.split}) looks like {name}")
        hashes.add(image.image_hash)
        seen.append((image.image_id, image.split))
    return leaks


def check_no_leak(images: Iterable[PlacedImage]) -> None:
    """Raises ValueError if a case, a patient or near-duplicate images are in both splits."""
    if leaks := find_leaks(images):
        raise ValueError(f"the split leaks in {len(leaks)} places and is not published: {leaks[0]}")
