"""The Java archives that SPICE needs and its Python package does not contain: where they lie and how they get there.

SPICE parses with Stanford CoreNLP 3.6.0, and writes its results through the JavaScript of the Java runtime, which Java
15 dropped: Rhino takes its place. All are on Maven Central. `bird setup spice` downloads them.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..atomic_writes import replacing_file
from ..progress import progress_bar

FOLDER_VARIABLE = "BIRD_CORENLP"
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
_BLOCK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Jar:
    """A Java archive of Maven Central: its folder there, and its size in bytes and sha256."""

    name: str
    folder: str
    size: int
    sha256: str

    @property
    def url_path(self) -> str:
        return f"{self.folder}/{self.name}"


_STANFORD = "edu/stanford/nlp/stanford-corenlp/3.6.0"
_RHINO = "org/mozilla"
JARS = (
    Jar(
        "stanford-corenlp-3.6.0.jar",
        _STANFORD,
        7_270_741,
        "d341d5863276f55782c5ef73212222d6b3b48e02ae1951ab6de7618d28b12742",
    ),
    Jar(
        "stanford-corenlp-3.6.0-models.jar",
        _STANFORD,
        378_116_526,
        "d285157bd7887ee3018094b5dbae092e49088b023361ccdb550ee1daf9b2c9bd",
    ),
    Jar(
        "rhino-1.7.15.jar",
        f"{_RHINO}/rhino/1.7.15",
        1_407_735,
        "2427fdcbc149ca0a25ccfbb7c71b01f39ad42708773a47816cd2342861766b63",
    ),
    Jar(
        "rhino-engine-1.7.15.jar",
        f"{_RHINO}/rhino-engine/1.7.15",
        19_604,
        "b7bbb6724812a8ba6c650cf4a1e655a24af4d73a321add5a64a54c2d5963ce00",
    ),
)


def corenlp_folder() -> Path:
    """The folder of the archives: BIRD_CORENLP, else `bird-hf/corenlp` in the user's cache folder."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bird-hf" / "corenlp"


def find_jars(jars: Sequence[Jar] = JARS) -> list[Path]:
    """The paths of the archives, whose sizes are checked; `set_up` checks their contents.

    Raises ValueError, with what to do, if one is missing or has another size.
    """
    folder = corenlp_folder()
    if lacking := [jar.name for jar in jars if not (folder / jar.name).is_file()]:
        raise ValueError(
            f"SPICE needs {', '.join(lacking)} in {folder}: run `bird setup spice` once (369 MiB from Maven Central), "
            "or score with --rc-measure scene_graph_f1, which needs no Java"
        )
    for jar in jars:
        if (size := (folder / jar.name).stat().st_size) != jar.size:
            raise ValueError(
                f"{folder / jar.name} has {size} bytes, and the archive has {jar.size}; remove it and run "
                "`bird setup spice`"
            )
    return [folder / jar.name for jar in jars]


def set_up(source: Path | None = None, base_url: str = MAVEN_CENTRAL, jars: Sequence[Jar] = JARS) -> Path:
    """Put the archives into `corenlp_folder()`: copied from a folder, else downloaded. Returns that folder.

    Archives that are there already and right are left alone. A download that was stopped goes on where it ended.
    Raises ValueError if an archive is missing in `source`, cannot be downloaded, or has another sha256.
    """
    folder = corenlp_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be made ({error.strerror}); set {FOLDER_VARIABLE} to a folder that can be written"
        ) from error
    for jar in jars:
        path = folder / jar.name
        if path.is_file() and path.stat().st_size == jar.size and _sha256(path) == jar.sha256:
            continue
        if source is not None:
            _copy(source / jar.name, path, jar)
        else:
            _download(f"{base_url}/{jar.url_path}", path, jar)
    return folder


def _copy(source: Path, path: Path, jar: Jar) -> None:
    if not source.is_file():
        raise ValueError(f"{source}: no such file; --from needs a folder with {jar.name}")
    if source.stat().st_size != jar.size or (found := _sha256(source)) != jar.sha256:
        wrong = f"{source.stat().st_size} bytes" if source.stat().st_size != jar.size else f"sha256 {found}"
        raise ValueError(
            f"{source} is not the archive of Maven Central ({wrong}); it has {jar.size} bytes, sha256 {jar.sha256}"
        )
    with replacing_file(path) as making:
        shutil.copyfile(source, making)


def _download(url: str, path: Path, jar: Jar) -> None:
    """Download into NAME.part, continuing what is there; NAME appears if its sha256 is right."""
    part = path.with_name(f"{path.name}.part")
    if part.exists() and part.stat().st_size > jar.size:
        part.unlink()
    have = part.stat().st_size if part.exists() else 0
    if have < jar.size:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as reply:
                _receive(reply, part, have if reply.status == http.HTTPStatus.PARTIAL_CONTENT else 0, jar)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise ValueError(
                f"{url} could not be downloaded ({getattr(error, 'reason', error)}); run `bird setup spice` again, "
                "which goes on where it stopped, or give --from a folder with the archives"
            ) from error
    if part.stat().st_size < jar.size:
        raise ValueError(
            f"{url}: the connection ended after {part.stat().st_size} of {jar.size} bytes; run `bird setup spice` "
            "again, which goes on where it stopped"
        )
    if (found := _sha256(part)) != jar.sha256:
        part.unlink()
        raise ValueError(
            f"{url} has sha256 {found} instead of {jar.sha256}; nothing was kept. Try again, or use --from"
        )
    part.replace(path)


def _receive(reply: http.client.HTTPResponse, part: Path, start: int, jar: Jar) -> None:
    """Append a reply to a partial file; at most the archive's size is written."""
    bar = progress_bar(total=jar.size, initial=start, unit="B", unit_scale=True, desc=jar.name)
    with bar, part.open("r+b" if start else "wb") as file:
        file.seek(start)
        _copy_blocks(reply.read, file, jar.size - start, bar.update)


def _copy_blocks(
    read: Callable[[int], bytes], file: BinaryIO, left: int, told: Callable[[int], object]
) -> None:
    while left > 0 and (block := read(min(_BLOCK, left))):
        file.write(block)
        left -= len(block)
        told(len(block))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
