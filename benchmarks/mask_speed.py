"""Masks -> checked instances -> boxes, against merely decoding the same PNG files; and sampling at two sizes.

    python benchmarks/mask_speed.py [--images 200] [--side 512] [--repeats 5] [--records 500000]

Files are phantoms in SA-Med2D's layout. Prints ratios of times measured side by side in one process, and the peak
memory of ranking RECORDS and twice as many made-up records, each in a process of its own.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from bird_hf.data.build.state import BuildState
from bird_hf.data.folder.publish import png_bytes
from bird_hf.data.masks import box_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Axis, ImageInfo, ImageName, Modality
from bird_hf.data.sources.base import Candidate
from bird_hf.data.sources.faults import check_mask, check_union
from bird_hf.data.sources.photographs import Photograph

Files = list[tuple[bytes, list[tuple[str, bytes]]]]  # of each image its PNG and its masks' names and PNGs


def encoded(count: int, side: int) -> Files:
    drawn = (draw_phantom(list(Modality)[number % 8], number, side) for number in range(count))
    return [
        (
            png_bytes(image.pixels),
            [(label, png_bytes(mask.astype(np.uint8) * 255)) for label, mask in image.masks],
        )
        for image in drawn
    ]


def decode(files: Files) -> None:
    for image, masks in files:
        for content in (image, *(content for _, content in masks)):
            np.asarray(Image.open(io.BytesIO(content)))


def boxes(files: Files) -> None:
    for image, contents in files:
        photograph = Photograph.read(image)
        masks = [(label, photograph.mask(content, f"{label}.png")) for label, content in contents]
        for _, mask in masks:
            check_mask(mask, photograph.pixels.shape)
            box_of(mask)
        check_union(masks)


def seconds(run: Callable[[Files], None], files: Files) -> float:
    start = time.perf_counter()
    run(files)
    return time.perf_counter() - start


def records(count: int) -> Iterator[Candidate]:
    """Made-up slices: 200 a volume, 40 volumes a dataset, eight modalities in turn."""
    for number in range(count):
        volume, index = divmod(number, 200)
        dataset, modality = f"set{volume // 40}", list(Modality)[volume // 40 % 8]
        stem = ImageName(modality.prefix("00"), dataset, f"case{volume}", Axis.AXIAL, index).write()
        info = ImageInfo(
            stem, modality, "00", "body", Axis.AXIAL, index, dataset, f"{dataset}/{volume}", True
        )
        yield Candidate(info, (f"label {number % 7}", f"label {number % 31}"), ["images", stem])


def rank(count: int) -> tuple[float, float]:
    """(seconds, peak memory in MB) of listing and ranking made-up records."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        state = BuildState(Path(folder) / "build.sqlite")
        with state.transaction():
            state.add_listed(records(count), seed=0)
            state.pick(75_000)
        took = time.perf_counter() - start
        assert state.count("picked") == min(count, 75_000)
        state.close()
    return took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--records", type=int, default=500_000)
    options = parser.parse_args()
    files = encoded(options.images, options.side)
    number = sum(len(masks) for _, masks in files)
    # In turn, so that whatever else the machine does falls on both.
    pairs = [(seconds(decode, files), seconds(boxes, files)) for _ in range(options.repeats)]
    ratio = statistics.median(mere / whole for mere, whole in pairs)
    print(
        f"{options.images} images and {number} masks of {options.side} pixels: boxes at {ratio:.2f} of decoding's speed"
    )
    # Spawned, so that the memory of one run is not that of another.
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        (once, small), (twice, large) = pool.map(rank, [options.records, 2 * options.records], chunksize=1)
    print(
        f"twice as many records as {options.records:,}: {twice / once:.2f} of the time, "
        f"{large / small:.2f} of the memory"
    )


if __name__ == "__main__":
    main()
