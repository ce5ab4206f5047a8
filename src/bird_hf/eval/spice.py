"""SPICE, the measure of referring captions (BiRD 5): the original Java program, started once for all answers.

SPICE (Anderson et al., ECCV 2016) parses a sentence into objects, attributes and relations, and takes the F1 of those
of the answer against those of the reference. Program and libraries come with `pycocoevalcap` (extra `eval`), CoreNLP
with `bird setup spice`. Its cache is not used, so it needs no `--add-opens` on Java 17 and newer.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..extras import missing_extra
from .corenlp import find_jars
from .text_scores import java_on_path

HEAP = "3g"  # of the JVM; the models take about 1 GiB
HEAP_VARIABLE = "BIRD_SPICE_HEAP"
# The parser's time and memory grow with the cube of a sentence's length, so longer ones are cut.
MAX_SENTENCE_WORDS = 60
MAX_WORDS = 500
_TIMEOUT_START = 300.0  # seconds to load the models on a slow machine
_TIMEOUT_TEXT = 20.0  # seconds for each text
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def spice_scores(
    pairs: Sequence[tuple[str, str]],
    heap: str | None = None,
    threads: int | None = None,
    timeout: float | None = None,
) -> list[float]:
    """The F1 of each (reference, response) pair, as the original program computes it; 0 to 1.

    Sentences are cut at 60 words and texts at 500 (`cut_text`).
    heap: of the JVM, such as 3g; by default BIRD_SPICE_HEAP, else 3g. threads: of the parser; by default one per CPU.
    timeout: in seconds; by default five minutes and 20 seconds per text.
    Raises ValueError, in one line, if Java, the toolkit or CoreNLP is missing, or the program fails.
    """
    if not pairs:
        return []
    return [_f1(row) for row in run_spice(pairs, heap, threads, timeout)]


def run_spice(
    pairs: Sequence[tuple[str, str]],
    heap: str | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    options: Sequence[str] = (),
) -> list[Mapping[str, Any]]:
    """The rows of the program's own output, in the order of the pairs; see `spice_scores`.

    options: further ones of the program, such as `-detailed`, which adds the tuples.
    """
    heap = heap or os.environ.get(HEAP_VARIABLE) or HEAP
    if not re.fullmatch(r"[1-9]\d{0,5}[mMgG]", heap):
        raise ValueError(f"heap {heap!r} is not a size for the JVM; use a number and m or g, such as 3g")
    classpath = _classpath()
    timeout = timeout or _TIMEOUT_START + _TIMEOUT_TEXT * 2 * len(pairs)
    rows = [
        {"image_id": place, "test": cut_text(response), "refs": [cut_text(reference)]}
        for place, (reference, response) in enumerate(pairs)
    ]
    with java_on_path(), tempfile.TemporaryDirectory(prefix="bird-spice-") as folder:
        given, out = Path(folder, "in.json"), Path(folder, "out.json")
        given.write_text(json.dumps(rows), encoding="ascii")
        command = ["java", f"-Xmx{heap}", "-Dfile.encoding=UTF-8", "-cp", classpath]
        command += ["edu.anu.spice.SpiceScorer", str(given), "-out", str(out), "-silent", *options]
        command += ["-threads", str(threads or os.cpu_count() or 1)]
        _run(command, Path(folder), timeout)
        found = _read(out, len(pairs))
    return found


def cut_text(text: str) -> str:
    """The text in one line, with sentences of at most 60 words and at most 500 words in all."""
    sentences = _SENTENCE_END.split(" ".join(text.split()))
    words = [word for sentence in sentences for word in sentence.split()[:MAX_SENTENCE_WORDS]]
    return " ".join(words[:MAX_WORDS])


def is_cut(text: str) -> bool:
    """Whether `cut_text` leaves words out."""
    return len(cut_text(text).split()) < len(text.split())


def spice_is_there() -> None:
    """Raises ValueError, in one line that says what to do, if Java, the toolkit or CoreNLP is missing."""
    _classpath()
    with java_on_path():
        pass


def _classpath() -> str:
    try:
        from pycocoevalcap import spice
    except ImportError as error:
        raise ValueError(f"SPICE needs the COCO caption toolkit; {missing_extra('eval')}") from error
    folder = Path(str(spice.__file__)).parent
    jars = [folder / "spice-1.0.jar", folder / "lib" / "*"]
    if not jars[0].is_file():
        raise ValueError(f"{jars[0]} is missing; install pycocoevalcap again, or {missing_extra('eval')}")
    return os.pathsep.join(map(str, [*jars, *find_jars()]))


def _run(command: Sequence[str], folder: Path, timeout: float) -> None:
    # Into a file, so that a long log fills neither a pipe nor the memory.
    with (folder / "log.txt").open("wb") as log:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"SPICE did not end within {timeout:.0f} seconds; score fewer answers at once, or use "
                "--rc-measure scene_graph_f1"
            ) from error
    if done.returncode == 0 and (folder / "out.json").is_file():
        return
    said = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    if "OutOfMemoryError" in said:
        raise ValueError(
            f"SPICE ran out of memory ({command[1]}); give {HEAP_VARIABLE} a larger size, such as 6g"
        )
    errors = [line for line in said.splitlines() if "Error" in line or "Exception" in line]
    reason = (errors or said.splitlines() or ["no message"])[0].strip()
    raise ValueError(
        f"SPICE failed (exit {done.returncode}): {reason[:200]}; check the archives with `bird setup spice`"
    )


def _read(out: Path, wanted: int) -> list[Mapping[str, Any]]:
    try:
        rows = {row["image_id"]: row for row in json.loads(out.read_text(encoding="utf-8"))}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"the output of SPICE cannot be read ({error!r})") from error
    if rows.keys() != set(range(wanted)):
        raise ValueError(
            f"SPICE scored {len(rows)} of {wanted} answers; check the archives with `bird setup spice`"
        )
    return [rows[place] for place in range(wanted)]


def _f1(row: Mapping[str, Any]) -> float:
    value = row["scores"]["All"]["f"]
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"SPICE gave row {row['image_id']} the score {value!r}")
    return float(value)
