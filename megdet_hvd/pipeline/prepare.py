"""The first stage: all ranks read all pictures once, and scale down the large ones.

Each rank takes every N-th picture. Validation pictures are checked but never scaled, so that AP,
and what counts as a small or a large box, means what it does elsewhere.

What was found goes into a set of its own (:mod:`megdet_hvd.pipeline.place`), whose name follows
from the annotations, the pictures and ``pipeline.max_side``: where one of them is another, so is
the set. Originals are only ever read, and nothing is named by what an annotation file says.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn, TypeVar

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.comm.position import go_outside
from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.schema import AnnotationSource, Config
from megdet_hvd.data.coco import Purpose
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.index_cache.cache import HowToRead, is_worth_it, read_kept
from megdet_hvd.data.problems import Problem, report_lines
from megdet_hvd.data.scenes.cache import ensure_scenes
from megdet_hvd.data.source import PictureSource, expand_source
from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.job.agree import mark_agreed
from megdet_hvd.job.log import LOGGER
from megdet_hvd.job.meeting import Meeting
from megdet_hvd.job.world import World
from megdet_hvd.pipeline.index import Entry, Index, read_index, write_index
from megdet_hvd.pipeline.picture import (
    FileStamp,
    expected,
    is_there,
    prepare_picture,
    see,
    take_over,
)
from megdet_hvd.pipeline.place import (
    ANNOTATIONS,
    COPIES,
    clear_abandoned,
    content_digest,
    original,
    put_in_place,
    set_name,
    similar_set,
    unfinished_set,
)
from megdet_hvd.pipeline.rewrite import rewritten
from megdet_hvd.serialize import serializable
from megdet_hvd.storage import cannot_keep, cannot_read, is_transient, retried

_T = TypeVar("_T")


@serializable
@dataclass
class _Found:
    """What is known of the pictures of one source, by position; of a rank's share, or of all."""

    entries: dict[int, Entry] = field(default_factory=dict)
    problems: dict[int, Problem] = field(default_factory=dict)
    worked: int = 0
    """Pictures that had to be read."""
    changed: int = 0
    """Pictures of which the set does not know yet."""

    @property
    def scaled(self) -> int:
        """Pictures of which training reads a smaller copy."""
        return sum(entry.scaled for entry in self.entries.values())


@serializable
@dataclass(frozen=True)
class _Known:
    """What rank 0 has found on disk: the same on all ranks, whatever they see there."""

    folder: Path
    """The set that is to be made, or to be looked through."""
    entries: dict[int, Entry]
    """What the set itself says of its pictures."""
    similar: Path | None
    """Another set of the same pictures."""
    similar_entries: dict[str, Entry]
    """What that one says, by name."""


def prepare_data(config: Config, meeting: Meeting, world: World) -> Config:
    """The configuration to train with. All ranks call it together.

    It names files that this stage made: what a run keeps is ``config`` as it was given, so that it
    is prepared anew from the originals where it is carried on.

    Raises:
        UserError: on all ranks alike, where data can't be read, or pictures can't be and may not be
            skipped, or the folder can't be written.
        StorageError: on all ranks alike; the storage fails for the moment.
    """
    if config.data.kind == "own":
        return config
    began = time.monotonic()
    go_outside("preparing data")
    root = prepared_folder(config)
    train, val = _sources(config, meeting, world)
    if world.is_main:
        clear_abandoned(root)
    given = [expand_source(source) for source in config.data.train]
    problems: list[Problem] = []
    sources: list[PictureSource] = []
    pictures = worked = scaled = 0
    for number, source in enumerate([*train, *val]):
        purpose: Purpose = "train" if number < len(train) else "val"
        found, prepared = _prepare_source(source, purpose, config, root, meeting, world)
        problems += [found.problems[position] for position in sorted(found.problems)]
        pictures += len(found.entries)
        worked += found.worked
        scaled += found.scaled
        sources.append(prepared)
    unchanged = pictures - worked + len(problems)
    LOGGER.info(
        f"prepared by {world.size} ranks in {time.monotonic() - began:.1f} s: "
        f"{worked} pictures read, {unchanged} unchanged since "
        f"last time, {scaled} scaled down for training (pipeline.max_side="
        f"{config.pipeline.max_side or 'null'}), {len(problems)} unreadable"
        f"{f'; in {root}' if scaled else ''}"
    )
    train_on = sources[: len(train)]
    as_given = train_on == (given if config.data.kind == "coco" else train)
    return config if as_given else _with_sources(config, train_on, val)


