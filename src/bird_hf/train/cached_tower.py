"""The frozen part of a model below its first trained one, computed once for each image (`cache_image_features`).

With the resampler trained, as in the paper, that part is the vision tower: its output, `patch_states`, is kept. If
resampler and projector are frozen too, as with LoRA, it goes up to the language model: `image_features`, which are
fewer values, are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from ..hub.modeling_bird import BirdModel
from .image_features import FeatureStore, image_keys, weights_digest

PATCH_STATES, IMAGE_FEATURES = "patch_states", "image_features"


@dataclass
class CachedTower:
    """Takes the pixels out of a batch and puts in what the frozen part makes of them, from the store or computed.

    kept: `PATCH_STATES` or `IMAGE_FEATURES`, which is what the model's `forward` calls it. autocast: the context that
    the trainer computes in.
    """

    model: BirdModel
    folder: Path
    max_bytes: int
    kept: str
    autocast: Callable[[], AbstractContextManager[Any]]
    store: FeatureStore | None = (
        None  # opened at the first batch, when the weights are where and as they will be
    )

    @classmethod
    def of(cls, trainer: Any, *datasets: Any) -> CachedTower:
        """For a trainer and the datasets that it reads.

        Raises ValueError if the vision tower is trained or sharded, or if the images need more than
        `cache_image_features_gb`, or than the disk has.
        """
        args, model = trainer.args, bird_model(trainer.model)
        is_sharded = trainer.is_fsdp_enabled or (
            trainer.is_deepspeed_enabled and is_deepspeed_zero3_enabled()
        )
        if is_sharded:
            raise ValueError(
                "cache_image_features needs the whole vision tower in each process, and ZeRO-3 and FSDP divide it; "
                "use ZeRO-2 or DDP, or leave cache_image_features out"
            )
        tower = cls(
            model,
            Path(args.cache_image_features),
            int(args.cache_image_features_gb * 1e9),
            what_is_kept(model),
            trainer.accelerator.autocast,
        )
        is_half = args.bf16 or args.fp16
        # Autocast leaves the tower's sum of states as its weights are; DeepSpeed casts the weights.
        is_cast = is_half and (trainer.is_deepspeed_enabled or tower.kept == IMAGE_FEATURES)
        size = 2 if is_cast else model.vision_tower.position_embedding.dtype.itemsize
        tower.check_room(sum(map(_num_images, datasets)), size)
        return tower

    def check_room(self, images: int, value_bytes: int) -> None:
        """Raises ValueError if features of that many images have no room in the store or on its disk."""
        shape = (self.model.vision_tower.config.patch_grid**2, self.model.vision_tower.config.hidden_size)
        if self.kept == IMAGE_FEATURES:
            shape = (self.model.config.num_queries, self.model.config.text_config.hidden_size)
        needed = images * shape[0] * shape[1] * value_bytes
        what = (
            f"cache_image_features needs {needed / 1e9:.2f} GB: {images:,} images of {shape[0]} x {shape[1]} values "
            f"of {value_bytes} bytes"
        )
        if needed > self.max_bytes:
            limit = f"cache_image_features_gb is {self.max_bytes / 1e9:g}"
            raise ValueError(f"{what}; {limit}: raise it, or leave cache_image_features out")
        there = sum(path.stat().st_size for path in self.folder.glob("*/*.records"))
        free = shutil.disk_usage(
            next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        )
        if needed > free.free + there:
            raise ValueError(
                f"{what}; its disk has {free.free / 1e9:.2f} GB left: name a folder on another disk"
            )

    def replace_pixels(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The same batch with `kept` in place of pixel_values and image_keys."""
        inputs = dict(inputs)
        keys, pixels = inputs.pop("image_keys", None), inputs.pop("pixel_values", None)
        if pixels is None:
            return inputs
        names = [bytes(key) for key in (image_keys(pixels) if keys is None else keys).tolist()]
        if self.store is None:
            self.store = FeatureStore(self.folder, self._settings(pixels.device), self.max_bytes)
        found = self.store.read(names)
        missing = {name: place for place, name in enumerate(names) if name not in found}
        if missing:
            computed = dict(zip(missing, self._compute(pixels[list(missing.values())]), strict=True))
            self.store.add(computed)
            found |= computed
        inputs[self.kept] = torch.stack([found[name].to(pixels.device) for name in names])
        return inputs

    @torch.no_grad()
    def _compute(self, pixels: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            if self.kept == PATCH_STATES:
                return self.model.vision_tower(pixels).last_hidden_state
            return torch.stack(self.model.get_image_features(pixels).pooler_output)

    def _settings(self, device: torch.device) -> dict[str, Any]:
        """What the values depend on, beside the pixels, which the image processor's settings have gone into."""
        config = self.model.vision_tower.config
        with self.autocast():
            is_autocast = torch.is_autocast_enabled(device.type)
            autocast = str(torch.get_autocast_dtype(device.type)) if is_autocast else None
        return {
            "kept": self.kept,
            "weights": [weights_digest(part) for part in _frozen_parts(self.model, self.kept)],
            "config": {
                name: getattr(config, name)
                for name in (
                    "image_size",
                    "patch_size",
                    "num_attention_heads",
                    "hidden_act",
                    "layer_norm_eps",
                )
            },
            "attention": config._attn_implementation,
            "autocast": autocast,
            "device": device.type,
        }


def bird_model(model: nn.Module) -> BirdModel:
    """The `BirdModel` in a model, which PEFT or DDP may have wrapped."""
    return next(module for module in model.modules() if isinstance(module, BirdModel))


def what_is_kept(model: BirdModel) -> str:
    """What the frozen part makes of an image. Raises ValueError if the vision tower is trained."""
    if _is_trained(model.vision_tower):
        raise ValueError(
            "cache_image_features needs a frozen vision tower; set freeze_vision: true, and no LoRA in the tower, or "
            "leave cache_image_features out"
        )
    is_trained = _is_trained(model.resampler) or _is_trained(model.projector)
    return PATCH_STATES if is_trained else IMAGE_FEATURES


def _frozen_parts(model: BirdModel, kept: str) -> list[nn.Module]:
    above = [model.resampler, model.projector] if kept == IMAGE_FEATURES else []
    return [model.vision_tower, *above]


def _is_trained(module: nn.Module) -> bool:
    return any(value.requires_grad for value in module.parameters())


def _num_images(dataset: Any) -> int:
    """Images in a dataset: by `image_id` if it has one, else its rows; 0 if it is read as a stream."""
    if dataset is None or not hasattr(dataset, "__len__"):
        return 0
    names = getattr(dataset, "column_names", None) or ()
    return len(dataset.unique("image_id")) if "image_id" in names else len(dataset)
