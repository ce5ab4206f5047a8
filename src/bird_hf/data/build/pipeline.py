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

from ..folder.publish import png_bytes, rows_of
from ..folder.subsets import SIZES
from ..masks import record_of
from ..near_duplicates import difference_hash
from ..records import Dialogue, ImageRecord, Modality, Task, single_class_modalities
from ..sources.base import Candidate, LeftOut, Source, fingerprint
from ..sources.faults import Drop, FaultyImageError
from ..sources.label_names import Spellings, spellings
from ..sources.open import open_source
from ..teachers.base import Refused, Teacher
from ..teachers.templates import TemplateTeacher
from ..workers import batched, check_engine, in_workers
from .publish import published, write_dataset
from .review import Review
from .review_files import read_review
from .sampling import SLICE_SPACING, pick
from .selection import choose
from .split import TEST_SHARE
from .state import BuildState, record_of_text, record_text

Result = TypeVar("Result")
_SCRATCH = ".build"  # in the folder of a dataset
_KEY = "key.json"  # of the state: source and settings
_STATE = Path("state", "build.sqlite")
_CHUNK = 32  # images that a worker reads at a time, and that are committed together
_SPARE = 1.25  # images that are read for each that is wanted: some are faulty, some look like others


@dataclass(frozen=True)
class BuildSettings:
    """What a dataset depends on, besides its source.

    limit: images wanted. teacher: the name of who writes the words. min_area: share of an image below which an object
    is not asked for. pixels: whether rows hold the images; None leaves it to the source's licence. subsets: turns of
    the parts of the training split that have names of their own. review: the hash of what people decided, which a
    build finds out itself.
    """

    limit: int = 60_000  # BiRD 3: about 60 K images
    seed: int = 0
    teacher: str = "templates"
    min_area: float = 0.0015
    slice_spacing: int = SLICE_SPACING
    test_share: float = TEST_SHARE
    pixels: bool | None = None
    subsets: tuple[int, ...] = SIZES
    review: str | None = None


@dataclass(frozen=True)
class _Reading:
    """What a worker makes of an image."""

    image_id: str
    objects: str  # JSON: the source's name of a class -> number of objects
    fault: str | None
    record: str | None = None
    look: bytes | None = None
    png: bytes | None = None
    rejected: int = 0  # objects


@dataclass(frozen=True)
class _Begun:
    """A build that is under way: what its stages need."""

    state: BuildState
    source: Source
    src: Path
    settings: BuildSettings
    review: Review
    spelled: Spellings
    workers: int
    engine: str


def build(
    src: Path,
    out: Path,
    settings: BuildSettings,
    workers: int,
    teacher: Teacher | None = None,
    engine: str = "processes",
) -> dict:
    """Build the dataset of a source into the folder `out`; returns the manifest, which stands there, too.

    teacher: who writes the words, templates by default; `settings.teacher` is its name. engine: where images are read
    (see workers.py); Ray's nodes must all see the source under this path. What people decided in `out`/review is
    honoured. Raises ValueError, in one line, where the source is none, another build is at work in `out`, the split
    leaks, or a decision cannot be understood.
    """
    with _begun(src, out, settings, workers, engine) as begun:
        state = begun.state
        if state.is_done("publish") and (manifest := published(out)) is not None:
            return manifest
        _prepare(begun)
        _write_words(begun, teacher or TemplateTeacher(settings.seed))
        manifest = write_dataset(
            state, begun.source.kind, asdict(begun.settings), out, out / _SCRATCH / "med-grit"
        )
        state.finish("publish")
        return manifest


def before_words(
    src: Path,
    out: Path,
    settings: BuildSettings,
    workers: int,
    use: Callable[[Iterator[ImageRecord]], Result],
    engine: str = "processes",
) -> Result:
    """Do what `build` does before any word is written, and hand `use` the records that wait for theirs.

    Nothing is published; a build in the same folder goes on from here. Raises ValueError as `build` does.
    """
    with _begun(src, out, settings, workers, engine) as begun:
        _prepare(begun)
        return use(_unwritten(begun.state))


