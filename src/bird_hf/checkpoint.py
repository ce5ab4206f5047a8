"""Open a BiRD checkpoint folder, or say in one line why it is none."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hub.modeling_bird import BirdForConditionalGeneration
    from .hub.processing_bird import BirdProcessor


def load_checkpoint(folder: str | Path, **kwargs: Any) -> tuple[BirdForConditionalGeneration, BirdProcessor]:
    """Model (in evaluation mode) and processor of a checkpoint folder; `kwargs` go to the model's `from_pretrained`.

    Weights are safetensors; a .bin is read only as plain tensors. Raises ValueError where the folder is no BiRD
    checkpoint, or its parts are missing, damaged, do not fit each other, or hold anything but tensors.
    """
    folder = Path(folder)
    check_folder(folder)
    with _quiet():
        model = _load_model(folder, kwargs)
        processor = _load_processor(folder)
    expected = (model.config.image_token_id, model.config.num_queries)
    if (processor.image_token_id, processor.num_queries) != expected:
        raise ValueError(f"{folder}: tokenizer and processor are of another model; copy the checkpoint again")
    return model.eval(), processor


# Damaged files make loaders raise nearly anything, so both functions catch everything.


def _load_model(folder: Path, kwargs: dict[str, Any]) -> BirdForConditionalGeneration:
    import torch

    from .hub.modeling_bird import BirdForConditionalGeneration

    # Misshapen tensors are let pass here to be named below.
    kwargs = {"dtype": torch.float32, **kwargs, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, report = BirdForConditionalGeneration.from_pretrained(folder, local_files_only=True, **kwargs)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{folder}: the weights are a pickle that holds more than tensors, which is refused because "
            "opening it could run code; ask for safetensors, or run `bird convert` on the original"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{folder}: config.json or the weights are damaged ({_reason(error)}); copy the checkpoint again"
        ) from error
    wrong = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    if wrong:
        raise ValueError(
            f"{folder}: {len(wrong)} tensors of the weights are missing or misshapen, such as {wrong[0]}; "
            "copy the checkpoint again"
        )
    return model


def _load_processor(folder: Path) -> BirdProcessor:
    from .hub.processing_bird import BirdProcessor

    if not (folder / "processor_config.json").is_file():
        raise ValueError(
            f"{folder} has no tokenizer and processor (processor_config.json); "
            "`bird convert` makes them where the source has qwen.tiktoken"
        )
    try:
        return BirdProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(
            f"{folder}: tokenizer or processor is damaged ({_reason(error)}); copy the checkpoint again"
        ) from error


def copy_code(folder: Path) -> None:
    """Put the model's code into a checkpoint folder, as `save_pretrained` does: it then loads without bird_hf."""
    for file in (Path(__file__).parent / "hub").glob("[!_]*.py"):
        shutil.copyfile(file, folder / file.name)


def check_folder(folder: Path) -> None:
    """Raises ValueError, in one line, where a folder is no BiRD checkpoint by its files."""
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder; run `bird quickstart` for the embedded checkpoint ./bird"
        )
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(
            f"{folder} is no checkpoint: it has no config.json; `bird quickstart` puts one into ./bird"
        )
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


def _reason(error: Exception) -> str:
    """An error's first sentence or so, with its name: many a message is only a number."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Loaders report at length on stderr; here nothing is said, or one line by the error that is raised."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
