"""Build Med-GRIT from a source of images and masks: list, pick, read, choose and split, write dialogues, publish.

A build that was stopped continues when it is called again, and publishes the same bytes as one that was not stopped.
They depend on the source, the settings and the seed, never on paths, time or the number of workers.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ...atomic_writes import write_text
from ...progress import progress_bar
from ..folder.left_out import LEFT_OUT, write_left_out
from ..folder.publish import rows_of
from ..folder.subsets import SIZES
from ..records import Dialogue, ImageRecord, Modality, Task, single_class_modalities
from ..sources.base import Candidate, LeftOut, Source, fingerprint
from ..sources.label_names import Spellings, spellings
from ..teachers.base import Refusal, Teacher
from ..teachers.templates import TemplateTeacher
from ..teachers.wordings import Wordings
from ..workers import batched, check_engine, in_workers
from .publish import published, write_dataset
from .reading import ReadOptions, opened, read_chunk
from .review import Review
from .review_files import read_review
from .sampling import SLICE_SPACING
from .selection import NoUsableImageError, choose
from .split import TEST_SHARE
from .state import BuildState, DialogueResult

_SCRATCH = ".build"  # in the folder of a dataset
_KEY = "key.json"  # the source and settings that the state belongs to
_STATE = Path("state", "build.sqlite")
_CHUNK = 32  # images per job of a worker, and per transaction
_ADDED = ("modality", "masks", "turns")  # settings that earlier versions do not have
_BAR_DELAY_S = 5.0  # the list is written in less, unless millions of images are left out
_SPARE = 1.25  # images read per image wanted: some are faulty, some near-duplicates


@dataclass(frozen=True)
class BuildSettings:
    """The settings that a dataset depends on, besides its source.

    limit: number of images wanted. teacher: name of the teacher that writes the dialogues. min_area: share of the image
    below which an object is ignored. pixels: whether rows hold the images; None leaves it to the source's licence.
    subsets: numbers of turns of the named parts of the training split. wordings: of the templates' questions in the
    training split; the test split has the plain ones. review: hash of the review's decisions, which the build sets
    itself. modality: of images whose source does not say it. masks: whether rows have the column `masks`. turns: most
    turns of the templates per image; by default about five.
    """

    limit: int = 60_000  # BiRD 3: about 60 K images
    seed: int = 0
    teacher: str = "templates"
    min_area: float = 0.0015
    slice_spacing: int = SLICE_SPACING
    test_share: float = TEST_SHARE
    pixels: bool | None = None
    subsets: tuple[int, ...] = SIZES
    wordings: Literal["plain", "varied"] = "varied"
    review: str | None = None
    modality: str | None = None
    masks: bool = False
    turns: int | None = None

    def values(self) -> dict[str, Any]:
        """The settings by name; those of `_ADDED` only if they are set, so that older builds stay as they are."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default or field.name not in _ADDED
        }


@dataclass(frozen=True)
class BuildContext:
    """The values that the stages of a running build share. spelled: the spellings of the source's class names."""

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
    """Build the dataset of a source into the folder `out`; returns its manifest, which is also written there.

    teacher: writes the dialogues, templates by default; its name must be `settings.teacher`. engine: where images are
    read (see workers.py); with Ray, all nodes must see the source under this path. The decisions in `out`/review are
    applied. Images that are left out are listed in `out`/left_out.csv, also if the build fails. Raises ValueError, with
    a one-line message, if the source cannot be opened, another build is running in `out`, no image can be used, the
    split leaks, or a decision cannot be understood.
    """
    with build_context(src, out, settings, workers, engine) as context:
        state = context.state
        if state.is_done("publish") and (manifest := published(out)) and (out / LEFT_OUT).is_file():
            return manifest
        with recording_left_out(state, out):
            prepare(context)
            _write_dialogues(context, teacher or TemplateTeacher(settings.seed, settings.turns))
            manifest = write_dataset(
                state, context.source.kind, context.settings.values(), out, out / _SCRATCH / "med-grit"
            )
        state.finish("publish")
        return manifest


