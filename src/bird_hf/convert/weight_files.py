"""Tensors in checkpoint files: found through an index or by name, listed without being read, read one at a time."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

# safetensors' name of each dtype that can be converted. Quantized numbers are not: they have scales elsewhere.
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Where a folder's weights are: an index that lists files, or the files that match. The first that is there counts.
HUB_FILES = (
    ("model.safetensors.index.json", "*.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
)
OPEN_CLIP_FILES = (
    ("open_clip_model.safetensors.index.json", "open_clip*.safetensors"),
    ("open_clip_pytorch_model.bin.index.json", "open_clip*.bin"),
    *HUB_FILES,
)
_MAX_NAMES = 5  # that an error lists before it says how many more there are


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint, read when `read` is called. `dtype` is named as safetensors names it."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], torch.Tensor]


Weights = dict[str, StoredTensor]


def find_files(folder: Path, kinds: Iterable[tuple[str, str]] = HUB_FILES) -> list[Path]:
    """The files that hold a folder's weights. Raises ValueError where there are none, or not all of them."""
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
        raise ValueError(f"{index} is no index of weights ({error!r}); fetch it again") from error
    if outside:
        raise ValueError(f"{index} names a file outside its folder: {outside[0]}; fetch it again")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise ValueError(
            f"{index.parent} lacks {len(missing)} files that {index.name} lists: {some(missing)}; "
            "is the download complete?"
        )
    return [index.parent / name for name in names]


def open_weights(files: Iterable[Path]) -> Weights:
    """Every tensor of the files by name; nothing stays in memory. Raises ValueError where a name stands twice."""
    weights: Weights = {}
    pickles = _OpenPickle()
    for path in files:
        opened = _open_safetensors(path) if path.suffix == ".safetensors" else pickles.list(path)
        if twice := weights.keys() & opened.keys():
            raise ValueError(
                f"{path} holds tensors that another file holds too: {some(twice)}; keep one copy"
            )
        weights |= opened
    pickles.close()
    return weights


def some(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
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
        raise ValueError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error
    return weights


def _read_safetensor(path: Path, name: str) -> torch.Tensor:
    """One tensor; the file is opened for it alone, so that no page of the others stays mapped."""
    try:
        with safe_open(path, framework="pt") as handle:
            return handle.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} can no longer be read ({error}); was it changed meanwhile?") from error


class _OpenPickle:
    """The one .bin file that is open: each is mapped as a whole, so it is let go before the next is opened."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._tensors: dict[str, torch.Tensor] = {}

    def list(self, path: Path) -> Weights:
        """The tensors of a file, to be read later."""
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
            raise ValueError(f"{path} no longer holds {name}; was it changed meanwhile?")
        return self._tensors[name].detach()


def _load_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Tensors only (`weights_only`): a pickle could otherwise run anything."""
    try:
        is_zip = zipfile.is_zipfile(path)
        with path.open("rb") as file:
            starts_as_zip = file.read(2) == b"PK"
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if starts_as_zip and not is_zip:  # a zip's table of contents is at its end
        raise ValueError(f"{path} is cut short; fetch it again")
    try:
        # Mapped, so that only what is cut comes into memory; files from before torch 1.6 are read whole.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"{path} does not load as plain tensors: it is damaged, or holds more; fetch a safetensors copy"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        for name, tensor in tensors.items()
    ):
        raise ValueError(f"{path} does not hold a dictionary of tensors")
    return tensors