def prepared_folder(config: Config) -> Path:
    """Where prepared sets are kept; all machines must share it."""
    folder = config.pipeline.folder
    if folder != "auto":
        return expand_path(folder, "pipeline.folder")
    return expand_path(config.output, "output") / "prepared"


def _sources(
    config: Config, meeting: Meeting, world: World
) -> tuple[list[PictureSource], list[PictureSource]]:
    data = config.data
    if data.kind == "coco":
        train = [original(expand_source(source)) for source in data.train]
        return train, [expand_source(source) for source in data.val]
    main = world.local_rank == 0

    def render() -> None:
        if main:
            ensure_scenes(data.scenes)

    _together(render, meeting, "scenes")
    sources: list[PictureSource] = []

    def look() -> None:  # each machine has its own
        scenes = ensure_scenes(data.scenes, render=False)
        sources.extend((scenes.train, scenes.val))

    _together(look, meeting, "scenes seen")
    return sources[:1], sources[1:]


def _prepare_source(
    source: PictureSource,
    purpose: Purpose,
    config: Config,
    root: Path,
    meeting: Meeting,
    world: World,
) -> tuple[_Found, PictureSource]:
    """What is known of one source's pictures now, and the source to train on."""
    index, content = _read(source, purpose, config, meeting, world)
    max_side = config.pipeline.max_side if purpose == "train" else None
    seen = _see_all(index, meeting, world)
    with ExitStack() as open_set:
        final = root / set_name(content, source.images, seen, max_side)
        known = _together(
            lambda: _look(source, final, root, open_set) if world.is_main else None, meeting, "set"
        )[0]
        assert known is not None, "rank 0 looks"
        wanted = [
            None
            if one is None
            else expected(one, size, max_side, position, index.file(position), index.value_range)
            for position, (one, size) in enumerate(zip(seen, _sizes(index), strict=True))
        ]
        found = _share_out(index, wanted, known, meeting, world)
        _stop_on(found.problems, config)
        _together(lambda: _finish(source, index, found, known, final, world), meeting, "written")
    return found, _use(source, final, found, meeting, world)


def _read(
    source: PictureSource, purpose: Purpose, config: Config, meeting: Meeting, world: World
) -> tuple[ImageIndex, str]:
    """The annotation file, by the rules of training or evaluation, and a digest of it."""
    how = HowToRead(True, config.data.invalid_boxes, purpose)
    is_first = world.local_rank == 0

    def read() -> tuple[ImageIndex, str]:
        index = read_kept([source], how, config.data.index_cache, makes=is_first)
        index = replace(index, value_range=config.data.value_range)
        try:
            return index, retried(lambda: content_digest(source, index))
        except OSError as error:
            raise cannot_read(source.annotations, error) from error

    def keep() -> None:
        if is_first and is_worth_it([source]):
            with suppress(UserError, StorageError):  # told by all ranks alike, below
                read_kept([source], how, config.data.index_cache, makes=True)

    if config.data.index_cache != "off":
        _together(keep, meeting, "index kept")
    own: tuple[ImageIndex, str] | None = None

    def digest() -> str:
        nonlocal own
        own = read()
        return own[1]

    digests = _together(digest, meeting, "annotations")
    assert own is not None, "else all ranks have raised"
    if len(set(digests)) > 1:
        others = [rank for rank, one in enumerate(digests) if one != digests[0]]
        raise mark_agreed(
            UserError(
                f"{source.annotations} holds something else on ranks {others} than on rank 0: it "
                "is being written, or the machines don't share it; start again once it is at rest"
            )
        )
    return own


