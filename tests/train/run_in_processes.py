"""Started by torchrun, once for each process: runs recipes one after the other, as `bird train` does.

    torchrun --nproc_per_node 2 run_in_processes.py RECIPE.yaml[:stop] ...

`:stop` ends a run after its second step, as if it had been killed behind a checkpoint. The exit code is that of the
last recipe; the message of a refused one goes to stderr.
"""

from __future__ import annotations

import sys
import warnings

from transformers import TrainerCallback

from bird_hf.train import run


class StopAt2(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2


def main(recipes: list[str]) -> None:
    for text in recipes:
        path, _, stop = text.partition(":")
        if stop:
            run.build(run.read(["--config", path]), [StopAt2()]).train()
        else:
            run.main(["--config", path])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    try:
        main(sys.argv[1:])
    except ValueError as error:
        print(f"refused: {error}", file=sys.stderr)
        sys.exit(2)
