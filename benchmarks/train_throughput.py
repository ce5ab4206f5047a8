"""What a question-answer pair costs in training, padded, packed and cached, in CPU seconds of one thread.

    python benchmarks/train_throughput.py [--rows 8] [--repeats 3] [--out throughput.json] [--compile] [--tiny]
    python benchmarks/train_throughput.py --profile  what the operators of the fastest way take
    python benchmarks/train_throughput.py --write    docs/gpu/train_throughput.json into docs/train_on_gpus.md

A random model (decoder 8 x 512, tower 6 x 384 at 448, vocabulary 8192) makes forward and backward passes in bf16
autocast over the same rows, laid out in several ways: rows of five independent turns, and rows of one to nine. All ways
are run in turn in each repeat, beside a bf16 matrix product of the same thread, and medians are printed. Utilisation is
the FLOP/s of the matrix products that a way computes (padding counts, what a mask hides does not), over those of that
product.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_parts.flops import Step, training_flops, vision_flops
from gpu_parts.models import (
    ORIGINAL_LENGTH,
    Batch,
    config,
    make_batch,
    make_model,
    make_processor,
    make_rows,
    one_turn_rows,
)
from throughput_table import FASTEST, FIVE, MIXED, PAGE, REPORT, as_markdown, compared, machine, write_page
from torch.profiler import ProfilerActivity, profile
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.hub.packed_attention import PADDING
from bird_hf.train import segment_attention
from bird_hf.train.collate import IGNORED
from bird_hf.train.from_scratch import cpu_attention

BATCH = 4  # rows at once of the ways that pad


@dataclass(frozen=True)
class Computed:
    """How a batch is computed: attention, the head at all positions or at answers only, pixels or cached features.

    bf16_weights: weights in bf16, as DeepSpeed and FSDP compute, in place of float32 under autocast. is_compiled: the
    decoder's layers by torch.compile, but for attention.
    """

    attention: str
    at_answers: bool = False
    is_cached: bool = False
    bf16_weights: bool = False
    is_compiled: bool = False


@dataclass(frozen=True)
class Way:
    """One way to train rows: its batches, made beforehand, and how they are computed."""

    letter: str
    what: str
    rows: str  # which rows
    batches: Sequence[Batch]
    computed: Computed

    @property
    def pairs(self) -> int:
        return sum(batch.pairs for batch in self.batches)

    @property
    def padding(self) -> float:
        tokens = sum(batch.tokens for batch in self.batches)
        return sum(int((batch.turn_ids == PADDING).sum()) for batch in self.batches) / tokens


class Bench:
    """The model, and the ways to train the same rows."""

    def __init__(self, size: str, num_rows: int, with_compiled: bool = False):
        self.processor = make_processor(size)
        self.config = config(size, self.processor.image_token_id)
        self.model = make_model(self.config, torch.device("cpu"), torch.float32)
        self.model.model.freeze_vision()
        self.model.train()
        self.in_bf16 = copy.deepcopy(self.model).bfloat16()
        self.compiled = compiled(self.in_bf16) if with_compiled else None
        self.is_tiny = size == "tiny"
        self.ways = self._ways(make_rows(num_rows), mixed_rows(num_rows))

    def _ways(self, five: list[dict[str, Any]], mixed: list[dict[str, Any]]) -> list[Way]:
        padded = Computed(cpu_attention.NAME)
        at_answers = Computed(cpu_attention.NAME, at_answers=True)
        cached = Computed(cpu_attention.NAME, at_answers=True, is_cached=True)
        segments = Computed(segment_attention.NAME, at_answers=True, is_cached=True)
        single = one_turn_rows(five)
        original = self._batches(single[:1], length=192 if self.is_tiny else ORIGINAL_LENGTH)
        ways = [
            Way("a", f"one turn, padded to {original[0].input_ids.shape[1]}", FIVE, original, padded),
            Way("b", "one turn, padded to the longest of four", FIVE, self._batches(single[:BATCH]), padded),
        ]
        for name, rows in ((FIVE, five), (MIXED, mixed)):
            batches = self._batches(rows)
            joined = [join(batch) for batch in batches]
            ways += [
                Way("c", "a row is a sequence", name, batches, padded),
                Way("c2", "head at answers only", name, batches, at_answers),
                Way("d1", "and features from the store", name, batches, cached),
                Way("d2", "and four rows joined in a sequence, by segments", name, joined, segments),
                Way("d3", "and weights in bf16", name, joined, replace(segments, bf16_weights=True)),
                Way("d4", "(d2) under a dense mask", name, joined, cached),
            ]
            if self.compiled is not None:
                in_bf16 = replace(segments, bf16_weights=True, is_compiled=True)
                ways.append(Way("d5", "(d3) with compiled layers", name, joined, in_bf16))
        left_out = {(MIXED, "c2"), (MIXED, "d4")}  # the other rows say it
        return [way for way in ways if (way.rows, way.letter) not in left_out]

    def _batches(self, rows: Sequence[dict[str, Any]], length: int | None = None) -> list[Batch]:
        """Batches of four rows. Without a length, each is as long as its longest row."""
        made = []
        for start in range(0, len(rows), BATCH):
            batch = make_batch(rows[start : start + BATCH], self.processor, self.config, length)
            made.append(batch if length else trimmed(batch))
        return made

    def runs(self, way: Way) -> list[Callable[[], torch.Tensor]]:
        """A forward and backward pass of each batch of a way; what a collator or a store gives is made beforehand."""
        return [
            partial(self._run, way.computed, batch, self._kept(way.computed, batch)) for batch in way.batches
        ]

    @torch.no_grad()
    def _kept(self, computed: Computed, batch: Batch) -> torch.Tensor | None:
        if not computed.is_cached:
            return None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            patches = self.model.model.vision_tower(batch.pixel_values).last_hidden_state
        return patches.bfloat16() if computed.bf16_weights else patches

    def _run(self, computed: Computed, batch: Batch, patches: torch.Tensor | None) -> torch.Tensor:
        model = self.in_bf16 if computed.bf16_weights else self.model
        model = self.compiled if computed.is_compiled else model
        model.model.language_model.set_attn_implementation(computed.attention)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not computed.bf16_weights):
            if patches is None:
                with torch.no_grad():
                    patches = model.model.vision_tower(batch.pixel_values).last_hidden_state
            loss = loss_of(model, batch, patches, computed.at_answers)
        loss.backward()
        model.zero_grad()
        return loss.detach()

    def flops(self, way: Way) -> float:
        """Of the matrix products that a way computes."""
        total = 0.0
        for batch in way.batches:
            images = len(batch.pixel_values)
            heads = batch.supervised if way.computed.at_answers else batch.tokens
            total += training_flops(self.config, Step(images, batch.tokens, heads, batch.visible))
            total -= vision_flops(self.config, images) if way.computed.is_cached else 0
        return total


def compiled(model: BirdForConditionalGeneration) -> BirdForConditionalGeneration:
    """A copy whose decoder layers are compiled. Attention by segments has loops over segments, and stays as it is."""
    ALL_ATTENTION_FUNCTIONS.register(
        segment_attention.NAME, torch.compiler.disable(segment_attention.segment_attention)
    )
    model = copy.deepcopy(model)
    for layer in model.model.language_model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    return model


def loss_of(
    model: BirdForConditionalGeneration,
    batch: Batch,
    patches: torch.Tensor,
    at_answers: bool,
) -> torch.Tensor:
    """The training loss, from the tower's output on."""
    states = model.model(
        input_ids=batch.input_ids,
        patch_states=patches,
        position_ids=batch.position_ids,
        use_cache=False,
        **batch.attention(),
    ).last_hidden_state[:, :-1]
    targets = batch.labels[:, 1:]
    if at_answers:
        kept = targets != IGNORED
        states, targets = states[kept], targets[kept]
    logits = model.lm_head(states).float()
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


