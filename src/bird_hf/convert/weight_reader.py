"""Read the tensors of checkpoint files (safetensors, or pickles of plain tensors) one at a time."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

# The dtypes that can be converted, by safetensors' names. Quantized weights cannot: their scales are separate tensors.
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Where a folder's weights are: an index that lists files, or else a pattern of file names. The first match is used.
HUB_FILES = (
    ("model.safetensors.index.json", "*.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
)
OPEN_CLIP_FILES = (
    ("open_clip_model.safetensors.index.json", "open_clip*.safetensors"),
    ("open_clip_pytorch_model.bin.index.json", "open_clip*.bin"),
    *HUB_FILES,
)
_MAX_NAMES = 5  # tensor names that an error message lists


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint, which is read when `read` is called. dtype: safetensors' name of it."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], torch.Tensor]


Weights = dict[str, StoredTensor]


def find_files(folder: Path, kinds: Iterable[tuple[str, str]] = HUB_FILES) -> list[Path]:
    """Returns the files of a folder's weights. Raises ValueError if there are none, or if some are missing."""
    for index, pattern in kinds:
        if (folder / index).is_file():
            return _files_of_index(folder / index)
        if files := sorted(folder.glob(pattern)):
            return files
    raise ValueError(
        f"{folder} is not a checkpoint folder: it has neither *.safetensors nor pytorch_model*.bin"
    )


def _files_of_index(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not an index of weights ({error!r}); download it again") from error
    if outside:
        raise ValueError(f"{index} names a file outside its folder: {outside[0]}; download it again")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise ValueError(
            f"{index.parent} lacks {len(missing)} files that {index.name} lists: {some(missing)}; "
            "is the download complete?"
        )
    return [index.parent / name for name in names]


def open_weights(files: Iterable[Path]) -> Weights:
    """Returns the tensors of all files by name, without reading them. Raises ValueError if a name occurs twice."""
    weights: Weights = {}
    pickles = _OpenPickle()
    for path in files:
        opened = _open_safetensors(path) if path.suffix == ".safetensors" else pickles.list(path)
        if twice := weights.keys() & opened.keys():
            raise ValueError(
                f"{path} contains tensors that are also in another file: {some(twice)}; keep one copy"
            )
        weights |= opened
    pickles.close()
    return weights


def some(names: Collection[str]) -> str:
    """Returns the first few names, and how many more there are, for an error message."""
    shown = sorted(names)[:_MAX_NAMES]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _open_safetensors(path: Path) -> Weights:
    weights: Weights = {}
    try:
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118
                stored = handle.get_slice(name)
                read = partial(_read_safetensor, path, name)
                weights[name] = StoredTensor(tuple(stored.get_shape()), stored.get_dtype(), read)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); download it again") from error
    return weights


def _read_safetensor(path: Path, name: str) -> torch.Tensor:
    """Read one tensor. The file is opened for it alone, so that no pages of other tensors stay mapped."""
    try:
        with safe_open(path, framework="pt") as handle:
            return handle.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} can no longer be read ({error}); was it changed during the conversion?"
        ) from error


class _OpenPickle:
    """The .bin file that is open. Files are memory-mapped as a whole, so one is closed before the next is opened."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._tensors: dict[str, torch.Tensor] = {}

    def list(self, path: Path) -> Weights:
        """Returns the tensors of a file, to be read later."""
        self._open(path)
        return {
            name: StoredTensor(
                tuple(tensor.shape),
                DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)),
                partial(self._read, path, name),
            )
            for name, tensor in self._tensors.items()
        }

    def close(self) -> None:
        self._path, self._tensors = None, {}

    def _open(self, path: Path) -> None:
        if path != self._path:
            self.close()
            self._tensors = _load_pickle(path)
            self._path = path

    def _read(self, path: Path, name: str) -> torch.Tensor:
        self._open(path)
        if name not in self._tensors:
            raise ValueError(f"{path} no longer contains {name}; was it changed during the conversion?")
        return self._tensors[name].detach()


def _load_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Load a pickle of plain tensors with `weights_only`, so that it cannot run code."""
    try:
        is_zip = zipfile.is_zipfile(path)
        with path.open("rb") as file:
            starts_as_zip = file.read(2) == b"PK"
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if starts_as_zip and not is_zip:  # the table of contents is at the end of a zip file
        raise ValueError(f"{path} is truncated; download it again")
    try:
        # Memory-mapped, so that only the tensors in use are in memory. Files from before torch 1.6 are read as a whole.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # damaged pickles raise nearly any exception
        raise ValueError(
            f"{path} does not load as plain tensors: it is damaged or contains more; download it as safetensors"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        for name, tensor in tensors.items()
    ):
        raise ValueError(f"{path} does not contain a dictionary of tensors")
    return tensors
