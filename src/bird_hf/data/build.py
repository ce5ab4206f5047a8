"""From a source of images and masks to Med-GRIT: list, pick, read, choose and split, write the words, publish.

A build that was stopped goes on where it was when it is called again, and ends with the same bytes as one that was
not. What it publishes depends on the source, the settings and the seed: on no path, no time, no number of workers.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from .build_publish import published, write_dataset
from .build_state import BuildState, record_of_text, record_text
from .faults import Drop, FaultyImageError
from .looks import Looks, look_of
from .masks import record_of
from .publish import png_bytes, rows_of
from .records import Dialogue, ImageRecord, Modality, Task
from .sampling import SLICE_SPACING, pick
from .sources import Candidate, Source, fingerprint, open_source
from .split import TEST_SHARE, Placed, check_no_leak, split_cases
from .subsets import SIZES
from .teachers import Refused, Teacher, TemplateTeacher
from .workers import batched, in_workers

Result = TypeVar("Result")
_KEY = "key.json"  # of the state: source and settings
_CHUNK = 32  # images that a worker reads at a time, and that are committed together
_SPARE = 1.25  # images that are read for each that is wanted: some are faulty, some look like others
_ONE_CLASS = (Modality.PET, Modality.FUNDUS)  # BiRD 3: no classification where there is but one class


@dataclass(frozen=True)
class BuildSettings:
    """What a dataset depends on, besides its source.

    limit: images wanted. teacher: the name of who writes the words. min_area: share of an image below which an object
    is not asked for. pixels: whether rows hold the images; None leaves it to the source's licence. subsets: turns of
    the parts of the training split that have names of their own.
    """

    limit: int = 60_000  # BiRD 3: about 60 K images
    seed: int = 0
    teacher: str = "templates"
    min_area: float = 0.0015
    slice_spacing: int = SLICE_SPACING
    test_share: float = TEST_SHARE
    pixels: bool | None = None
    subsets: tuple[int, ...] = SIZES


@dataclass(frozen=True)
class _Reading:
    """What a worker makes of an image."""

    image_id: str
    fault: str | None
    record: str | None = None
    look: bytes | None = None
    png: bytes | None = None


def build(
    src: Path, out: Path, settings: BuildSettings, workers: int, teacher: Teacher | None = None
) -> dict:
    """Build the dataset of a source into the folder `out`; returns the manifest, which stands there, too.

    teacher: who writes the words, templates by default; `settings.teacher` is its name. Raises ValueError, in one line,
    where the source is none, another build is at work in `out`, or the split leaks.
    """
    source = open_source(src)
    _check_out(out)
    scratch = out / ".build"
    scratch.mkdir(parents=True, exist_ok=True)
    with _only_build(scratch), closing(_open_state(scratch, src, settings)) as state:
        if state.is_done("publish") and (manifest := published(out)) is not None:
            return manifest
        _prepare(state, source, src, settings, workers)
        _write_words(state, teacher or TemplateTeacher(settings.seed))
        manifest = write_dataset(state, source.kind, asdict(settings), out, scratch / "med-grit")
        state.finish("publish")
        return manifest


def before_words(
    src: Path,
    out: Path,
    settings: BuildSettings,
    workers: int,
    use: Callable[[Iterator[ImageRecord]], Result],
) -> Result:
    """Do what `build` does before any word is written, and hand `use` the records that wait for theirs.

    Nothing is published; a build in the same folder goes on from here. Raises ValueError as `build` does.
    """
    source = open_source(src)
    _check_out(out)
    scratch = out / ".build"
    scratch.mkdir(parents=True, exist_ok=True)
    with _only_build(scratch), closing(_open_state(scratch, src, settings)) as state:
        _prepare(state, source, src, settings, workers)
        return use(_unwritten(state))


def _prepare(state: BuildState, source: Source, src: Path, settings: BuildSettings, workers: int) -> None:
    """Every stage before the words."""
    _list(state, source, settings)
    _read(state, source, src, settings, workers)
    _choose(state, settings)


def _check_out(out: Path) -> None:
    """Only a folder of an earlier build is written over."""
    if (out / ".build" / _KEY).is_file():
        return
    for name in ("README.md", "data", "manifest.json"):
        if (out / name).exists():
            raise ValueError(f"{out} holds a {name} that is not of a build; give another folder")


@contextmanager
def _only_build(scratch: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system releases however this process ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(scratch / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another build is at work in {scratch.parent}; wait for it, or give another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _open_state(scratch: Path, src: Path, settings: BuildSettings) -> BuildState:
    """The state of this source and these settings; that of others is thrown away."""
    key = json.dumps({"source": fingerprint(src), "settings": asdict(settings)}, sort_keys=True)
    key_file, folder = scratch / _KEY, scratch / "state"
    if not key_file.is_file() or key_file.read_text(encoding="utf-8") != key:
        key_file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        making = key_file.with_suffix(".making")
        making.write_text(key, encoding="utf-8")
        making.rename(key_file)
    folder.mkdir(exist_ok=True)
    return BuildState(folder / "build.sqlite")


@contextmanager
def _stage(state: BuildState, name: str) -> Iterator[bool]:
    """A stage of one transaction; gives whether it is to be done."""
    if state.is_done(name):
        yield False
        return
    state.database.execute("BEGIN")
    yield True
    state.finish(name)
    state.database.execute("COMMIT")


def _list(state: BuildState, source: Source, settings: BuildSettings) -> None:
    with _stage(state, "list") as todo:
        if todo:
            state.add_listed(tqdm(source.listed(), desc="listing", unit="image"), settings.seed)
            pick(state.database, round(settings.limit * _SPARE), settings.slice_spacing)
    if not state.count("picked"):
        found = Counter(dict(state.database.execute("SELECT reason, COUNT(*) FROM left_out GROUP BY reason")))
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(found.items())) or "it is empty"
        raise ValueError(f"the source has no image that can be used ({why})")


def _read(state: BuildState, source: Source, src: Path, settings: BuildSettings, workers: int) -> None:
    """Decode what was picked, check it, and store its record, its look and, where rows may hold them, its pixels."""
    if state.is_done("read"):
        return
    total, done = state.count("picked"), state.count("reads")
    keep = settings.pixels if settings.pixels is not None else source.pixels_are_free
    read = partial(read_chunk, src, settings.min_area, keep, settings.pixels is not False)
    jobs = batched(state.candidates_to_read(), _CHUNK)
    with tqdm(total=total, initial=done, desc="reading", unit="image") as bar:
        for readings in in_workers(read, jobs, min(workers, -(-(total - done) // _CHUNK))):
            state.database.execute("BEGIN")
            state.database.executemany(
                "INSERT INTO reads VALUES (?, ?, ?, ?, ?)",
                [(r.image_id, r.fault, r.record, r.look, r.png) for r in readings],
            )
            state.database.execute("COMMIT")
            bar.update(len(readings))
    state.finish("read")


def read_chunk(
    src: Path, min_area: float, keep: bool, keep_phantoms: bool, candidates: Iterable[Candidate]
) -> list[_Reading]:
    """What is read of some images; the source is opened once a process."""
    source = _opened(src)
    readings = []
    for candidate in candidates:
        image_id = candidate.info.image_id
        try:
            image = source.read(candidate)
            record = record_of(image, min_area)
            if not record.present:
                raise FaultyImageError(Drop.NO_OBJECTS)
        except FaultyImageError as error:
            readings.append(_Reading(image_id, error.reason.value))
            continue
        png = png_bytes(image.pixels) if keep or (keep_phantoms and image.info.synthetic) else None
        readings.append(_Reading(image_id, None, record_text(record), look_of(image.pixels), png))
    return readings


@cache
def _opened(src: Path) -> Source:
    return open_source(src)


def _choose(state: BuildState, settings: BuildSettings) -> None:
    """The first images by rank that are whole and look like none before them; their split by case, without a leak."""
    with _stage(state, "choose") as todo:
        if not todo:
            return
        looks = Looks()
        chosen: list[tuple[str, int]] = []
        cases: dict[str, Counter[tuple[str, str]]] = {}
        rows = state.database.execute(
            "SELECT image_id, rank, look, modality, dataset, case_id FROM picked JOIN reads USING (image_id) "
            "JOIN images USING (image_id) WHERE fault IS NULL ORDER BY rank"
        ).fetchall()
        for image_id, rank, look, modality, dataset, case_id in rows:
            if len(chosen) == settings.limit:
                break
            if looks.like(look).size:
                state.database.execute(
                    "UPDATE reads SET fault = ? WHERE image_id = ?", (Drop.NEAR_DUPLICATE, image_id)
                )
                continue
            looks.add(look)
            chosen.append((image_id, rank))
            cases.setdefault(case_id, Counter())[modality, dataset] += 1
        if not chosen:
            faults = state.database.execute("SELECT fault, COUNT(*) FROM reads GROUP BY fault ORDER BY fault")
            raise ValueError(
                f"no image of the source is whole ({', '.join(f'{n} {why}' for why, n in faults)})"
            )
        splits = split_cases(cases, settings.seed, settings.test_share)
        place = {image_id: (case_id, look) for image_id, _, look, _, _, case_id in rows}
        check_no_leak(Placed(i, *place[i], splits[place[i][0]]) for i, _ in chosen)
        state.database.executemany(
            "INSERT INTO chosen VALUES (?, ?, ?)", [(i, rank, splits[place[i][0]]) for i, rank in chosen]
        )


def _write_words(state: BuildState, teacher: Teacher) -> None:
    """The teacher's dialogues as rows, in the order of the ranks; what was written stays written."""
    if state.is_done("words"):
        return
    lonely = _one_class_modalities(state)
    total, done = state.count("chosen"), state.count("words")
    answers = teacher.dialogues(_unwritten(state))
    with tqdm(total=total, initial=done, desc="writing", unit="image") as bar:
        for batch in batched(answers, _CHUNK):
            state.database.execute("BEGIN")
            state.database.executemany(
                "INSERT INTO words VALUES (?, ?, ?)", [_words(a, lonely) for a in batch]
            )
            state.database.execute("COMMIT")
            bar.update(len(batch))
    state.finish("words")