@contextmanager
def recording_left_out(state: BuildState, folder: Path) -> Iterator[None]:
    """Write `folder`/left_out.csv after the block, and if it raises an error too; that no image is usable names it."""
    path = folder / LEFT_OUT
    try:
        yield
    except NoUsableImageError as error:
        _record_left_out(state, path)
        raise NoUsableImageError(f"{error}; {path} says which images and what to do") from None
    except Exception:
        _record_left_out(state, path)
        raise
    _record_left_out(state, path)


def _record_left_out(state: BuildState, path: Path) -> None:
    rows = progress_bar(state.left_out_rows(), desc=LEFT_OUT, unit="image", delay=_BAR_DELAY_S)
    write_left_out(rows, path)


@contextmanager
def prepared_records(
    src: Path, out: Path, settings: BuildSettings, workers: int, engine: str = "processes"
) -> Iterator[Iterator[ImageRecord]]:
    """Run the stages of `build` before the dialogues; yields the records that have no dialogue yet.

    Nothing is published; a build in the same folder continues from here. Raises ValueError as `build` does.
    """
    with build_context(src, out, settings, workers, engine) as context:
        prepare(context)
        yield context.state.chosen_records(without_dialogue=True)


@contextmanager
def built_state(out: Path) -> Iterator[tuple[BuildState, BuildSettings]]:
    """Open the state of the build in `out`, with its settings; no build can run there meanwhile.

    Raises ValueError if `out` is not the folder of a build, or its build has not listed its source yet.
    """
    key_file = out / _SCRATCH / _KEY
    if not key_file.is_file():
        raise ValueError(f"{out} is not the folder of a build; give the --out of `bird data build`")
    with _locked(out), closing(BuildState(out / _SCRATCH / _STATE)) as state:
        if not state.is_done("list"):
            raise ValueError(f"the build in {out} has not listed its source yet; run `bird data build` first")
        yield state, BuildSettings(**json.loads(key_file.read_text(encoding="utf-8"))["settings"])


@contextmanager
def build_context(
    src: Path, out: Path, settings: BuildSettings, workers: int, engine: str = "processes"
) -> Iterator[BuildContext]:
    """Open the source and the state of a build; the folder is locked meanwhile."""
    check_engine(engine)
    review = read_review(out / "review")
    settings = replace(settings, review=review.digest)
    with spellings() as spelled:  # after the review is read: only the source's own spellings count
        source = opened(src, settings.modality)
        _check_out(out)
        (out / _SCRATCH).mkdir(parents=True, exist_ok=True)
        with _locked(out), closing(_open_state(out / _SCRATCH, src, settings)) as state:
            yield BuildContext(state, source, src, settings, review, spelled, workers, engine)


def prepare(context: BuildContext) -> None:
    """Run every stage before the dialogues."""
    _list(context)
    _read(context)
    settings = context.settings
    with context.state.stage("choose") as todo:
        if todo:
            choose(context.state, settings.limit, settings.seed, settings.test_share)


def _check_out(out: Path) -> None:
    """Raises ValueError if `out` holds a dataset that is not of a build."""
    if (out / _SCRATCH / _KEY).is_file():
        return
    for name in ("README.md", "data", "manifest.json"):
        if (out / name).exists():
            raise ValueError(f"{out} holds a {name} that is not of a build; give another folder")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases even if this process is killed."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / _SCRATCH / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another build is running in {out}; wait until it ends, or give another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _open_state(scratch: Path, src: Path, settings: BuildSettings) -> BuildState:
    """Open the state of this source and these settings; a state of others is deleted first."""
    key = json.dumps({"source": fingerprint(src), "settings": settings.values()}, sort_keys=True)
    key_file, folder = scratch / _KEY, (scratch / _STATE).parent
    if not key_file.is_file() or key_file.read_text(encoding="utf-8") != key:
        key_file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_text(key_file, key)
    folder.mkdir(exist_ok=True)
    return BuildState(scratch / _STATE)


