"""The plan of a recipe as text: paragraphs and Markdown tables."""

from __future__ import annotations

from typing import Any

from ..markdown import table

_GB = 1e9
_COLUMNS = ("weights", "gradients", "optimizer", "buffers")


def text_of_plan(plan: dict[str, Any]) -> str:
    """What `bird train --plan` prints."""
    model, data, run, hardware = plan["model"], plan["data"], plan["run"], plan["hardware"]
    lengths = data["tokens_per_row"]
    lines = [
        f"Model: {model['source']}",
        f"{model['trained']:,} parameters train, {model['frozen']:,} are frozen.",
        _parts_table(model["parts"]),
        f"Data: {data['source']}",
        f"{data['rows']:,} rows with {data['pairs']:,} question-answer pairs; tokens of a row, image included: mean "
        f"{lengths['mean']:.0f}, median {lengths['median']:,}, longest {lengths['longest']:,}.",
        _layouts_table(plan["layouts"]),
        f"Devices: {hardware['devices']} of {hardware['memory']:g} GB, {hardware['tflops']:g} TFLOP/s each, of which "
        f"{hardware['utilisation']:.0%} are reached (without what checkpointing repeats).",
        f"Run: {run['epochs']:.4g} epochs, {run['layout']}: {run['steps']:,} steps of {run['rows_per_step']:,} rows, "
        f"{run['flops'] / 1e18:.3g} EFLOP, {run['hours']:.3g} hours ({run['device_hours']:.3g} device hours).",
        "GB on each device, for the longest micro-batch:",
        _memory_table(plan["memory"]),
        _advice(plan),
    ]
    return "\n\n".join(lines)


def _parts_table(parts: dict[str, Any]) -> str:
    rows = []
    for name, part in parts.items():
        adapter = part["adapter_parameters"]
        how = "trained" if part["trained"] else (f"frozen, LoRA of {adapter:,}" if adapter else "frozen")
        rows.append([name.replace("_", " "), part["parameters"], how])
    return table(["part", "parameters", "in training"], rows)


def _layouts_table(layouts: list[dict[str, Any]]) -> str:
    header = ["an epoch as", "sequences", "images read", "tokens", "padding", "PFLOP", "hours", "pairs/s"]
    rows = [
        [
            way["name"],
            way["sequences"],
            way["images"],
            way["tokens"],
            f"{way['padding_share']:.0%}",
            _figure(way["flops_per_epoch"] / 1e15),
            _figure(way["hours_per_epoch"]),
            _figure(way["pairs_per_second"]),
        ]
        for way in layouts
    ]
    return table(header, rows)


def _memory_table(settings: list[dict[str, Any]]) -> str:
    header = [
        "setting",
        *_COLUMNS,
        "activations",
        "total",
        "with checkpointing",
        "total",
        "fits",
        "hours per epoch",
    ]
    rows = []
    for way in settings:
        without, with_it = way["without_checkpointing"], way["checkpointing"]
        rows.append(
            [
                way["setting"],
                *(f"{without[name] / _GB:.1f}" for name in _COLUMNS),
                f"{without['activations'] / _GB:.1f}",
                f"{without['total'] / _GB:.1f}",
                f"{with_it['activations'] / _GB:.1f}",
                f"{with_it['total'] / _GB:.1f}",
                "yes" if without["fits"] else ("with checkpointing" if with_it["fits"] else "no"),
                _figure(way["hours_per_epoch"]),
            ]
        )
    return table(header, rows)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _advice(plan: dict[str, Any]) -> str:
    """The first setting that fits, with the least that is done for lack of memory."""
    memory = plan["hardware"]["memory"]
    for way in plan["memory"]:
        if way["without_checkpointing"]["fits"]:
            return f"First that fits {memory:g} GB (95 % of it): {way['setting']}, without checkpointing."
        if way["checkpointing"]["fits"]:
            return f"First that fits {memory:g} GB (95 % of it): {way['setting']}, with gradient_checkpointing: true."
    return (
        f"None fits {memory:g} GB; more devices, a smaller per_device_train_batch_size or max_turns, or a larger GPU "
        "would help."
    )
