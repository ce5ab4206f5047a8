"""What a recipe (YAML) may set: any field of `BirdSFTConfig`, TRL's `SFTConfig` and what a BiRD needs besides."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from .collate import LossWeights


@dataclass
class BirdSFTConfig(SFTConfig):
    """What a recipe may set, besides all of TRL's `SFTConfig`.

    model: folder or hub name of the checkpoint to start from; empty to start from `new_model`.
    new_model: sizes of a model to train from scratch: `vision_config`, and `text_config` and `vocab_size` unless
        `text_model` brings them.
    text_model: folder or hub name of a language model that a new model is built on, or a GGUF file.
    data, data_config: what `load_dataset` takes; the split is `train`.
    render_images: where `data` does not exist yet, render it there from the embedded volumes and phantoms, with
        this many augmented images.
    attn_implementation: how attention is computed; transformers chooses where it is not given.
    freeze_vision: train the resampler and the language model only (BiRD 4.2).
    global_batch_size: rows a step over all processes, whatever their number: `gradient_accumulation_steps` follows
        from it.
    muon_learning_rate: train the matrices of the blocks with Muon at this rate, the rest as usual.
    muon_parts: only the matrices whose names hold one of these, such as vision_tower; all where none is given.
    digit_weights, punctuation_weight, text_weight: see `LossWeights`.
    number_spread: where the tokenizer has whole numbers, the width of the bell that is wanted around one, see
        `numbers.py`; 0 wants the number alone.
    max_turns: of the independent turns of an image, how many a step takes; drawn anew each time.
    slot_loss_weight: what the second loss of `slots.py` counts; 0 trains on the answers alone, as the paper does.
    look_loss_weight: what the loss on where attention goes counts (`LookLoss` in `slots.py`); needs dense attention.
    look_layers: the layers of the language model whose heads it tells, from 0 on; unset, see there.
    slot_warmup_steps: so many first steps are on the loss on slots alone: they cost no language model, and it then
        begins with features that say something.
    question_warmup_steps: so many steps after those are on slots and questions alone (`questions.py`), in the layers
        up to the last of `look_layers`. With them where attention goes is told of questions, not of answers.
    keep_looks: after these steps what looks things up stays as it is, from the pixels up to the last of `look_layers`:
        the answers train what is above, and the embeddings.
    answer_rows: with `keep_looks` so many rows of a batch are answered: what more of them were to slots and questions,
        more turns of an image are to answers. All where it is not given.
    """

    model: str = field(default="", metadata={"help": "checkpoint to start from"})
    new_model: dict[str, Any] | None = field(default=None, metadata={"help": "sizes of a new model"})
    text_model: str = field(default="", metadata={"help": "language model that a new model is built on"})
    data: str = field(default="med-grit", metadata={"help": "dataset: a folder or a hub name"})
    data_config: str = field(default="chat", metadata={"help": "vg, roc, rc, mia, chat or chat_20k"})
    render_images: int = field(default=0, metadata={"help": "render this many images where data is missing"})
    attn_implementation: str | None = field(default=None, metadata={"help": "sdpa, eager, dense, ..."})
    freeze_vision: bool = field(default=True, metadata={"help": "keep the vision tower as it is"})
    global_batch_size: int | None = field(default=None, metadata={"help": "rows a step, over all processes"})
    muon_learning_rate: float | None = field(default=None, metadata={"help": "Muon for matrices"})
    muon_parts: list[str] = field(default_factory=list, metadata={"help": "parts that Muon trains"})
    digit_weights: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    punctuation_weight: float = 1.0
    text_weight: float = 1.0
    number_spread: float = field(default=0.0, metadata={"help": "width of the bell around a number"})
    max_turns: int | None = field(default=None, metadata={"help": "turns of an image that a step takes"})
    slot_loss_weight: float = field(default=0.0, metadata={"help": "weight of the loss on image slots"})
    look_loss_weight: float = field(
        default=0.0, metadata={"help": "weight of the loss on where attention goes"}
    )
    look_layers: list[int] = field(default_factory=list, metadata={"help": "layers that loss is on"})
    slot_warmup_steps: int = field(
        default=0, metadata={"help": "first steps on the loss on image slots alone"}
    )
    question_warmup_steps: int = field(default=0, metadata={"help": "then steps on questions alone"})
    answer_rows: int | None = field(default=None, metadata={"help": "rows of a batch that are answered"})
    keep_looks: bool = field(default=False, metadata={"help": "then train the layers above alone"})

    # Images and their turns are prepared by the collator, so TRL must keep the rows as they are.
    remove_unused_columns: bool | None = False
    max_length: int | None = 2048

    _VALID_DICT_FIELDS = [*SFTConfig._VALID_DICT_FIELDS, "new_model"]

    def __post_init__(self) -> None:
        if self.global_batch_size is None:
            super().__post_init__()
            return
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun, accelerate and deepspeed
        steps = accumulation_steps(self.global_batch_size, self.per_device_train_batch_size, processes)
        if self.gradient_accumulation_steps not in (1, steps):
            raise ValueError(
                f"gradient_accumulation_steps {self.gradient_accumulation_steps} and global_batch_size "
                f"{self.global_batch_size} contradict each other; set one of them"
            )
        self.gradient_accumulation_steps: int = steps  # before DeepSpeed's settings are filled in from it
        super().__post_init__()
        if self.train_batch_size * self.world_size * steps != self.global_batch_size:
            raise ValueError(
                f"one process sees {self.n_gpu} GPUs, and global_batch_size counts processes; start one for each "
                "with torchrun --nproc_per_node, or show it one GPU with CUDA_VISIBLE_DEVICES"
            )

    @property
    def loss_weights(self) -> LossWeights:
        hundreds, tens, ones = self.digit_weights
        return LossWeights((hundreds, tens, ones), self.punctuation_weight, self.text_weight)


def accumulation_steps(global_batch: int, per_device: int, processes: int) -> int:
    """How many batches of `per_device` rows each of `processes` adds up before a step of `global_batch` rows.

    Raises ValueError where no whole number does.
    """
    at_once = per_device * processes
    if global_batch < 1 or global_batch % at_once:
        raise ValueError(
            f"global_batch_size {global_batch} is no multiple of the {at_once} rows that {processes} process(es) of "
            f"{per_device} take at once; change per_device_train_batch_size or the number of processes"
        )
    return global_batch // at_once
