"""The record stages of `bird data build` over so many records and twice as many: seconds and peak memory.

    python benchmarks/build_scale.py [--records 500000] [--share 0.1]

Everything of a build runs but the decoding of files: listing into the state, ranking, reading, near-duplicates, split
by case, leak check, words from templates, Parquet shards and manifest. The source is made up: it lists records with one
to three labels, and "reads" a picture of 16 x 16 pixels with two small masks, drawn from the record's number. SHARE
of the records is wanted in the dataset, so what is written grows with what is listed; the paper takes 1.3 % of
SA-Med2D's. Each run is a process of its own, with one worker, since the workers of a pool hold nothing of a build. The
ratio of times is that of processor time, on which other programs of the machine weigh least.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bird_hf.data.build import pipeline as building
from bird_hf.data.build import reading
from bird_hf.data.records import Axis, ImageInfo, ImageName, MaskedImage, Modality
from bird_hf.data.sources.base import Candidate

SLICES, VOLUMES = 40, 25  # of a volume, of a dataset
LABELS = [f"structure {letter}{number}" for letter in "abcdefgh" for number in range(6)]
TIME_LIMIT, MEMORY_LIMIT = 2.3, 1.1


class MadeUp:
    """A source of records; every third dataset has pictures that are no slices, a case each."""

    kind = "made-up records"
    pixels_are_free = True

    def __init__(self, count: int) -> None:
        self._count = count

    def listed(self) -> Iterator[Candidate]:
        for number in range(self._count):
            volume, index = divmod(number, SLICES)
            dataset = volume // VOLUMES
            modality = list(Modality)[dataset % 8]
            names = tuple(
                LABELS[(dataset + number * step) % len(LABELS)] for step in range(1, 3 + number % 2)
            )
            if dataset % 3:
                axis, case, slice_index = Axis.AXIAL, volume, index
            else:
                axis, case, slice_index = Axis.PLANAR, number, None
            name = ImageName(modality.prefix("00"), f"set{dataset}", f"case{case}", axis, slice_index)
            info = ImageInfo(
                image_id=name.write(),
                modality=modality,
                modality_detail="00",
                region="abdomen",
                axis=axis,
                slice_index=slice_index,
                dataset=f"set{dataset}",
                case_id=f"set{dataset}/case{case}",
                synthetic=True,
            )
            yield Candidate(info, names, number)

    def read(self, candidate: Candidate) -> MaskedImage:
        rng = np.random.default_rng(candidate.where)
        masks = []
        for label in candidate.labels:
            y, x = rng.integers(0, 10, 2)
            mask = np.zeros((16, 16), bool)
            mask[y : y + 5, x : x + 5] = True
            masks.append((label, mask))
        pixels = rng.integers(0, 256, (16, 16), np.uint8)
        return MaskedImage(candidate.info, pixels, tuple(masks), ("structure z",))


def build_once(
    count: int, share: float, put: Callable[[object, str, Any], None] = setattr
) -> dict[str, float]:
    """Seconds, those of the processor, peak memory in MB and the number of images of one build.

    `put` puts the made-up source in the build's way.
    """
    source = MadeUp(count)
    put(building, "opened", lambda path, modality: source)
    put(reading, "_opened", lambda path, modality: source)
    put(building, "fingerprint", lambda path: "made up")
    with tempfile.TemporaryDirectory() as folder:
        start, start_cpu = time.perf_counter(), time.process_time()
        settings = building.BuildSettings(limit=max(1, round(count * share)))
        manifest = building.build(Path(folder), Path(folder) / "out", settings, workers=1)
        took, took_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    images = manifest["rows"]["chat"]
    return {"seconds": took, "processor": took_cpu, "megabytes": peak, "images": sum(images.values())}


def in_own_process(count: int, share: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--records", str(count), "--share", str(share), "--once"]
    quiet = os.environ | {"TQDM_DISABLE": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=quiet)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--share", type=float, default=0.1, help="of the records that the dataset takes")
    parser.add_argument("--once", action="store_true", help="one run, as JSON")
    options = parser.parse_args()
    if options.once:
        print(json.dumps(build_once(options.records, options.share)))
        return
    print("| records | images | seconds | of the processor | peak MB |\n| --- | --- | --- | --- | --- |")
    runs = []
    for count in (options.records, 2 * options.records):
        runs.append(in_own_process(count, options.share))
        cells = [f"{count:,}", f"{runs[-1]['images']:,}"]
        cells += [f"{runs[-1][key]:.1f}" for key in ("seconds", "processor", "megabytes")]
        print(f"| {' | '.join(cells)} |", flush=True)
    time_ratio, memory_ratio = (runs[1][key] / runs[0][key] for key in ("processor", "megabytes"))
    print(f"\nratio: {time_ratio:.2f} of the time (at most {TIME_LIMIT}), ", end="")
    print(f"{memory_ratio:.2f} of the memory (at most {MEMORY_LIMIT})")


if __name__ == "__main__":
    main()
