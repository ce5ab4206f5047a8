"""Load a BiRD checkpoint folder, with one-line errors."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..hub.configuration_bird import BirdConfig
    from ..hub.modeling_bird import BirdForConditionalGeneration
    from ..hub.processing_bird import BirdProcessor

ADAPTER_CONFIG = "adapter_config.json"  # written by peft's save_pretrained
_CODE = Path(__file__).parents[1] / "hub"
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # OWNER/NAME on the hub
_HUB_FILES = ["*.json", "*.jinja", "*.txt", "*.safetensors", "LICENSE*", "NOTICE*"]


def find_checkpoint(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a checkpoint: `name` itself, or the download of a hub repository OWNER/NAME at a revision.

    Raises ValueError if a repository can neither be downloaded nor found in the cache. A name that is neither a
    folder nor OWNER/NAME is returned as it is: `load_checkpoint` reports it.
    """
    if Path(name).is_dir() or not _REPOSITORY.fullmatch(os.fspath(name)):
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(os.fspath(name), revision=revision, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{os.fspath(name)!r} is not a folder and cannot be downloaded from the hub ({reason}); "
            "check the name, or run `bird quickstart` for the embedded checkpoint ./bird"
        ) from error


def load_checkpoint(folder: str | Path, **kwargs: Any) -> tuple[BirdForConditionalGeneration, BirdProcessor]:
    """Returns the model (in evaluation mode) and the processor of a checkpoint folder.

    `kwargs` are passed to the model's `from_pretrained`. Weights are safetensors, or a .bin file that contains nothing
    but tensors. Raises ValueError if the folder is not a BiRD checkpoint, or if a file is missing, damaged, does not
    match the others, or contains anything but tensors.
    """
    folder = Path(folder)
    check_folder(folder)
    with silent_loading():
        model = _load_model(folder, kwargs)
        processor = load_processor(folder)
    check_processor(processor, model.config, folder)
    return model.eval(), processor


def read_field(path: Path, name: str, remedy: str) -> Any:
    """A field of a JSON file, None if it is not set. Raises ValueError, with the remedy, if it is not an object."""
    try:
        return json.loads(path.read_text(encoding="utf-8")).get(name)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a JSON object ({error}); {remedy}") from error


def check_processor(processor: BirdProcessor, config: BirdConfig, folder: Path) -> None:
    """Raises ValueError if a processor uses another image token than the model, or another number of them."""
    if (processor.image_token_id, processor.num_queries) != (config.image_token_id, config.num_queries):
        raise ValueError(f"{folder}: tokenizer and processor are of another model; copy the checkpoint again")


# Damaged files make loaders raise nearly any exception, so both functions catch them all.


def _load_model(folder: Path, kwargs: dict[str, Any]) -> BirdForConditionalGeneration:
    import torch

    from ..hub.modeling_bird import BirdForConditionalGeneration

    # Tensors of a wrong shape are accepted here, so that the error below can name them.
    kwargs = {"dtype": torch.float32, **kwargs, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, report = BirdForConditionalGeneration.from_pretrained(folder, local_files_only=True, **kwargs)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{folder}: the weights are a pickle that contains more than tensors, which is refused because "
            "loading it could run code; use a copy in safetensors, or run `bird convert` on the original"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{folder}: config.json or the weights are damaged ({_reason(error)}); copy the checkpoint again"
        ) from error
    wrong = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    if wrong:
        raise ValueError(
            f"{folder}: {len(wrong)} tensors of the weights are missing or have a wrong shape, such as {wrong[0]}; "
            "copy the checkpoint again"
        )
    return model


def load_processor(folder: Path) -> BirdProcessor:
    """Returns the processor of a folder. Raises ValueError if its files are missing or damaged."""
    from ..hub.processing_bird import BirdProcessor

    if not (folder / "processor_config.json").is_file():
        raise ValueError(
            f"{folder} has no tokenizer and processor (processor_config.json); "
            "`bird convert` writes them if the source contains qwen.tiktoken"
        )
    try:
        return BirdProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(
            f"{folder}: tokenizer or processor is damaged ({_reason(error)}); copy the checkpoint again"
        ) from error


def read_label_names(folder: Path) -> dict[str, list[str]]:
    """The names that the model of a checkpoint folder knows, by modality, without loading the model; {} if not listed.

    Raises ValueError if the folder is not a BiRD checkpoint.
    """
    check_folder(folder)
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("label_names") or {}


def copy_code(folder: Path) -> None:
    """Copy the model's code into a checkpoint folder, as `save_pretrained` does, so that it loads without bird_hf."""
    for file in _CODE.glob("[!_]*.py"):
        shutil.copyfile(file, folder / file.name)


def check_folder(folder: Path) -> None:
    """Raises ValueError, in one line, if the files of a folder are not those of a BiRD checkpoint."""
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder; run `bird quickstart` for the embedded checkpoint ./bird"
        )
    if (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(
            f"{folder} is a LoRA adapter, not a whole checkpoint; merge it into its base model first: "
            f"`bird export {folder} DIR --merge`"
        )
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(
            f"{folder} is not a checkpoint: it has no config.json; `bird quickstart` writes one to ./bird"
        )
    model_type = read_field(config, "model_type", "copy the checkpoint again")
    if model_type != "bird":
        raise ValueError(
            f"{folder} contains a model of type {model_type!r}, not 'bird'; convert Qwen-VL weights with `bird convert`"
        )
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise ValueError(
            f"{folder} has a config.json but no weights (*.safetensors); copy the checkpoint again"
        )


def _reason(error: Exception) -> str:
    """The start of an error message, after the error's class: many messages are only a number."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


@contextmanager
def silent_loading() -> Iterator[None]:
    """Turn off the messages, warnings and progress bars of transformers; errors are raised as usual."""
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
