"""Started by torchrun, once for each process: runs recipes one after the other, as `bird train` does.

    torchrun --nproc_per_node 2 run_in_processes.py RECIPE.yaml[:stop] ...

`:stop` ends a run after its second step, as if it had been killed after a checkpoint. A recipe that is refused ends
all, with its message on stderr. With ACCELERATE_USE_FSDP=true, CPUs are sharded over as if they were accelerators.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import accelerate.accelerator
from accelerate.state import AcceleratorState, DistributedType, PartialState
from transformers import TrainerCallback

from bird_hf.train import run


class StopAt2(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2


class StateOfFsdpOnCpus(AcceleratorState):
    """accelerate uses FSDP on accelerators only; torch's FSDP2 takes CPUs too."""

    def __init__(self, *args: Any, **kwargs: Any):
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        super().__init__(*args, **kwargs)


def main(recipes: list[str]) -> None:
    for text in recipes:
        path, _, stop = text.partition(":")
        if stop:
            run.build(run.read(["--config", path]), [StopAt2()]).train()
        else:
            run.main(["--config", path])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        accelerate.accelerator.AcceleratorState = StateOfFsdpOnCpus
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"refused: {error}")
