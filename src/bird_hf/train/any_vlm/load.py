"""A model with its own processor, what the processor shows of an image, and the dialect that both use."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)
from trl import ModelConfig, get_quantization_config

from ...asking.fitting import fitting_dialect
from ...asking.processor_errors import why_not_loaded
from ...dialects import Dialect, View
from .encode import check_processor

_VISION = ("vision", "visual", "multi_modal_projector", "connector")  # in the names of parameters

log = logging.getLogger(__name__)


def load_processor(
    name: str, revision: str | None = None, chat_template: str | None = None
) -> ProcessorMixin:
    """The processor of a checkpoint. Raises ValueError if there is none, or it needs a package that is not there."""
    try:
        processor = AutoProcessor.from_pretrained(name, revision=revision)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: the processor {why_not_loaded(error)}") from error
    except OSError as error:
        raise ValueError(_not_found(name)) from error
    if chat_template is not None:
        processor.chat_template = _read_template(chat_template)
    check_processor(processor, name)
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def load_model(config: ModelConfig, freeze_vision: bool) -> PreTrainedModel:
    """The model that a recipe names. Raises ValueError if it names none, or one that cannot be found or trained so."""
    name = config.model_name_or_path
    if not name:
        raise ValueError("the recipe sets no model_name_or_path; set it to a folder or a hub repository")
    try:
        if AutoConfig.from_pretrained(name, revision=config.model_revision).is_encoder_decoder:
            raise ValueError(
                f"{name} is an encoder with a decoder, which method any_vlm does not train; export the rows with `bird "
                "data export` for its own trainer"
            )
        model = AutoModelForImageTextToText.from_pretrained(
            name,
            revision=config.model_revision,
            dtype=config.dtype,
            attn_implementation=config.attn_implementation,
            quantization_config=get_quantization_config(config),
        )
    except OSError as error:
        raise ValueError(_not_found(name)) from error
    if freeze_vision and not config.use_peft:
        for parameter_name, parameter in model.named_parameters():
            if any(part in parameter_name for part in _VISION):
                parameter.requires_grad_(False)
    return model


def choose_dialect(
    wanted: str | None, name: str, model: PreTrainedModel, processor: ProcessorMixin
) -> Dialect:
    """The dialect that a recipe names, or the one that fits; see `fitting_dialect`, whose remarks are logged."""
    config = model.config.to_dict() | {"_name_or_path": name}
    dialect, remarks = fitting_dialect(wanted, name, config, processor.image_processor.to_dict(), Path(name))
    for remark in remarks:
        log.warning("%s", remark)
    return dialect


def shown_part(image_processor: Any, image_wh: tuple[int, int]) -> View | None:
    """What an image processor that crops shows of a picture; None if it shows the whole."""
    crop, size = getattr(image_processor, "crop_size", None), getattr(image_processor, "size", None)
    if not getattr(image_processor, "do_center_crop", False) or not crop or not size:
        return None
    width, height = image_wh
    if short := size.get("shortest_edge"):
        scale_x = scale_y = min(image_wh) / short  # pixels of the picture for one of the resized picture
    else:
        scale_x, scale_y = width / size["width"], height / size["height"]
    seen_wh = min(width, crop["width"] * scale_x), min(height, crop["height"] * scale_y)
    left, top = (width - seen_wh[0]) / 2, (height - seen_wh[1]) / 2
    view = View(image_wh, (left, top, left + seen_wh[0], top + seen_wh[1]))
    return None if view.is_whole else view


def _read_template(path: str) -> str:
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"chat_template_path {path} is not a file with a Jinja template")
    return file.read_text(encoding="utf-8")


def _not_found(name: str) -> str:
    return (
        f"model_name_or_path {name} is neither a checkpoint folder nor a hub repository that can be reached"
    )