def _see_all(index: ImageIndex, meeting: Meeting, world: World) -> list[FileStamp | None]:
    """Size and time of each picture's file, each rank looking at its share."""
    share = range(world.rank, len(index), world.size)

    def look() -> list[FileStamp | None]:
        return _in_threads(lambda position: see(index.file(position)), share, world)

    found = _together(look, meeting, "pictures")
    seen: list[FileStamp | None] = [None] * len(index)
    for rank, part in enumerate(found):
        seen[rank :: world.size] = part
    return seen


def _look(source: PictureSource, final: Path, root: Path, open_set: ExitStack) -> _Known:
    """What there is on disk. Rank 0 only."""
    try:
        if final.is_dir():  # whole, or robbed of files by a clean-up: what is missing is put back
            (final / COPIES).mkdir(exist_ok=True)
            known = read_index(final)
            return _Known(final, {} if known is None else _by_position(known), None, {})
        folder = open_set.enter_context(unfinished_set(root))
    except OSError as error:
        _cannot_write(root, error)
    similar = similar_set(root, source)
    other = None if similar is None else read_index(similar)
    if similar is None or other is None:
        return _Known(folder, {}, None, {})
    pairs = zip(other.names, other.entries, strict=True)
    return _Known(folder, {}, similar, {name: entry for name, entry in pairs if entry is not None})


def _by_position(known: Index) -> dict[int, Entry]:
    return {p: entry for p, entry in enumerate(known.entries) if entry is not None}


def _sizes(index: ImageIndex) -> list[tuple[int, int]]:
    return [(int(w), int(h)) for w, h in zip(index.widths, index.heights, strict=True)]


def _share_out(
    index: ImageIndex,
    wanted: Sequence[Entry | None],
    known: _Known,
    meeting: Meeting,
    world: World,
) -> _Found:
    """What all ranks together find out about one source."""
    copies = known.folder / COPIES

    def work(position: int) -> tuple[int, Entry | Problem, bool, bool]:
        """Position, what is known of it, whether it had to be read, whether the set knew."""
        file, entry = index.file(position), wanted[position]
        if entry is None:
            return position, Problem("missing picture file", str(file), ""), True, True
        before = known.entries.get(position)
        if _same(before, entry) and before is not None and is_there(before, copies):
            return position, before, False, True
        other = known.similar_entries.get(index.file_names[position])
        if known.similar is not None and other is not None and _same(other, entry):
            taken = take_over(other, known.similar / COPIES, entry, copies)
            if taken is not None:
                return position, taken, False, False
        done = prepare_picture(file, entry, copies, index.value_range)
        go_outside("preparing data")  # anew for each picture: a share may take long in all
        return position, done, True, isinstance(done, Problem)

    def share() -> _Found:
        own = _Found()
        positions = range(world.rank, len(index), world.size)
        try:
            results = _in_threads(work, positions, world)
        except OSError as error:
            _cannot_write(copies, error)
        for position, done, read, knew in results:
            if isinstance(done, Problem):
                own.problems[position] = done
            else:
                own.entries[position] = done
            own.worked += read
            own.changed += not knew
        return own

    everything = _Found()
    for found in _together(share, meeting, "prepared"):
        everything.entries.update(found.entries)
        everything.problems.update(found.problems)
        everything.worked += found.worked
        everything.changed += found.changed
    return everything


def _same(known: Entry | None, wanted: Entry) -> bool:
    """Whether what is known is of the same file, and for the same use."""

    def facts(entry: Entry) -> tuple[int | str, ...]:
        return (
            entry.file_bytes,
            entry.modified_ns,
            entry.width,
            entry.height,
            entry.kept_width,
            entry.kept_height,
            entry.value_range if wanted.scaled else "",
        )

    return known is not None and facts(known) == facts(wanted)


