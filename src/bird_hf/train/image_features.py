"""A store on disk for what the frozen vision tower computes of each image.

    DIR/TOWER/settings.json             which weights and settings the records are of, their shape and dtype
    DIR/TOWER/WRITER.records            records one after the other, all of one size
    DIR/TOWER/WRITER.index              an entry for each record that is whole

A writer is one process of one run. It appends to files of its own, first the record and then its entry, so that a
process killed at any moment leaves whole records and perhaps bytes that no entry names. Others map a file of records
into memory and read on in its index as it grows. An entry names the image (`image_key`) and a checksum of image and
record: a record that does not fit is computed anew. A lock keeps several writers within the size of the store.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import mmap
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ..atomic_writes import write_text

log = logging.getLogger(__name__)

_ENTRY = struct.Struct("<32sQ16s8s")  # image key, offset, checksum of the record, checksum of the entry
_LOCK_SECONDS = 60


def image_key(pixels: torch.Tensor) -> bytes:
    """sha256 of the pixels (3, S, S) as the processor gives them, so that a changed image is another one."""
    pixels = pixels.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(pixels.shape)} {pixels.dtype}".encode())
    digest.update(_bytes_of(pixels).data)
    return digest.digest()


def image_keys(pixels: torch.Tensor) -> torch.Tensor:
    """(N, 3, S, S) -> (N, 32) uint8, the `image_key` of each."""
    return torch.tensor([list(image_key(image)) for image in pixels], dtype=torch.uint8)


def weights_digest(module: torch.nn.Module) -> str:
    """sha256 of names, dtypes, shapes and bytes of a module's weights, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(_bytes_of(value.detach().cpu().contiguous()).data)
    return digest.hexdigest()


@dataclass
class _Segment:
    """The files of one writer, as far as they were read."""

    records: Path
    indexed: int = 0  # bytes of the index that were read
    mapped: mmap.mmap | None = None