def _unwritten(state: BuildState) -> Iterator[ImageRecord]:
    return _records(state, "WHERE image_id NOT IN (SELECT image_id FROM words)")


def _records(state: BuildState, where: str = "") -> Iterator[ImageRecord]:
    ids = state.database.execute(f"SELECT image_id FROM chosen {where} ORDER BY rank").fetchall()
    for (image_id,) in ids:
        yield record_of_text(
            state.database.execute("SELECT record FROM reads WHERE image_id = ?", (image_id,)).fetchone()[0]
        )


def _one_class_modalities(state: BuildState) -> set[Modality]:
    names: dict[Modality, set[str]] = {}
    for record in _records(state):
        names.setdefault(record.info.modality, set()).update(item.label for item in record.present)
    return {modality for modality in _ONE_CLASS if len(names.get(modality, ())) == 1}


def _words(answer: Dialogue | Refused, lonely: set[Modality]) -> tuple[str, str | None, str | None]:
    if isinstance(answer, Refused):
        return answer.image_id, answer.reason, None
    info = answer.record.info
    if info.modality in lonely:
        kept = tuple(turn for turn in answer.turns if turn.task is not Task.REFERRING_CLASSIFICATION)
        answer = replace(answer, turns=kept)
    if not answer.turns:
        return info.image_id, "no turn is left", None
    return info.image_id, None, json.dumps(rows_of(answer, None))
