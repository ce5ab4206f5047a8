"""Archives read in place: whole, in parts, with 64-bit fields, before and after damage."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import zipfile
from pathlib import Path

import pytest

from bird_hf.data.sources.archives import FolderFiles, ZipArchive

RANDOM = random.Random(0)
CONTENTS = {f"SAMed2Dv1/images/{n}.png": RANDOM.randbytes(900 + 37 * n) for n in range(9)} | {
    "SAMed2Dv1/zeros": bytes(5000),
    "empty": b"",
}


def write_zip(path: Path, contents: dict[str, bytes] = CONTENTS, prefix: bytes = b"", **options) -> Path:
    stream = io.BytesIO()
    stream.write(prefix)
    with zipfile.ZipFile(stream, "a" if prefix else "w", zipfile.ZIP_DEFLATED, **options) as archive:
        archive.mkdir("SAMed2Dv1/") if not prefix else None
        for name, content in contents.items():
            archive.writestr(name, content)
    path.write_bytes(stream.getvalue())
    return path


def split_zip(path: Path, part_bytes: int, wide: bool = False) -> Path:
    """Cut a zip into `.z01`, ..., `.zip` as Info-ZIP's `zip -s` does; `wide` writes zip64 records, too.

    The first part begins with the mark of a spanned archive. Offsets count from the beginning of their part.
    """
    whole = b"PK\x07\x08" + path.read_bytes()
    end = whole.rfind(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HLL", whole, end + 10)
    directory, position = bytearray(whole[start + 4 : start + 4 + size]), 0
    while position < size:
        lengths = struct.unpack_from("<3H", directory, position + 28)
        part, offset = divmod(struct.unpack_from("<L", directory, position + 42)[0] + 4, part_bytes)
        struct.pack_into("<H", directory, position + 34, part)
        struct.pack_into("<L", directory, position + 42, offset)
        position += 46 + sum(lengths)
    body = whole[: start + 4]
    part, offset = divmod(len(body), part_bytes)
    records = b""
    if wide:
        at_part, at = divmod(len(body) + size, part_bytes)
        last = (len(body) + size + 56 + 20 + 22 - 1) // part_bytes
        records = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, last, part, count, count, size, offset)
        records += struct.pack("<4sLQL", b"PK\x06\x07", at_part, at, last + 1)
        offset = 2**32 - 1
    last = (len(body) + size + len(records) + 22 - 1) // part_bytes
    records += struct.pack("<4s4H2LH", b"PK\x05\x06", last, part, count, count, size, offset, 0)
    whole = body + directory + records
    for number in range(last):
        path.with_suffix(f".z{number + 1:02d}").write_bytes(
            whole[number * part_bytes : (number + 1) * part_bytes]
        )
    path.write_bytes(whole[last * part_bytes :])
    return path


def contents_of(path: Path) -> dict[str, bytes]:
    archive = ZipArchive(path)
    return {name: archive.read(place) for name, place in archive.files()}


def test_an_archive_lists_its_files_and_no_folders(tmp_path: Path) -> None:
    assert contents_of(write_zip(tmp_path / "a.zip")) == CONTENTS


def test_bytes_before_an_archive_shift_its_members(tmp_path: Path) -> None:
    assert contents_of(write_zip(tmp_path / "a.zip", prefix=b"#!/bin/sh\n" * 9)) == CONTENTS


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("part_bytes", [100, 333, 1000, 4096, 8000])
def test_parts_are_read_as_one(tmp_path: Path, part_bytes: int, wide: bool) -> None:
    path = split_zip(write_zip(tmp_path / "a.zip"), part_bytes, wide)
    assert path.with_suffix(".z01").is_file()
    assert contents_of(path) == CONTENTS


def test_offsets_of_64_bits_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 400)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    assert contents_of(write_zip(tmp_path / "a.zip")) == CONTENTS


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = split_zip(write_zip(tmp_path / "a.zip"), 1000)
    path.with_suffix(".z02").unlink()
    with pytest.raises(ValueError, match=r"has \d+ parts, and 2 were found; put all in one folder"):
        ZipArchive(path)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no archive" * 9, b"PK\x05\x06" + b"\xff" * 40])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^.*a\.zip .*[^\n]$"):
        [*ZipArchive(path).files()]


def test_damage_anywhere_gives_a_clear_error_or_the_right_bytes(tmp_path: Path) -> None:
    good = write_zip(tmp_path / "a.zip").read_bytes()
    for seed in range(150):
        bad = bytearray(good)
        for _ in range(3):
            bad[RANDOM.randrange(len(bad))] = seed % 256
        (tmp_path / "b.zip").write_bytes(bad[: len(bad) - seed % 3])
        with contextlib.suppress(ValueError):
            archive = ZipArchive(tmp_path / "b.zip")
            for name, place in archive.files():
                content = archive.read(place)
                assert name not in CONTENTS or content == CONTENTS[name]


def test_a_member_that_is_too_large_is_not_unpacked(tmp_path: Path) -> None:
    archive = ZipArchive(write_zip(tmp_path / "a.zip", {"bomb": bytes(10**6)}))
    [(_, place)] = archive.files()
    with pytest.raises(ValueError, match="larger than 1,000 bytes"):
        archive.read(place, limit=1000)
    place[3] = 500  # a wrong size in the directory
    with pytest.raises(ValueError, match="checksum"):
        archive.read(place, limit=1000)


def test_a_folder_lists_files_of_its_folders_only(tmp_path: Path) -> None:
    for name in ("images/a.png", "images/deeper/b.png", "masks/c.png", "other/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    files = FolderFiles(tmp_path, ("images", "masks"))
    assert {name: files.read(place).decode() for name, place in files.files()} == {
        "images/a.png": "images/a.png",
        "masks/c.png": "masks/c.png",
    }
    with pytest.raises(ValueError, match=r"a\.png is larger than 3 bytes"):
        files.read(["images", "a.png"], limit=3)