@dataclass
class FeatureStore:
    """Records of one tower under `folder`, which holds at most `max_bytes` of records of any tower.

    settings: what the values depend on, as JSON can write it. Raises ValueError if `folder` cannot be written.
    """

    folder: Path
    settings: dict[str, Any]
    max_bytes: int
    shape: tuple[int, ...] | None = None  # of a record; known from the first one on
    dtype: torch.dtype | None = None
    _segments: dict[str, _Segment] = field(default_factory=dict)
    _places: dict[bytes, list[tuple[str, int, bytes]]] = field(
        default_factory=dict
    )  # writer, offset, checksum
    _writer: str | None = None
    _said: set[str] = field(default_factory=set)
    is_closed: bool = False  # nothing is added any more

    def __post_init__(self) -> None:
        written = json.dumps(self.settings, sort_keys=True)
        self.tower = self.folder / hashlib.sha256(written.encode()).hexdigest()[:32]
        try:
            self.tower.mkdir(parents=True, exist_ok=True)
            if not os.access(self.tower, os.W_OK):
                raise PermissionError(f"{self.tower} cannot be written")
        except OSError as error:
            raise ValueError(f"cache_image_features: {error}; name a folder that can be written") from error
        self._lock = FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS)

    @property
    def record_bytes(self) -> int:
        """Bytes of a record; 0 before the first."""
        return 0 if self.shape is None or self.dtype is None else math.prod(self.shape) * self.dtype.itemsize

    def read(self, keys: Sequence[bytes]) -> dict[bytes, torch.Tensor]:
        """The records of those images that are there and whole."""
        if any(key not in self._places for key in keys):
            self._refresh()
        found = {}
        for key in keys:
            if key not in found and (record := self._record(key)) is not None:
                found[key] = record
        return found

    def add(self, records: dict[bytes, torch.Tensor]) -> None:
        """Append records of one shape and dtype. If there is no room or no disk, says so once and keeps no more."""
        if self.is_closed or not records:
            return
        try:
            with self._lock:
                self._refresh()
                self._add({key: value for key, value in records.items() if not self._places.get(key)})
        except Timeout:
            self._say("another process has held its lock for a minute, so a batch is not kept")
        except OSError as error:
            self.is_closed = True
            self._say(f"{error}; features are not kept from here on, and training goes on")

    def used_bytes(self, others_only: bool = False) -> int:
        """Bytes of records of all towers, or of all but this one."""
        return sum(
            path.stat().st_size
            for path in self.folder.glob("*/*.records")
            if not (others_only and path.parent == self.tower)
        )

    def __contains__(self, key: bytes) -> bool:
        return bool(self._places.get(key))

    def __len__(self) -> int:
        return sum(map(bool, self._places.values()))

    # --- reading ---

    def _record(self, key: bytes) -> torch.Tensor | None:
        places = self._places.get(key, [])
        while places:
            writer, offset, checksum = places[-1]
            data = self._data(writer, offset)
            if data is not None and _checksum(key, data) == checksum:
                return torch.from_numpy(data).view(self.dtype).reshape(self.shape)
            places.pop()
            self._say(
                f"a record in {self._segments[writer].records} is damaged; damaged ones are computed anew"
            )
        return None

    def _data(self, writer: str, offset: int) -> np.ndarray | None:
        """A copy of the bytes of a record, or None if the file is too short."""
        segment, end = self._segments[writer], offset + self.record_bytes
        with suppress(OSError, ValueError), segment.records.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if end > size:  # reading beyond it would kill the process
                return None
            if segment.mapped is None or len(segment.mapped) < end:
                segment.mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
            return np.frombuffer(segment.mapped, np.uint8, self.record_bytes, offset).copy()
        return None

    def _refresh(self) -> None:
        """Read what other processes, and earlier runs, have added."""
        if self.shape is None and not self._read_layout():
            return
        for path in sorted(self.tower.glob("*.index")):
            segment = self._segments.setdefault(path.stem, _Segment(path.with_suffix(".records")))
            for key, offset, checksum in _entries(path, segment):
                self._places.setdefault(key, []).append((path.stem, offset, checksum))

    def _read_layout(self) -> bool:
        try:
            layout = json.loads((self.tower / "settings.json").read_text(encoding="utf-8"))
            shape, dtype = tuple(map(int, layout["shape"])), getattr(torch, str(layout["dtype"]))
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.tower}/settings.json cannot be read; remove that folder") from error
        if not isinstance(dtype, torch.dtype) or not shape or min(shape) < 1:
            raise ValueError(f"{self.tower}/settings.json has no shape and dtype; remove that folder")
        self.shape, self.dtype = shape, dtype
        return True

    # --- writing, under the lock ---

    def _add(self, records: dict[bytes, torch.Tensor]) -> None:
        used = self.used_bytes()
        for key, value in records.items():
            if self.shape is None:
                self._write_layout(value)
            if tuple(value.shape) != self.shape or value.dtype != self.dtype:
                kind = f"{tuple(value.shape)} of {value.dtype}, not {self.shape} of {self.dtype}"
                raise OSError(f"features are {kind} as in {self.tower}")
            used += self.record_bytes
            if used > self.max_bytes:
                raise OSError(f"the store is full at {self.max_bytes / 1e9:g} GB")
            self._append(key, _bytes_of(value.detach().cpu().contiguous()))
        self._refresh()

    def _write_layout(self, value: torch.Tensor) -> None:
        self.shape, self.dtype = tuple(value.shape), value.dtype
        layout = {"shape": list(self.shape), "dtype": str(self.dtype).removeprefix("torch.")}
        write_text(self.tower / "settings.json", json.dumps(self.settings | layout, indent=1) + "\n")

    def _append(self, key: bytes, data: np.ndarray) -> None:
        if self._writer is None or not self._writer.startswith(
            f"{os.getpid()}-"
        ):  # a fork is another process
            self._writer = f"{os.getpid()}-{uuid.uuid4().hex}"
        records = self.tower / f"{self._writer}.records"
        with records.open("ab") as file:
            offset = file.tell()
            try:
                file.write(data.data)
                file.flush()
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), offset)  # gives its room back
                raise
        checksum = _checksum(key, data)
        entry = _ENTRY.pack(key, offset, checksum, b"")
        with records.with_suffix(".index").open("ab") as file:
            file.write(entry[:-8] + hashlib.sha256(entry).digest()[:8])

    def _say(self, what: str) -> None:
        kind = what.split(" in ")[0]
        if kind not in self._said:
            self._said.add(kind)
            log.warning("cache_image_features: %s", what)


def _entries(path: Path, segment: _Segment) -> Iterator[tuple[bytes, int, bytes]]:
    """The whole entries of an index behind those that were read already."""
    with path.open("rb") as file:
        file.seek(segment.indexed)
        data = file.read()
    whole = len(data) - len(data) % _ENTRY.size  # the last one may still be being written
    segment.indexed += whole
    for key, offset, checksum, own in _ENTRY.iter_unpack(data[:whole]):
        if hashlib.sha256(_ENTRY.pack(key, offset, checksum, b"")).digest()[:8] == own:
            yield key, offset, checksum


def _checksum(key: bytes, data: np.ndarray) -> bytes:
    digest = hashlib.sha256(key)
    digest.update(data.data)
    return digest.digest()[:16]


def _bytes_of(value: torch.Tensor) -> np.ndarray:
    """The bytes of a tensor on the CPU, of any dtype."""
    return value.reshape(-1).view(torch.uint8).numpy()