def mixed_rows(count: int) -> list[dict[str, Any]]:
    """Rows of one to nine independent turns."""
    draw = random.Random(1)
    one, other = make_rows(count, seed=1), make_rows(count, seed=2)
    rows = []
    for first, second in zip(one, other, strict=True):
        messages = [*first["messages"], *second["messages"]]
        rows.append(first | {"messages": messages[: 2 * draw.randint(1, 9)]})
    return rows


def with_tokens(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """The batch with what describes its tokens changed."""
    tokens = (change(each) for each in batch.tokens_of_rows())
    return Batch(*tokens, pixel_values=batch.pixel_values, pairs=batch.pairs)


def trimmed(batch: Batch) -> Batch:
    """Without the columns that are padding in every row."""
    length = int((batch.turn_ids != PADDING).sum(-1).max())
    return with_tokens(batch, lambda values: values[:, :length])


def join(batch: Batch) -> Batch:
    """The rows of a batch in one sequence, without padding."""
    is_real = batch.turn_ids != PADDING
    joined = with_tokens(batch, lambda values: values[is_real][None])
    return replace(joined, row_ids=torch.arange(len(is_real)).repeat_interleave(is_real.sum(-1))[None])


def thread_seconds(run: Callable[[], Any]) -> float:
    """CPU seconds that this process takes for a run. With one thread, others on the machine do not count."""
    start = time.process_time()
    run()
    return time.process_time() - start


def matmul_flops(side: int) -> float:
    """FLOP/s of a product of two bf16 matrices, the best of three."""
    left, right = torch.randn(2, side, side).bfloat16()
    left @ right
    return 2 * side**3 / min(thread_seconds(lambda: left @ right) for _ in range(3))


def measure(bench: Bench, repeats: int) -> Iterator[dict[str, Any]]:
    """Runs all ways in turn, `repeats` times after one that is not counted; gives the report after each."""
    side = 256 if bench.is_tiny else 2048
    runs = [bench.runs(way) for way in bench.ways]
    losses = [
        [float(run()) * batch.supervised for run, batch in zip(each, way.batches, strict=True)]
        for each, way in zip(runs, bench.ways, strict=True)
    ]
    seconds: list[list[float]] = [[] for _ in runs]
    shares: list[list[float]] = [[] for _ in runs]
    peaks = []
    for repeat in range(repeats):
        for way, each, took, share in zip(bench.ways, runs, seconds, shares, strict=True):
            peaks.append(matmul_flops(side))
            took.append(sum(thread_seconds(run) for run in each))
            share.append(bench.flops(way) / took[-1] / peaks[-1])
        print(f"repeat {repeat + 1} of {repeats} is done", flush=True)
        yield {
            "machine": machine(),
            "tiny": bench.is_tiny,
            "repeats": repeat + 1,
            "matmul": {
                "side": side,
                "flops_per_second": statistics.median(peaks),
                "lowest": min(peaks),
                "highest": max(peaks),
            },
            "ways": [_figures(*each) for each in zip(bench.ways, losses, seconds, shares, strict=True)],
        }


def _figures(way: Way, losses: list[float], took: list[float], shares: list[float]) -> dict[str, Any]:
    return {
        "way": way.letter,
        "what": way.what,
        "rows": way.rows,
        "pairs": way.pairs,
        "padding": way.padding,
        "loss": sum(losses) / sum(batch.supervised for batch in way.batches),
        "seconds_per_pair": statistics.median(took) / way.pairs,
        "lowest": min(took) / way.pairs,
        "highest": max(took) / way.pairs,
        "of_peak": statistics.median(shares),
    }


PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")


def limits(bench: Bench, peak: float) -> dict[str, float]:
    """What keeps the fastest way below the peak.

    of_products: the share of a pass that matrix products take, by torch.profiler. products_of_peak: the rate of the
    products of a decoder layer, alone in a loop, over the peak.
    """
    way = next(way for way in bench.ways if way.letter == FASTEST)
    recorded = _profiled(bench, way)
    took = {event.key: event.self_cpu_time_total for event in recorded}
    text, tokens = bench.config.text_config, way.batches[0].tokens
    width, inner = text.hidden_size, text.intermediate_size
    flops = seconds = 0.0
    for rows, columns, count in ((width, width, 4), (width, inner, 2), (inner, width, 1)):
        states, weight = torch.randn(tokens, rows).bfloat16(), torch.randn(columns, rows).bfloat16()
        product = partial(F.linear, states, weight)
        product()
        flops += count * 2 * tokens * rows * columns
        seconds += count * min(thread_seconds(product) for _ in range(5))
    return {
        "of_products": sum(took.get(name, 0) for name in PRODUCTS) / sum(took.values()),
        "products_of_peak": flops / seconds / peak,
    }


def _profiled(bench: Bench, way: Way) -> Any:
    """Times of the operators of a batch of a way."""
    run = bench.runs(way)[0]
    run()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        run()
    return recorded.key_averages()


def print_profile(bench: Bench) -> None:
    """What the operators of a batch of the fastest way take, by torch.profiler."""
    way = next(way for way in bench.ways if way.letter == FASTEST)
    print(_profiled(bench, way).table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8, help="rows of each kind")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    parser.add_argument("--compile", action="store_true", help="(d5) as well, which takes minutes to compile")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the script")
    parser.add_argument("--profile", action="store_true", help="print what the operators of (d3) take")
    parser.add_argument(
        "--write", action="store_true", help=f"write the table of {REPORT.name} into the page"
    )
    options = parser.parse_args(arguments)
    if options.write:
        write_page(PAGE, json.loads(REPORT.read_text(encoding="utf-8")))
        return
    torch.set_num_threads(1)
    cpu_attention.register()
    segment_attention.register()
    bench = Bench("tiny" if options.tiny else "middle", options.rows, options.compile)
    if options.profile:
        print_profile(bench)
        return
    limit = limits(bench, matmul_flops(256 if options.tiny else 2048))
    for report in measure(bench, options.repeats):
        report |= {"compared": compared(report), "limits": limit}
        if (
            options.out is not None
        ):  # after each repeat, so that a run that is stopped leaves what it measured
            options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(as_markdown(report))


if __name__ == "__main__":
    main()
