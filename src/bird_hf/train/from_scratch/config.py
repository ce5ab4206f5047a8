"""What a recipe for a model from random weights may set: sizes, stages, and losses beside that of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ..recipe import BirdSFTConfig, nearest
from .new_model import NewModel

VISION, ANSWERS = "vision", "answers"


@dataclass(frozen=True)
class Stage:
    """A part of a run with a learning-rate schedule of its own.

    train: `vision` trains the vision tower, resampler and projector with the detection loss alone, without running
        the language model; `answers` trains everything with all losses.
    steps: number of steps; the last stage takes those that remain and sets none.
    """

    train: str
    steps: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stage:
        known = {item.name for item in fields(cls)}
        for key in values:
            if key not in known:
                raise ValueError(f"stages: {key} is not a field of a stage; {nearest(key, known)}")
        return cls(**values)

    def __post_init__(self) -> None:
        if self.train not in (VISION, ANSWERS):
            raise ValueError(f"stages: train is {VISION} or {ANSWERS}, not {self.train}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"stages: steps is {self.steps}, but must be at least 1")


@dataclass
class FromScratchConfig(BirdSFTConfig):
    """`BirdSFTConfig` for a model that starts from random weights, and for fine-tuning such a model.

    new_model: sizes of the model, the fields of `NewModel`; unset to fine-tune `model_name_or_path`.
    stages: what is trained, in order, such as `[{train: vision, steps: 3200}, {train: answers}]`; see `Stage`.
    render_images: if the folder `dataset_name` does not exist, render this many augmented images into it, from the
        embedded volumes and phantoms.
    muon_learning_rate: optimize the weight matrices with Muon at this rate, the other parameters with AdamW.
    text_weight, punctuation_weight: see `LossWeights`.
    coordinate_label_sigma: standard deviation, in thousandths, of the Gaussian label around a coordinate; 0 is the
        usual one-hot label. Needs coordinate tokens.
    detection_loss_weight: weight of the loss of `DetectionHead`; 0 trains on the answers alone, as the paper does.
    attention_loss_weight: weight of `AttentionSupervisionLoss`; needs the detection loss and `cpu_eager` attention.
    """

    new_model: dict[str, Any] | None = field(default=None, metadata={"help": "sizes of a new model"})
    stages: list[dict[str, Any]] = field(
        default_factory=lambda: [{"train": ANSWERS}], metadata={"help": "what is trained, in order"}
    )
    render_images: int = field(default=0, metadata={"help": "render this many images if data is missing"})
    muon_learning_rate: float | None = field(default=None, metadata={"help": "learning rate of Muon"})
    text_weight: float = field(default=1.0, metadata={"help": "loss weight of text tokens"})
    punctuation_weight: float = field(default=1.0, metadata={"help": "loss weight of punctuation in boxes"})
    coordinate_label_sigma: float = field(default=0.0, metadata={"help": "width of coordinate labels"})
    detection_loss_weight: float = field(default=0.0, metadata={"help": "weight of the detection loss"})
    attention_loss_weight: float = field(default=0.0, metadata={"help": "weight of attention supervision"})

    _VALID_DICT_FIELDS = [*BirdSFTConfig._VALID_DICT_FIELDS, "new_model"]

    OLD_FIELDS: ClassVar[dict[str, str | None]] = {
        **BirdSFTConfig.OLD_FIELDS,
        "number_spread": "coordinate_label_sigma",
        "slot_loss_weight": "detection_loss_weight",
        "look_loss_weight": "attention_loss_weight",
        "slot_warmup_steps": "stages: [{train: vision, steps: N}, {train: answers}]",
        "text_model": None,
        "muon_parts": None,
        "look_layers": None,
        "question_warmup_steps": None,
        "keep_looks": None,
        "answer_rows": None,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cache_image_features is not None:
            raise ValueError(
                "cache_image_features needs a frozen vision tower; this recipe trains it: leave it out"
            )
        self._check_stages()
        if self.new_model is not None:
            NewModel.from_dict(self.new_model)
        for name in ("detection_loss_weight", "attention_loss_weight", "coordinate_label_sigma"):
            if self.world_size > 1 and getattr(self, name):
                raise ValueError(f"{name} is for one process; unset it to train on several")
        if self.pack_rows and self.detection_loss_weight:
            raise ValueError("packing cannot be combined with detection_loss_weight; unset one of them")
        if self.attention_loss_weight and not self.detection_loss_weight:
            raise ValueError("attention_loss_weight needs detection_loss_weight; set both or neither")

    @property
    def training_stages(self) -> list[Stage]:
        return [Stage.from_dict(values) for values in self.stages]

    def _check_stages(self) -> None:
        stages = self.training_stages
        if [stage.steps is None for stage in stages] != [*[False] * (len(stages) - 1), True]:
            raise ValueError(
                "stages: every stage but the last sets `steps`; the last takes those that remain"
            )
        if not self.detection_loss_weight and any(stage.train == VISION for stage in stages):
            raise ValueError("stages: `train: vision` needs detection_loss_weight; set it")


def _names(config: type[BirdSFTConfig]) -> set[str]:
    return {item.name for item in fields(config)} | config.OLD_FIELDS.keys()


OWN_FIELDS = _names(FromScratchConfig) - _names(
    BirdSFTConfig
)  # a recipe that sets one of them is for this config
