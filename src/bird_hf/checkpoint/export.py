"""Export a checkpoint as a folder for the hub: weights, processor, model card, and code to load it without bird_hf."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..atomic_writes import replacing_folder
from ..progress import progress_bar
from .adapters import find_base, merge_adapter
from .load import check_folder, copy_code
from .model_card import read_origin, write_card

# The files of a checkpoint. Others in the folder (optimizer states, logs) are not part of the model.
_PARTS = ("*.json", "*.jinja", "*.txt", "*.safetensors", "README.md", "LICENSE*", "NOTICE*")
_TRAINING_STATE = {"trainer_state.json"}


def export_checkpoint(
    model: Path, out: Path, origin: str | Path | None = None, results: str | None = None
) -> list[Path]:
    """Copy a checkpoint and the model's code to the folder `out`; returns the files written.

    The folder loads with the auto classes: with `trust_remote_code=True` if bird_hf is not installed, and without it
    if bird_hf is imported. It appears when it is complete; in an existing folder, files of the same names are replaced.

    origin: see `model_card.read_origin`. A model card is written if the checkpoint has none, or if `origin` is given;
    results: the tables of a report, for that card.

    Raises ValueError if `model` is not a checkpoint, if its weights are not safetensors, or if it has a model card and
    `results` are given without `origin`.
    """
    check_folder(model)
    described = read_origin(origin or "unrecorded")
    if not any(model.glob("*.safetensors")):
        raise ValueError(f"{model} has no safetensors, and .bin files are not exported; run `bird convert`")
    if out.resolve() == model.resolve():
        raise ValueError(f"{out} is the checkpoint itself; give another folder")
    has_card = (model / "README.md").is_file()
    if results and has_card and origin is None:
        raise ValueError(f"{model} has a model card; --origin writes a new one, with the report")
    files = sorted(
        {path for part in _PARTS for path in model.glob(part)} - {model / name for name in _TRAINING_STATE}
    )
    with replacing_folder(out) as making:
        for path in progress_bar(files, desc="copying", unit="file"):
            shutil.copyfile(path, making / path.name)
        copy_code(making)
        if origin or not has_card:
            write_card(making, described, results)
        names = sorted(path.name for path in making.iterdir())
    return [out / name for name in names]


def export_merged(
    adapter: Path, out: Path, base: str | None = None, origin: str | Path | None = None
) -> list[Path]:
    """Merge a LoRA adapter into its base model, and export the result to the folder `out`; returns the files written.

    The folder is like those of `export_checkpoint`, with a new model card. base: see `adapters.find_base`. Raises
    ValueError if `adapter` is not a LoRA adapter of a BiRD model, or if its base model cannot be found.
    """
    described = read_origin(origin or "unrecorded")
    base_folder = find_base(adapter, base)
    if out.resolve() in (adapter.resolve(), base_folder.resolve()):
        raise ValueError(f"{out} is the adapter or the base model itself; give another folder")
    with replacing_folder(out) as making:
        merge_adapter(adapter, base_folder, making)
        copy_code(making)
        write_card(making, described)
        names = sorted(path.name for path in making.iterdir())
    return [out / name for name in names]


def push(folder: Path, repo: str, private: bool = True) -> str:
    """Upload an exported folder to a hub repository, which is created if it does not exist; returns its address."""
    from huggingface_hub import HfApi

    api = HfApi()
    address = api.create_repo(repo, private=private, exist_ok=True)
    api.upload_folder(repo_id=repo, folder_path=folder, commit_message="bird export")
    return str(address)