def _stop_on(problems: dict[int, Problem], config: Config) -> None:
    """Raise on all ranks alike, since all hold the same problems."""
    if problems and config.data.unreadable_images == "stop":
        lines = "\n".join(report_lines([problems[position] for position in sorted(problems)]))
        raise mark_agreed(
            UserError(
                f"{lines}\nReplace or remove these pictures, or train without them with "
                "data.unreadable_images=skip"
            )
        )


def _finish(
    source: PictureSource,
    index: ImageIndex,
    found: _Found,
    known: _Known,
    final: Path,
    world: World,
) -> None:
    """Write what was found, and give a new set its name. Rank 0 only."""
    if not world.is_main:
        return
    annotations = known.folder / ANNOTATIONS
    entries = [found.entries.get(position) for position in range(len(index))]
    try:
        if found.scaled and (known.folder != final or not annotations.exists()):
            write_bytes(annotations, rewritten(index, entries))
        if known.folder != final or found.changed:
            where = source.annotations.absolute(), source.images.absolute()
            write_index(known.folder, Index(*where, list(index.file_names), entries))
        if known.folder != final:
            put_in_place(known.folder, final)
    except OSError as error:
        _cannot_write(final, error)


def _use(
    source: PictureSource, final: Path, found: _Found, meeting: Meeting, world: World
) -> PictureSource:
    """The source to train on."""
    if not found.scaled:
        return source

    def look() -> None:
        if not (final / ANNOTATIONS).exists():
            raise UserError(
                f"{final} was written by rank 0 and is not seen by rank {world.rank}: set "
                "pipeline.folder to a folder that all machines share"
            )

    _together(look, meeting, "seen")
    return PictureSource(final / ANNOTATIONS, final / COPIES)


def _cannot_write(folder: Path, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise UserError(
            f"{folder} was made by rank 0 and is not seen here: set pipeline.folder to a folder "
            "that all machines share"
        ) from error
    if is_transient(error):
        raise StorageError(
            f"{folder}: cannot be written ({error.strerror or error}). The storage fails for the "
            "moment. Start again once it answers"
        ) from error
    raise cannot_keep(
        f"{folder}: what was prepared cannot be written",
        error,
        "make room there, or set pipeline.folder to another folder",
    ) from error


def _in_threads(work: Callable[[int], _T], positions: Sequence[int], world: World) -> list[_T]:
    with ThreadPoolExecutor(max_workers=world.cores) as pool:  # decoders let go of the GIL
        return list(pool.map(work, positions))


def _together(work: Callable[[], _T], meeting: Meeting, name: str) -> list[_T]:
    """What ``work`` returns on each rank, by rank. All ranks call it together.

    Raises:
        UserError, RunError, StorageError: on all ranks alike, the lowest rank's that has one.
    """
    value: _T | None = None
    error: UserError | RunError | StorageError | None = None
    try:
        value = work()
    except (UserError, RunError, StorageError) as raised:
        error = raised
    found = meeting.gather((value, error), f"prepare.{name}")
    errors = {rank: told for rank, (_, told) in enumerate(found) if told is not None}
    if errors:
        rank, first = next(iter(errors.items()))
        text = str(first) if len(errors) == len(found) else f"rank {rank}: {first}"
        raise mark_agreed(type(first)(text))
    return [value for value, _ in found]


def _with_sources(
    config: Config, train: Sequence[PictureSource], val: Sequence[PictureSource]
) -> Config:
    def entries(sources: Sequence[PictureSource]) -> tuple[AnnotationSource, ...]:
        return tuple(
            AnnotationSource(
                annotations=str(s.annotations.absolute()), images=str(s.images.absolute())
            )
            for s in sources
        )

    data = config.data.model_copy(
        update={"kind": "coco", "train": entries(train), "val": entries(val)}
    )
    return config.model_copy(update={"data": data})
