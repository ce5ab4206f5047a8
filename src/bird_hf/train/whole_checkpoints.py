"""A trainer whose checkpoints count only once they are whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers.trainer_utils import rotate_checkpoints

from .checkpoints import WRITE_ERRORS, checkpoint_folder, write_manifest
from .saving import on_main_process


class WholeCheckpoints:
    """Mixed into a `Trainer`: writes the manifest of a checkpoint last (see `checkpoints`)."""

    args: Any
    accelerator: Any
    control: Any
    state: Any

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As in `Trainer`, which takes one more step when it resumes from a checkpoint of the last step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in `Trainer`; older checkpoints are removed only once this one is whole.

        Raises ValueError if it cannot be written.
        """
        folder = checkpoint_folder(self.args.output_dir, self.state.global_step)
        failure = (
            f"{folder} cannot be written, and earlier checkpoints stay; make room, then run the same command"
        )
        on_main_process(self, lambda: shutil.rmtree(folder, ignore_errors=True), failure)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except WRITE_ERRORS as error:
            if self.accelerator.is_main_process:
                shutil.rmtree(folder, ignore_errors=True)  # what a full disk needs first
            raise ValueError(f"{failure} ({' '.join(str(error).split())[:200]})") from error
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        on_main_process(self, lambda: self._finish_checkpoint(folder), failure)

    def _finish_checkpoint(self, folder: Path) -> None:
        """What the main process does once all others have written their files."""
        write_manifest(folder)
        best = self.state.best_model_checkpoint
        rotate_checkpoints(self.args.output_dir, self.args.save_total_limit, best, use_mtime=True)
