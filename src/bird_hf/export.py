"""A checkpoint as a folder for the hub: weights, processor, card, and the code that opens it without bird_hf."""

from __future__ import annotations

import shutil
from pathlib import Path

from tqdm import tqdm

from .atomic_writes import move_folder
from .checkpoint import check_folder, copy_code
from .model_card import read_origin, write_card

# What a checkpoint consists of. Anything else in a folder (optimizer states, logs) is not part of the model.
_PARTS = ("*.json", "*.jinja", "*.txt", "*.safetensors", "README.md", "LICENSE*", "NOTICE*")
_NOT_OURS = {"trainer_state.json"}


def export_checkpoint(
    model: Path, out: Path, origin: str | Path | None = None, results: str | None = None
) -> list[Path]:
    """Copy a checkpoint to the folder `out`, with its code; returns the files there.

    A checkpoint without a card gets one; with `origin` (see `model_card.read_origin`) it is written anew in any case,
    with `results`, the tables of a report, if there are any.

    The folder opens with the auto classes and `trust_remote_code=True` where bird_hf is not installed, and without
    either where it is imported. It appears when it is whole; in an older one, files of the same names are replaced.
    Raises ValueError where `model` is no checkpoint, its weights are not safetensors, or it has a card of its own that
    results cannot be put into.
    """
    check_folder(model)
    if not any(model.glob("*.safetensors")):
        raise ValueError(
            f"{model} has no safetensors, and a .bin is not passed on; `bird convert` makes some"
        )
    if out.resolve() == model.resolve():
        raise ValueError(f"{out} is the checkpoint itself; give another folder")
    has_card = (model / "README.md").is_file()
    if results and has_card and origin is None:
        raise ValueError(f"{model} has a card of its own; with --origin it is written anew, with the report")
    described = read_origin(origin or "unrecorded")
    files = sorted(
        {path for part in _PARTS for path in model.glob(part)} - {model / name for name in _NOT_OURS}
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    making = out.with_name(f".{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    for path in tqdm(files, desc="copying", unit="file"):
        shutil.copyfile(path, making / path.name)
    copy_code(making)
    if origin or not has_card:
        write_card(making, described, results)
    names = sorted(path.name for path in making.iterdir())
    move_folder(making, out)
    return [out / name for name in names]


def push(folder: Path, repo: str, private: bool = True) -> str:
    """Upload an exported folder to the hub, into a repository that is made where it is missing; returns its address."""
    from huggingface_hub import HfApi

    api = HfApi()
    address = api.create_repo(repo, private=private, exist_ok=True)
    api.upload_folder(repo_id=repo, folder_path=folder, commit_message="bird export")
    return str(address)