@contextmanager
def built_state(out: Path) -> Iterator[tuple[BuildState, BuildSettings]]:
    """What a build in `out` has done so far, with its settings; no build works there meanwhile.

    Raises ValueError where `out` is no build's, or its build has not listed its source yet.
    """
    key_file = out / _SCRATCH / _KEY
    if not key_file.is_file():
        raise ValueError(f"{out} is no folder of a build; give the --out of `bird data build`")
    with _only_build(out), closing(BuildState(out / _SCRATCH / _STATE)) as state:
        if not state.is_done("list"):
            raise ValueError(f"the build in {out} has not listed its source yet; run `bird data build` first")
        yield state, BuildSettings(**json.loads(key_file.read_text(encoding="utf-8"))["settings"])


@contextmanager
def _begun(src: Path, out: Path, settings: BuildSettings, workers: int, engine: str) -> Iterator[_Begun]:
    """A build, which holds its folder meanwhile."""
    check_engine(engine)
    review = read_review(out / "review")
    settings = replace(settings, review=review.digest)
    with spellings() as spelled:  # of the source, not of the review
        source = open_source(src)
        _check_out(out)
        (out / _SCRATCH).mkdir(parents=True, exist_ok=True)
        with _only_build(out), closing(_open_state(out / _SCRATCH, src, settings)) as state:
            yield _Begun(state, source, src, settings, review, spelled, workers, engine)


def _prepare(begun: _Begun) -> None:
    """Every stage before the words."""
    _list(begun)
    _read(begun)
    _choose(begun.state, begun.settings)


def _check_out(out: Path) -> None:
    """Only a folder of an earlier build is written over."""
    if (out / _SCRATCH / _KEY).is_file():
        return
    for name in ("README.md", "data", "manifest.json"):
        if (out / name).exists():
            raise ValueError(f"{out} holds a {name} that is not of a build; give another folder")


@contextmanager
def _only_build(out: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system releases however this process ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / _SCRATCH / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another build is at work in {out}; wait for it, or give another --out") from None
    try:
        yield
    finally:
        lock.release()


def _open_state(scratch: Path, src: Path, settings: BuildSettings) -> BuildState:
    """The state of this source and these settings; that of others is thrown away."""
    key = json.dumps({"source": fingerprint(src), "settings": asdict(settings)}, sort_keys=True)
    key_file, folder = scratch / _KEY, (scratch / _STATE).parent
    if not key_file.is_file() or key_file.read_text(encoding="utf-8") != key:
        key_file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        making = key_file.with_suffix(".making")
        making.write_text(key, encoding="utf-8")
        making.rename(key_file)
    folder.mkdir(exist_ok=True)
    return BuildState(scratch / _STATE)


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


def _list(begun: _Begun) -> None:
    state, settings = begun.state, begun.settings
    with _stage(state, "list") as todo:
        if todo:
            names: Counter[tuple[str, str, str]] = Counter()
            listed = tqdm(begun.source.listed(), desc="listing", unit="image")
            state.add_listed(_reviewed(listed, begun.review, names), settings.seed)
            state.add_names(names, begun.spelled)
            pick(state.database, round(settings.limit * _SPARE), settings.slice_spacing)
    if not state.count("picked"):
        found = Counter(dict(state.database.execute("SELECT reason, COUNT(*) FROM left_out GROUP BY reason")))
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(found.items())) or "it is empty"
        raise ValueError(f"the source has no image that can be used ({why})")


def _reviewed(
    listed: Iterable[Candidate | LeftOut], review: Review, names: Counter[tuple[str, str, str]]
) -> Iterator[Candidate | LeftOut]:
    """What is listed, as the review has it; the source's own names are counted in `names`."""
    for item in listed:
        if isinstance(item, Candidate):
            names.update((item.info.dataset, item.info.modality.value, label) for label in item.labels)
        yield review.listed(item)


