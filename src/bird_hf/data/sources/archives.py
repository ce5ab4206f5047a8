"""Reads files of a folder or of a zip archive in place, including split archives (`name.z01`, ..., `name.zip`).

The central directory is read as a stream and only requested members are unpacked, so an archive of twenty million
members needs no more memory than a small one. Python's `zipfile` keeps every entry in memory and refuses split
archives. In a split archive the position of a member is the number of its part and the offset in that part
(PKWARE's APPNOTE 6.3.3, 4.3 and 4.4), and its bytes may continue in the next part.

Archives are not trusted: nothing is written to disk, a member's name is never used as a path, and the unpacked size
of a member is limited.
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Protocol

MAX_FILE_BYTES = 2**26  # 64 MB, more than any image or mask; tables are read as streams
_MAX_PARTS = 1000
_CHUNK_BYTES = 2**20

_END = struct.Struct("<4s4H2LH")  # end of central directory: counts, size and offset, length of the comment
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")  # one entry of the central directory
_LOCAL = struct.Struct("<4s2B4HL2L2H")  # the header before a member's bytes
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1

Place = list[Any]  # where a file is: JSON, yielded by `files` and passed to `read` and `stream`


class Files(Protocol):
    """The files of a source: their names, and their content on demand."""

    def files(self) -> Iterator[tuple[str, Place]]:
        """Yield (name with `/`, place) of every file, in any order."""

    def read(self, place: Place, limit: int = MAX_FILE_BYTES) -> bytes:
        """Read the file at a place. Raises ValueError if it is damaged or has more than `limit` bytes."""

    def stream(self, place: Place) -> Iterator[bytes]:
        """Yield the bytes of the file at a place in pieces, without a size limit."""


class FolderFiles:
    """The files directly in some folders of `root`. A place is [folder, name]."""

    def __init__(self, root: Path, folders: tuple[str, ...]) -> None:
        self.root, self.folders = root, folders

    def files(self) -> Iterator[tuple[str, Place]]:
        for folder in self.folders:
            with os.scandir(self.root / folder) as entries:
                yield from (
                    (f"{folder}/{entry.name}" if folder else entry.name, [folder, entry.name])
                    for entry in entries
                    if entry.is_file()
                )

    def read(self, place: Place, limit: int = MAX_FILE_BYTES) -> bytes:
        try:
            with (self.root / place[0] / place[1]).open("rb") as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise ValueError(f"{place[1]} cannot be read ({error.strerror})") from error
        if len(content) > limit:
            raise ValueError(f"{place[1]} is larger than {limit:,} bytes")
        return content

    def stream(self, place: Place) -> Iterator[bytes]:
        with (self.root / place[0] / place[1]).open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                yield piece


class ZipArchive:
    """The members of a zip archive. A place is [part, offset, packed size, size, method, CRC]."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _JoinedFiles(part_paths(path))
        self._start, self._count, self._shift = self._find_directory()

    def files(self) -> Iterator[tuple[str, Place]]:
        position = self._start
        for _ in range(self._count):
            fixed = _ENTRY.unpack(self._file.at(position, _ENTRY.size, self._broken))
            if fixed[0] != b"PK\x01\x02":
                raise ValueError(self._broken)
            flags, method = fixed[5], fixed[6]
            crc, packed, size, name_length, extra_length, comment_length, part = fixed[9:16]
            offset = fixed[18]
            rest = self._file.at(position + _ENTRY.size, name_length + extra_length, self._broken)
            position += _ENTRY.size + name_length + extra_length + comment_length
            size, packed, offset, part = _wide(rest[name_length:], size, packed, offset, part)
            name = rest[:name_length].decode("utf-8", "replace")
            if not name.endswith("/") and not flags & _ENCRYPTED:
                yield name, [part, offset + self._shift, packed, size, method, crc]

    def read(self, place: Place, limit: int = MAX_FILE_BYTES) -> bytes:
        _, _, packed, size, method, crc = place
        if size > limit or packed > limit:
            raise ValueError(f"a member of {size:,} bytes is larger than {limit:,} bytes")
        data = self._file.at(self._data_of(place), packed, "a member is cut short")
        content = _inflate(data, size) if method == _DEFLATED else data
        if len(content) != size or zlib.crc32(content) != crc:
            raise ValueError("a member is damaged: its checksum differs")
        return content

    def stream(self, place: Place) -> Iterator[bytes]:
        position, left = self._data_of(place), place[2]
        unpack = zlib.decompressobj(-zlib.MAX_WBITS) if place[4] == _DEFLATED else None
        while left:
            piece = self._file.at(position, min(_CHUNK_BYTES, left), "a member is cut short")
            position, left = position + len(piece), left - len(piece)
            yield unpack.decompress(piece) if unpack else piece

    def _data_of(self, place: Place) -> int:
        """The position of a member's first byte in the joined parts."""
        part, offset, _, _, method, _ = place
        if method not in (_STORED, _DEFLATED):
            raise ValueError(
                f"a member is compressed by method {method}; only store and deflate are supported"
            )
        start = self._file.position(part, offset)
        local = _LOCAL.unpack(self._file.at(start, _LOCAL.size, "a member is outside the archive"))
        if local[0] != b"PK\x03\x04":
            raise ValueError("a member is not at the position given in the directory")
        return start + _LOCAL.size + local[-2] + local[-1]

    @property
    def _broken(self) -> str:
        return f"{self.path} is not a complete zip archive; are all its parts in the same folder?"

    def _find_directory(self) -> tuple[int, int, int]:
        """(position of the central directory, number of entries, number of bytes before the archive)."""
        tail_length = min(self._file.size, _END.size + 2**16)
        tail_start = self._file.size - tail_length
        tail = self._file.at(tail_start, tail_length, self._broken)
        found = tail.rfind(b"PK\x05\x06")
        if found < 0 or len(tail) - found < _END.size:
            raise ValueError(self._broken)
        last, part, _, count, size, offset, _ = _END.unpack_from(tail, found)[1:]
        end = tail_start + found
        locator = end - _END64_LOCATOR.size
        if (
            locator >= 0
            and (raw := self._file.at(locator, _END64_LOCATOR.size, self._broken))[:4] == b"PK\x06\x07"
        ):
            at = self._file.position(*_END64_LOCATOR.unpack(raw)[1:3])
            signature, *_, last, part, _, count, size, offset = _END64.unpack(
                self._file.at(at, _END64.size, self._broken)
            )
            if signature != b"PK\x06\x06":
                raise ValueError(self._broken)
            end = at
        if last + 1 != len(self._file.paths):
            raise ValueError(
                f"{self.path} has {last + 1} parts, and {len(self._file.paths)} were found; put all in one folder"
            )
        start = self._file.position(part, offset)
        # A single-file archive may follow a program (self-extracting); every offset is then too small by its size.
        shift = end - size - start if last == 0 else 0
        if shift < 0:
            raise ValueError(self._broken)
        return start + shift, count, shift