def _list(context: BuildContext) -> None:
    """Store what the source lists, and pick the images to read."""
    state, settings = context.state, context.settings
    with state.stage("list") as todo:
        if todo:
            names: Counter[tuple[str, str, str]] = Counter()
            listed = progress_bar(context.source.listed(), desc="listing", unit="image")
            state.add_listed(_reviewed(listed, context.review, names), settings.seed)
            state.add_names(names, context.spelled)
            state.pick(round(settings.limit * _SPARE), settings.slice_spacing)
    if not state.count("picked"):
        counts = state.left_out_counts().items()
        why = ", ".join(f"{count} {reason}" for reason, count in counts) or "it is empty"
        raise NoUsableImageError(f"the source has no image that can be used ({why})")


def _reviewed(
    listed: Iterable[Candidate | LeftOut], review: Review, names: Counter[tuple[str, str, str]]
) -> Iterator[Candidate | LeftOut]:
    """Yield the listed images with the review's names; counts the source's own names in `names`."""
    for item in listed:
        if isinstance(item, Candidate):
            names.update((item.info.dataset, item.info.modality.value, label) for label in item.labels)
        yield review.listed(item)


def _read(context: BuildContext) -> None:
    """Decode and check the picked images; store their records, hashes and, if rows may hold them, their pixels."""
    state, pixels = context.state, context.settings.pixels
    if state.is_done("read"):
        return
    total, done = state.count("picked"), state.count("reads")
    keep = pixels if pixels is not None else context.source.pixels_are_free
    settings = context.settings
    options = ReadOptions(
        context.src.absolute(),
        context.review,
        settings.min_area,
        settings.modality,
        keep,
        pixels is not False,
        settings.masks,
    )
    read = partial(read_chunk, options)
    jobs = batched(state.candidates_to_read(), _CHUNK)
    workers = min(context.workers, -(-(total - done) // _CHUNK))
    with progress_bar(total=total, initial=done, desc="reading", unit="image") as bar:
        for results in in_workers(read, jobs, workers, context.engine):
            with state.transaction():
                state.add_reads(results)
            bar.update(len(results))
    state.finish("read")


def _write_dialogues(context: BuildContext, teacher: Teacher) -> None:
    """Store the teacher's dialogues as rows, by rank; dialogues that are stored already are not written again."""
    state, review = context.state, context.review
    if state.is_done("words"):
        return
    single_class = single_class_modalities(state.chosen_records())
    total, done = state.count("chosen"), state.count("words")
    answers = _answers(context, teacher)
    with progress_bar(total=total, initial=done, desc="writing", unit="image") as bar:
        for batch in batched(answers, _CHUNK):
            with state.transaction():
                state.add_dialogues(_dialogue_result(answer, single_class, review) for answer in batch)
            bar.update(len(batch))
    state.finish("words")


def _answers(context: BuildContext, teacher: Teacher) -> Iterator[Dialogue | Refusal]:
    """Yield the teacher's results for the images without a dialogue; only templates have varied wordings."""
    state = context.state
    if not isinstance(teacher, TemplateTeacher) or context.settings.wordings == Wordings.PLAIN:
        yield from teacher.dialogues(state.chosen_records(without_dialogue=True))
        return
    yield from teacher.dialogues(state.chosen_records(without_dialogue=True, split="test"))
    varied = state.chosen_records(without_dialogue=True, split="train")
    yield from teacher.dialogues(varied, Wordings.VARIED)


def _dialogue_result(
    answer: Dialogue | Refusal, single_class: set[Modality], review: Review
) -> DialogueResult:
    """Return the rows of a dialogue without rejected turns, and without ROC if its modality has one class."""
    if isinstance(answer, Refusal):
        return DialogueResult(answer.image_id, answer.reason, None)
    info, turns = answer.record.info, answer.turns
    if info.modality in single_class:
        turns = tuple(turn for turn in turns if turn.task is not Task.REFERRING_CLASSIFICATION)
    kept = review.kept(info.image_id, turns)
    rejected = len(turns) - len(kept)
    if not kept:
        reason = "rejected in review" if rejected else "no turn is left"
        return DialogueResult(info.image_id, reason, None, rejected)
    return DialogueResult(info.image_id, None, rows_of(replace(answer, turns=kept), None), rejected)