def _read(begun: _Begun) -> None:
    """Decode what was picked, check it, and store its record, its look and, where rows may hold them, its pixels."""
    state, pixels = begun.state, begun.settings.pixels
    if state.is_done("read"):
        return
    total, done = state.count("picked"), state.count("reads")
    keep = pixels if pixels is not None else begun.source.pixels_are_free
    read = partial(
        read_chunk, begun.src.absolute(), begun.review, begun.settings.min_area, keep, pixels is not False
    )
    jobs = batched(state.candidates_to_read(), _CHUNK)
    workers = min(begun.workers, -(-(total - done) // _CHUNK))
    with tqdm(total=total, initial=done, desc="reading", unit="image") as bar:
        for readings in in_workers(read, jobs, workers, begun.engine):
            state.database.execute("BEGIN")
            state.database.executemany(
                "INSERT INTO reads VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(r.image_id, r.fault, r.record, r.look, r.png, r.objects, r.rejected) for r in readings],
            )
            state.database.execute("COMMIT")
            bar.update(len(readings))
    state.finish("read")


def read_chunk(
    src: Path,
    review: Review,
    min_area: float,
    keep: bool,
    keep_phantoms: bool,
    candidates: Iterable[Candidate],
) -> list[_Reading]:
    """What is read of some images; the source is opened once a process."""
    source = _opened(src)
    readings = []
    for candidate in candidates:
        image_id = candidate.info.image_id
        objects: Counter[str] = Counter()
        try:
            found = source.read(candidate)
            objects.update(label for label, _ in found.masks)
            image = review.read(found)
            record = record_of(image, min_area)
            if not record.present:
                raise FaultyImageError(Drop.NO_OBJECTS)
        except FaultyImageError as error:
            readings.append(_Reading(image_id, json.dumps(objects), error.reason.value))
            continue
        png = png_bytes(image.pixels) if keep or (keep_phantoms and image.info.synthetic) else None
        rejected = len(found.masks) - len(image.masks)
        text, look = record_text(record), difference_hash(image.pixels)
        readings.append(_Reading(image_id, json.dumps(objects), None, text, look, png, rejected))
    return readings


@cache
def _opened(src: Path) -> Source:
    return open_source(src)


def _choose(state: BuildState, settings: BuildSettings) -> None:
    with _stage(state, "choose") as todo:
        if todo:
            choose(state, settings.limit, settings.seed, settings.test_share)


def _write_words(begun: _Begun, teacher: Teacher) -> None:
    """The teacher's dialogues as rows, in the order of the ranks; what was written stays written."""
    state, review = begun.state, begun.review
    if state.is_done("words"):
        return
    lonely = single_class_modalities(_records(state))
    total, done = state.count("chosen"), state.count("words")
    answers = teacher.dialogues(_unwritten(state))
    with tqdm(total=total, initial=done, desc="writing", unit="image") as bar:
        for batch in batched(answers, _CHUNK):
            state.database.execute("BEGIN")
            state.database.executemany(
                "INSERT INTO words VALUES (?, ?, ?, ?)", [_words(a, lonely, review) for a in batch]
            )
            state.database.execute("COMMIT")
            bar.update(len(batch))
    state.finish("words")


def _unwritten(state: BuildState) -> Iterator[ImageRecord]:
    return _records(state, "WHERE image_id NOT IN (SELECT image_id FROM words)")


def _records(state: BuildState, where: str = "") -> Iterator[ImageRecord]:
    ids = f"SELECT image_id FROM chosen {where} ORDER BY rank"
    for _, text in state.each(ids, "record FROM {} JOIN reads USING (image_id)"):
        yield record_of_text(text)


def _words(
    answer: Dialogue | Refused, lonely: set[Modality], review: Review
) -> tuple[str, str | None, str | None, int]:
    """(image, why there are no words, rows, turns that people rejected)."""
    if isinstance(answer, Refused):
        return answer.image_id, answer.reason, None, 0
    info, turns = answer.record.info, answer.turns
    if info.modality in lonely:
        turns = tuple(turn for turn in turns if turn.task is not Task.REFERRING_CLASSIFICATION)
    kept = review.kept(info.image_id, turns)
    rejected = len(turns) - len(kept)
    if not kept:
        return info.image_id, "rejected in review" if rejected else "no turn is left", None, rejected
    return info.image_id, None, json.dumps(rows_of(replace(answer, turns=kept), None)), rejected
