"""Vision-language models of transformers, each with its own processor and chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..answering import Decoding
from ..checkpoint.load import ADAPTER_CONFIG, find_checkpoint, read_field, silent_loading
from ..dialects import Dialect
from ..inference import check_device, check_dtype, in_batches, sampling_options
from ..questions import Query
from .dialect_model import DialectModel
from .fitting import fitting_dialect
from .processor_errors import why_not_loaded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

# What stands before the question for models without a chat template; other models need one.
_PLAIN_PROMPTS = {"paligemma": "<image>", "florence2": "", "kosmos-2": ""}


class VisionLanguageModel(DialectModel):
    """A model of `AutoModelForImageTextToText` with its processor, in evaluation mode."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        dialect: Dialect,
        name: str,
        remarks: Sequence[str] = (),
    ) -> None:
        super().__init__(dialect, name, remarks)
        self.model = model
        self.processor: Any = processor

    @torch.inference_mode()
    def sample(
        self, queries: Sequence[Query], decoding: Decoding, batch_size: int = 32, progress: bool = False
    ) -> list[tuple[str, ...]]:
        """Batches are padded on the left. Raises ValueError if a question cannot be asked."""
        return in_batches(self._generate_batch, queries, decoding, batch_size, progress)

    def _generate_batch(self, queries: Sequence[Query], decoding: Decoding) -> list[str]:
        inputs = self._inputs(queries)
        bound = decoding.max_new_tokens or self.new_tokens
        model: Any = self.model
        output = model.generate(**inputs, **sampling_options(decoding), max_new_tokens=bound)
        if not model.config.is_encoder_decoder:
            output = output[:, inputs["input_ids"].shape[1] :]
        return [self._decoded(ids) for ids in output.tolist()]

    def _inputs(self, queries: Sequence[Query]) -> Mapping[str, Any]:
        prompts = [self.prompt(query) for query in queries]
        pictures = [self.picture(query) for query in queries]
        padding = {"padding": True, "padding_side": "left"}
        if getattr(self.processor, "chat_template", None):
            inputs = self.processor.apply_chat_template(
                [_conversation(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)],
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=True,
                processor_kwargs=padding,
            )
        else:
            before = _PLAIN_PROMPTS[self.model.config.model_type]
            inputs = self.processor(
                text=[before + prompt for prompt in prompts],
                images=[[picture] for picture in pictures],
                return_tensors="pt",
                **padding,
            )
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)
        inputs.pop("labels", None)
        return inputs

    def _decoded(self, ids: Sequence[int]) -> str:
        """Special tokens are kept, because boxes are some in several dialects; but not those that end or pad."""
        settings = self.model.generation_config
        names = ("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id")
        found = [getattr(source, name, None) for source in (settings, self._tokenizer) for name in names]
        control = {token for each in found for token in (each if isinstance(each, list) else [each])}
        kept = [token for token in ids if token not in control]
        return self._tokenizer.decode(
            kept, skip_special_tokens=False, clean_up_tokenization_spaces=False
        ).strip()

    @property
    def _tokenizer(self) -> Any:
        return self.processor.tokenizer


def load_vision_language(
    name: str,
    dialect: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **kwargs: Any,
) -> VisionLanguageModel:
    """Load a folder, or a hub repository OWNER/NAME, of a model of transformers, or of a LoRA adapter of one.

    dialect: see `fitting_dialect`. `kwargs` go to the model's `from_pretrained`. Code of checkpoints is never run, and
    weights are read from safetensors only. Raises ValueError, in one line, if it cannot be loaded or asked.
    """
    folder = find_checkpoint(name)
    base = _base_of(folder)
    config, processor = _load_processor(folder, base)
    chosen, remarks = fitting_dialect(
        dialect, name, config | {"_name_or_path": f"{name} {base}"}, _preprocessor(processor), folder
    )
    model_type = config.get("model_type")
    if not getattr(processor, "chat_template", None) and model_type not in _PLAIN_PROMPTS:
        raise ValueError(
            f"{name} has no chat template, so how it is asked is not known; put its chat_template.jinja into the folder"
        )
    place = None if device is None else check_device(device)
    kwargs["dtype"] = torch.float32 if dtype is None else check_dtype(dtype)
    model = _load_model(folder, base, kwargs)
    model = model if place is None else model.to(place)
    return VisionLanguageModel(model.eval(), processor, chosen, name, remarks)


def _base_of(folder: Path) -> Path:
    """The folder of the base model of an adapter; of a whole checkpoint, the folder itself."""
    if (folder / "config.json").is_file() or not (folder / ADAPTER_CONFIG).is_file():
        return folder
    base = read_field(folder / ADAPTER_CONFIG, "base_model_name_or_path", "copy the adapter again")
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{folder}: {ADAPTER_CONFIG} names no base model; merge the adapter into its base first"
        )
    return find_checkpoint(base)


def _load_processor(folder: Path, base: Path) -> tuple[dict[str, Any], ProcessorMixin]:
    """The configuration of the base, and the processor, which an adapter's folder may hold."""
    from transformers import AutoConfig, AutoProcessor

    with silent_loading():
        try:
            config = AutoConfig.from_pretrained(
                base, local_files_only=True, trust_remote_code=False
            ).to_dict()
        except Exception as error:  # damaged files make loaders raise nearly any exception
            remedy = "; bird convert makes one of it" if "llava_mistral" in str(error) else ""
            raise ValueError(
                f"{base}: config.json is not that of a model of transformers ({_reason(error)}){remedy}"
            ) from None
        place = folder if (folder / "processor_config.json").is_file() else base
        try:
            processor = AutoProcessor.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise ValueError(f"{place}: the processor {why_not_loaded(error)}") from None
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ValueError(
            f"{place} has no processor of images and text (preprocessor_config.json); copy it again"
        )
    return config, processor


def _load_model(folder: Path, base: Path, kwargs: dict[str, Any]) -> Any:
    from transformers import AutoModelForImageTextToText

    with silent_loading():
        try:
            model = AutoModelForImageTextToText.from_pretrained(
                base, local_files_only=True, trust_remote_code=False, use_safetensors=True, **kwargs
            )
            if base != folder:
                model.load_adapter(str(folder))
        except Exception as error:
            raise ValueError(f"{folder}: the model cannot be loaded ({_reason(error)})") from None
    return model


def _preprocessor(processor: Any) -> dict[str, Any]:
    return dict(processor.image_processor.to_dict())


def _conversation(prompt: str, picture: Any) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]
    return [{"role": "user", "content": content}]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
