"""Tables of what `benchmarks/gpu.py` measured, as docs/train_on_gpus.md shows them.

python benchmarks/gpu_tables.py [DIR]     (default: docs/gpu)
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

from bird_hf.markdown import Markup, table

FOLDER = Path(__file__).parents[1] / "docs" / "gpu"
GB = 1e9
SETTINGS = {"lora": "LoRA", "full": "all but vision"}
WAYS = {
    "original": "one turn per row padded to 2048",
    "packed_sdpa": "packed, sdpa",
    "packed_flex": "packed, flex attention",
    **{
        f"across_{length}_{attention}": f"packed across images to {length}, {shown}"
        for length in (2048, 4096, 8192)
        for attention, shown in (("sdpa", "sdpa"), ("flex", "flex attention"))
    },
    "packed_sdpa_without_checkpointing": "packed, sdpa, no checkpointing",
}
ATTENTION = ("sdpa", "eager", "flex_attention")
COMPILED = {
    "training_sdpa": "decoder forward and backward, sdpa",
    "training_flex_attention": "decoder forward and backward, flex attention",
    "decode_batch_1": "a decoding step, batch 1",
    "decode_batch_8": "a decoding step, batch 8",
    "image_features": "vision transformer and resampler, batch 8",
}


def read(folder: Path, part: str) -> dict[str, Any]:
    return json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))


def machine_line(folder: Path) -> str:
    """The card and the libraries of a run, and the peak that its figures refer to."""
    training = read(folder, "training")
    machine = training["machine"]
    peak = training["cases"]["matmul_peak"]["flops_per_second"]
    return (
        f"One {machine['card']}, torch {machine['torch']}, transformers {machine['transformers']}; random weights in "
        f"bf16. A product of two 8192 x 8192 matrices in bf16 ran at {peak / 1e12:.0f} TFLOP/s in the same run."
    )


def training_table(folder: Path) -> str:
    cases = read(folder, "training")["cases"]
    header = ["training step", "pairs/s", "tokens/s", "MFU", "peak GB", "hours of the paper's run"]
    rows: list[list[Any]] = []
    for setting, way in product(SETTINGS, WAYS):
        shown, case = f"{SETTINGS[setting]}, {WAYS[way]}", cases.get(f"{setting}_{way}")
        if case is None:  # a report of an earlier version
            continue
        if "out_of_memory" in case:
            rows.append([shown, "out of memory", "-", "-", "-", "-"])
            continue
        rows.append(
            [
                shown,
                f"{case['pairs_per_second']:.1f}",
                round(case["tokens_per_second"]),
                f"{case['mfu']:.2f}",
                f"{case['peak_memory_bytes'] / GB:.0f}",
                f"{case['hours_of_the_papers_run']:.1f}",
            ]
        )
    return table(header, rows)


def inference_table(folder: Path) -> str:
    cases = read(folder, "inference")["cases"]
    header = ["batch", "from", "prefill tokens/s", "decoded tokens/s", "answers/s", "peak GB"]
    rows = []
    for batch in (1, 8, 32):
        for source, shown in (("pixel_values", "pixels"), ("image_features", "image features")):
            case = cases[f"{source}_batch_{batch}"]
            rows.append(
                [
                    batch,
                    shown,
                    round(case["prefill_tokens_per_second"]),
                    round(case["decode_tokens_per_second"]),
                    f"{case['answers_per_second']:.1f}",
                    f"{case['peak_memory_bytes'] / GB:.1f}",
                ]
            )
    return table(header, rows)


def compile_table(folder: Path) -> str:
    cases = read(folder, "compile")["cases"]
    header = ["torch.compile of", "times faster", "seconds of compiling"]
    rows = [
        [shown, f"{cases[name]['speedup']:.2f}", f"{cases[name]['compile_seconds']:.0f}"]
        for name, shown in COMPILED.items()
    ]
    return table(header, rows)


def parity_table(folder: Path) -> str:
    cases = read(folder, "parity")["cases"]
    header = ["attention on the GPU", "logits", "image features", "gradients", "same most likely token"]
    rows = []
    for dtype in ("float32", "bfloat16"):
        for attention in (*ATTENTION, *(f"across_images_{name}" for name in ATTENTION)):
            case = cases.get(f"{attention}_{dtype}")
            if case is None:  # a report of an earlier version
                continue
            rows.append(
                [
                    Markup(f"{attention.replace('across_images_', 'packed across images, ')}, {dtype}"),
                    *(
                        f"{case[kind]['difference']:.1e} (of {case[kind]['greatest']:.1f})"
                        for kind in ("logits", "image_features", "gradients")
                    ),
                    f"{case['top1_agreement']:.3f}",
                ]
            )
    return table(header, rows)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for part in (machine_line, training_table, inference_table, compile_table, parity_table):
        print(part(folder), end="\n\n")


if __name__ == "__main__":
    main()