def part_paths(path: Path) -> list[Path]:
    """The files of an archive in order: `name.z01`, `name.z02`, ... if they exist, and `name.zip` last."""
    parts: list[Path] = []
    while len(parts) < _MAX_PARTS:
        part = path.with_suffix(f".z{len(parts) + 1:02d}")
        if not part.is_file():
            break
        parts.append(part)
    return [*parts, path]


class _JoinedFiles:
    """Files read as if they were one file."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self._open: dict[int, BinaryIO] = {}
        self._ends = [*accumulate(path.stat().st_size for path in paths)]
        self.size = self._ends[-1]

    def position(self, part: int, offset: int) -> int:
        """The position in the joined parts of an offset in one part."""
        if part >= len(self.paths):
            raise ValueError(
                f"{self.paths[-1]} refers to part {part + 1} of {len(self.paths)}; is one missing?"
            )
        return offset + (self._ends[part - 1] if part else 0)

    def at(self, position: int, length: int, message: str) -> bytes:
        """Read `length` bytes at a position. Raises ValueError with the message if there are fewer."""
        if position < 0 or position + length > self.size:
            raise ValueError(message)
        pieces = []
        while length:
            part = bisect_right(self._ends, position)
            if part not in self._open:
                self._open[part] = self.paths[part].open("rb")
            file = self._open[part]
            file.seek(position - (self._ends[part - 1] if part else 0))
            piece = file.read(min(length, self._ends[part] - position))
            if not piece:
                raise ValueError(message)
            pieces.append(piece)
            position, length = position + len(piece), length - len(piece)
        return b"".join(pieces)


def _inflate(data: bytes, size: int) -> bytes:
    """Unpack at most `size` + 1 bytes, so that a zip bomb is cut off and fails the size check."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"a member is damaged ({error})") from error


def _wide(extra: bytes, size: int, packed: int, offset: int, part: int) -> tuple[int, int, int, int]:
    """An entry's numbers; those that do not fit 32 (the part: 16) bits are taken from its zip64 field."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        field = extra[position + 4 : position + 4 + length]
        position += 4 + length
        if kind != 1:
            continue
        numbers = []
        for value, full, width in (
            (size, 2**32 - 1, 8),
            (packed, 2**32 - 1, 8),
            (offset, 2**32 - 1, 8),
            (part, 2**16 - 1, 4),
        ):
            if value == full and len(field) >= width:
                value, field = int.from_bytes(field[:width], "little"), field[width:]
            numbers.append(value)
        return numbers[0], numbers[1], numbers[2], numbers[3]
    return size, packed, offset, part
