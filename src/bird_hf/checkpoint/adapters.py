"""Merge a LoRA adapter, as peft saves it, into the BiRD checkpoint that it was trained on."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .load import (
    ADAPTER_CONFIG,
    check_processor,
    find_checkpoint,
    load_checkpoint,
    load_processor,
    read_field,
    silent_loading,
)

if TYPE_CHECKING:
    from ..hub.modeling_bird import BirdForConditionalGeneration


def merge_adapter(adapter: Path, base: Path, out: Path) -> None:
    """Write the merged model, its processor, and the licences of both parts to the existing folder `out`.

    The weights are stored in the base model's dtype. The processor is the adapter's if its folder contains one,
    otherwise the base model's.

    Raises ValueError if `base` is not a BiRD checkpoint, or if the adapter does not fit it.
    """
    model, processor = load_checkpoint(base, dtype="auto")
    if (adapter / "processor_config.json").is_file():
        with silent_loading():
            processor = load_processor(adapter)
        check_processor(processor, model.config, adapter)
        model.config.label_names = processor.label_names  # with those of the adapter's training data
    _merged(model, adapter, base).save_pretrained(out)
    processor.save_pretrained(out)
    for folder in (base, adapter):
        for licence in (*folder.glob("LICENSE*"), *folder.glob("NOTICE*")):
            shutil.copyfile(licence, out / licence.name)


def find_base(adapter: Path, name: str | None = None) -> Path:
    """Returns the folder of an adapter's base model: `name`, a folder or a hub name, or what its configuration says.

    Raises ValueError if `adapter` is not a LoRA adapter, or if the base model cannot be found.
    """
    path = adapter / ADAPTER_CONFIG
    if not path.is_file():
        raise ValueError(
            f"{adapter} is not a LoRA adapter: it has no {ADAPTER_CONFIG}; export a whole checkpoint without --merge"
        )
    named = read_field(path, "base_model_name_or_path", "copy the adapter again")
    if name is not None:
        return find_checkpoint(name)
    if not named:
        raise ValueError(f"{path} does not name a base model; give it with --base")
    try:
        folder = find_checkpoint(named)
    except ValueError as error:
        raise ValueError(f"base model of {adapter}: {error}; give its folder with --base") from error
    if not folder.is_dir():
        raise ValueError(f"base model of {adapter}: {named!r} is not a folder; give its folder with --base")
    return folder


def _merged(model: BirdForConditionalGeneration, adapter: Path, base: Path) -> BirdForConditionalGeneration:
    """Returns the model with the adapter merged into its weights. Raises ValueError if they do not fit together."""
    from peft import PeftModel

    try:
        with silent_loading():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except Exception as error:  # damaged or foreign adapters make peft raise nearly any exception
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{adapter} does not fit the base model {base} ({type(error).__name__}: {reason}); "
            "give the right one with --base, or copy the adapter again"
        ) from error
