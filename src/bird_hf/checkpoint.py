"""Open a BiRD checkpoint folder, or say in one line why it is none."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hub.modeling_bird import BirdForConditionalGeneration
    from .hub.processing_bird import BirdProcessor


def load_checkpoint(folder: str | Path, **kwargs: Any) -> tuple[BirdForConditionalGeneration, BirdProcessor]:
    """Model (in evaluation mode) and processor of a checkpoint folder; `kwargs` go to `from_pretrained`.

    Weights are safetensors; a .bin is read only as plain tensors. Raises ValueError where the folder is no BiRD
    checkpoint, or its weights are missing, damaged, or hold anything but tensors.
    """
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    from .hub.modeling_bird import BirdForConditionalGeneration
    from .hub.processing_bird import BirdProcessor

    folder = Path(folder)
    _check_folder(folder)
    logging.disable_progress_bar()
    try:
        model, report = BirdForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **{"dtype": torch.float32, **kwargs}
        )
    except SafetensorError as error:
        raise ValueError(
            f"{folder}: the safetensors file is damaged ({error}); copy the checkpoint again"
        ) from error
    except (pickle.UnpicklingError, EOFError) as error:
        raise ValueError(
            f"{folder}: the weights are a pickle that holds more than tensors, which is refused because "
            "opening it could run code; ask for safetensors, or run `bird convert` on the original"
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"{folder}: the weights lack {len(missing)} tensors, such as {missing[0]}; the checkpoint is incomplete"
        )
    return model.eval(), BirdProcessor.from_pretrained(folder, local_files_only=True)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder; run `bird quickstart` for the embedded checkpoint ./bird"
        )
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"{folder} is no checkpoint: it has no config.json")
    try:
        model_type = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{config} is no JSON object ({error}); copy the checkpoint again") from error
    if model_type != "bird":
        raise ValueError(
            f"{folder} holds a model of type {model_type!r}, not 'bird'; Qwen-VL weights become one by `bird convert`"
        )
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise ValueError(
            f"{folder} has a config.json and no weights (*.safetensors); copy the checkpoint again"
        )
