"""The model that a user names: a BiRD checkpoint, one of another family, or an endpoint."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..answering import AskedModel
from ..checkpoint.load import ADAPTER_CONFIG, check_folder, find_checkpoint, read_field
from .endpoint import KEY_VARIABLE, EndpointModel, EndpointSettings
from .fitting import fitting_dialect

_log = logging.getLogger(__name__)
_ADDRESS = ("http://", "https://")


@dataclass(frozen=True)
class ModelChoice:
    """A model, and how it is opened.

    model: a checkpoint folder, OWNER/NAME on the hub, or the address of an OpenAI-compatible endpoint. dialect: how it
    writes boxes, a name or a `dialect.json`; by default what its folder says. served_model: the model's name at the
    endpoint. replies: folder in which an endpoint's answers are kept; None keeps none. device, dtype, load_in_4bit: of
    a checkpoint. concurrency, timeout, max_retries, key_variable: see `EndpointSettings`.
    """

    model: str
    dialect: str | None = None
    served_model: str | None = None
    replies: Path | None = None
    device: str | None = None
    dtype: str | None = None
    load_in_4bit: bool = False
    concurrency: int = 8
    timeout: float = 120.0
    max_retries: int = 6
    key_variable: str = KEY_VARIABLE

    @property
    def is_endpoint(self) -> bool:
        return self.model.startswith(_ADDRESS)


def open_model(choice: ModelChoice) -> AskedModel:
    """Open a model of any kind; what a user should know about how it is asked is logged as warnings.

    Raises ValueError, in one line, if it cannot be opened or asked.
    """
    model = _opened(choice)
    for remark in model.remarks:
        _log.warning("%s", remark)
    return model


def _opened(choice: ModelChoice) -> AskedModel:
    if choice.is_endpoint:
        return _open_endpoint(choice)
    if choice.served_model is not None:
        raise ValueError(f"--served-model is the name of a model at an endpoint, and {choice.model} is none")
    from ..inference import load
    from .vision_language import load_vision_language

    folder = find_checkpoint(choice.model)
    options, device = _weights(choice)
    if _is_bird(folder):
        if choice.dialect not in (None, "bird"):
            check_folder(folder)
            raise ValueError(
                f"{choice.model} is a BiRD checkpoint, which is asked in its own way; leave --dialect out"
            )
        return load(choice.model, device, choice.dtype, **options)
    return load_vision_language(choice.model, choice.dialect, device, choice.dtype, **options)


def _is_bird(folder: Path) -> bool:
    """Whether a folder is BiRD's. What is no checkpoint is taken for it: its loader says what is wrong."""
    config, adapter = folder / "config.json", folder / ADAPTER_CONFIG
    if config.is_file():
        return read_field(config, "model_type", "copy the checkpoint again") in (None, "bird")
    if adapter.is_file():
        base = read_field(adapter, "base_model_name_or_path", "copy the adapter again")
        return not isinstance(base, str) or _is_bird(find_checkpoint(base))
    return True


def _weights(choice: ModelChoice) -> tuple[dict[str, Any], str | None]:
    """Options of `from_pretrained`, and the device that the model is moved to, None if it need not be moved."""
    if not choice.load_in_4bit:
        return {}, choice.device
    if find_spec("bitsandbytes") is None:
        raise ValueError(
            "--load-in-4bit needs bitsandbytes, which is not installed; pip install bitsandbytes"
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=choice.dtype or "float32")
    return {"quantization_config": config, "device_map": {"": choice.device or "cpu"}}, None


def _host_of(choice: ModelChoice) -> str:
    """The host of an endpoint. Raises ValueError if the address is none, or holds a password."""
    try:
        address = urlsplit(choice.model)
        is_address = address.hostname and address.port != 0 and not (address.username or address.password)
    except ValueError:  # a port above 65535, brackets that are not closed
        is_address = False
    if not is_address:
        raise ValueError(
            f"--model {choice.model[:80]!r} is not an address such as http://127.0.0.1:8000/v1; a key is read from "
            f"{choice.key_variable}"
        )
    return str(address.hostname)


def _open_endpoint(choice: ModelChoice) -> EndpointModel:
    host = _host_of(choice)
    if choice.served_model is None:
        raise ValueError(f"give --served-model, the name of the model at {host}")
    local = [
        name for name in ("device", "dtype", "load_in_4bit") if getattr(choice, name) not in (None, False)
    ]
    if local:
        raise ValueError(f"--{local[0].replace('_', '-')} is of a model that runs here, and {host} runs it")
    where = f"{choice.served_model} at {host}"
    folder = Path(choice.served_model)  # vLLM names models by their folder, which may be on this machine
    dialect, remarks = fitting_dialect(
        choice.dialect, where, _local_config(folder), {}, folder if folder.is_dir() else None
    )
    settings = EndpointSettings(
        choice.model,
        choice.served_model,
        choice.concurrency,
        choice.max_retries,
        choice.timeout,
        key_variable=choice.key_variable,
    )
    settings.check_key()
    return EndpointModel(settings, dialect, choice.replies, remarks)


def _local_config(folder: Path) -> dict[str, Any]:
    """What of a configuration tells the dialect; empty if there is none."""
    config = folder / "config.json"
    if not config.is_file():
        return {}
    model_type = read_field(config, "model_type", "copy the checkpoint again")
    return {"model_type": model_type, "_name_or_path": str(folder)}
