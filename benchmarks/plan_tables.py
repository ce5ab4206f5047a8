"""What `bird train --plan` computes beside what one GPU measured, as docs/plan.md shows it.

python benchmarks/plan_tables.py [DIR]     (default: docs/gpu)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.markdown import table
from bird_hf.train.flops import Part, Parts, Work, layer_parameters, training_flops
from bird_hf.train.memory import Setting, Weights, activation_bytes, memory

FOLDER = Path(__file__).parents[1] / "docs" / "gpu"
GB = 1e9
PAPER_PAIRS = 2 * 240_000  # BiRD 4.2, and two epochs by the authors' script
BF16 = Setting("weights, gradients and moments in bf16", 2, 2, 2, 4)
FLOAT32 = Setting("float32 weights, autocast", 4, 4, 4, 8, copies=2, autocast=True)
LORA = Setting("LoRA, bf16 base, float32 adapters", 4, 2, 4, 8)


def read(folder: Path, part: str) -> dict[str, Any]:
    file = folder / f"{part}.json"
    return json.loads(file.read_text(encoding="utf-8"))["cases"] if file.is_file() else {}


def parts_of(config: BirdConfig, rank: int, attention_only: bool = False) -> Parts:
    if not rank:
        return Parts()
    text = config.text_config
    _, of_rank_1 = layer_parameters(config)
    if attention_only:  # q, k, v, o
        return Parts(
            resampler=Part(),
            language_model=Part(adapter=8 * text.hidden_size * rank * text.num_hidden_layers),
        )
    return Parts(language_model=Part(adapter=of_rank_1 * rank * text.num_hidden_layers))


def tokens_of(batch: dict[str, Any]) -> int:
    """Tokens of a micro-batch, padding included; rows that are packed across images share its sequences."""
    return batch.get("sequences", batch["rows"]) * batch["length"]


def planned_memory(
    case: dict[str, Any], setting: Setting, config: BirdConfig, parts: Parts, whole: int
) -> float:
    """Bytes by formula for a measured micro-batch; `whole`: parameters of the model with its adapters."""
    batch = case.get("microbatch", case)
    work = Work(batch["rows"], tokens_of(batch), batch["supervised_tokens"], 0)
    kept = activation_bytes(config, work, parts, case["gradient_checkpointing"], setting.autocast)
    trained = case["trainable_parameters"]
    return memory(setting, Weights(whole - trained, 0, trained, 0), kept, devices=1).total


def memory_table(folder: Path) -> str:
    rows: list[list[Any]] = []
    config = BirdConfig()
    whole = read(folder, "inference")["model"]["parameters"]
    for name, case in read(folder, "training").items():
        if "peak_memory_bytes" in case:
            parts = parts_of(config, 64 if name.startswith("lora") else 0)
            total = whole + parts.language_model.adapter
            rows.append(_row(name, planned_memory(case, BF16, config, parts, total), case))
    for name, case in read(folder, "plan_memory").items():
        if "peak_memory_bytes" not in case:
            continue
        shallow = BirdConfig()
        shallow.text_config.num_hidden_layers = case["layers"]
        is_lora = name.startswith("lora")
        parts = parts_of(shallow, 16 if is_lora else 0, attention_only=True)
        setting = LORA if is_lora else FLOAT32
        planned = planned_memory(case, setting, shallow, parts, case["parameters"])
        rows.append(_row(f"{name} ({case['layers']} layers)", planned, case))
    return table(["case", "planned GB", "measured GB", "difference"], rows)


def _row(name: str, planned: float, case: dict[str, Any]) -> list[Any]:
    measured = case["peak_memory_bytes"]
    shares = (f"{planned / GB:.1f}", f"{measured / GB:.1f}", f"{planned / measured - 1:+.1%}")
    return [name.replace("_", " "), *shares]


def hours_table(folder: Path) -> str:
    """Hours of the paper's run from FLOPs, the measured peak and the measured MFU, beside measured seconds."""
    cases = read(folder, "training")
    peak = cases["matmul_peak"]["flops_per_second"]
    config, rows = BirdConfig(), []
    for name, case in cases.items():
        if "mfu" not in case:
            continue
        batch = case["microbatch"]
        parts = parts_of(config, 64 if name.startswith("lora") else 0)
        # Pairs of positions are at most those of a causal mask of each row; a share of 4 % of a row of 2048 at most.
        tokens = tokens_of(batch)
        attended = tokens * tokens / batch["rows"] / 2
        work = Work(batch["rows"], tokens, batch["supervised_tokens"], attended)
        flops = training_flops(config, work, parts) * PAPER_PAIRS / batch["pairs"]
        planned, measured = flops / (peak * case["mfu"]) / 3600, case["hours_of_the_papers_run"]
        rows.append(
            [name.replace("_", " "), f"{planned:.2f}", f"{measured:.2f}", f"{planned / measured - 1:+.1%}"]
        )
    return table(["case", "planned hours", "measured hours", "difference"], rows)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for part in (memory_table, hours_table):
        print(part(folder), end="\n\n")


if __name__ == "__main__":
    main()
