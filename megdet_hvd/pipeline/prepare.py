"""The first stage: all ranks read all pictures once, and scale down the large ones.

Each rank takes every N-th picture. Validation pictures are checked but never scaled, so that AP,
and what counts as a small or a large box, means what it does elsewhere.
"""

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from megdet_hvd.checkpoint.atomic import cannot_write
from megdet_hvd.comm.agree import mark_agreed
from megdet_hvd.comm.meeting import Meeting
from megdet_hvd.comm.position import go_outside
from megdet_hvd.comm.world import World
from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.schema import AnnotationSource, Config
from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.annotations import read_annotation_file
from megdet_hvd.data.problems import Problem, report_lines
from megdet_hvd.data.scenes.cache import ensure_scenes
from megdet_hvd.data.source import Source, expand_source
from megdet_hvd.engine.log import LOGGER
from megdet_hvd.errors import UserError
from megdet_hvd.pipeline.index import Entry, read_index, write_index
from megdet_hvd.pipeline.picture import prepare_picture
from megdet_hvd.pipeline.rewrite import rewrite


@dataclass
class _Found:
    """What a rank has found out about its pictures of one source."""

    entries: dict[str, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    worked: int = 0
    """Pictures that had to be read."""


def prepare_data(config: Config, meeting: Meeting, world: World) -> Config:
    """The configuration to train with. All ranks call it together.

    Raises:
        UserError: on all ranks alike, where pictures can't be read and may not be skipped; on
            one rank, where the folder can't be written.
    """
    began = time.monotonic()
    go_outside("preparing data")
    train, val = _sources(config, meeting, world)
    totals = _Found()
    sources: list[Source] = []
    pictures = scaled = 0
    for number, source in enumerate([*train, *val]):
        max_side = config.pipeline.max_side if number < len(train) else None
        folder = prepared_folder(config) / prepared_name(source)
        found = _share_out(source, folder, max_side, config.data.value_range, meeting, world)
        totals.problems += found.problems
        totals.worked += found.worked
        pictures += len(found.entries)
        scaled += sum(entry.scaled for entry in found.entries.values())
        _stop_on(totals.problems, config)
        sources.append(_use(source, folder, found, meeting, world))
    LOGGER.info(
        f"prepared by {world.size} ranks in {time.monotonic() - began:.1f} s: "
        f"{totals.worked} pictures read, {pictures - totals.worked} unchanged since "
        f"last time, {scaled} scaled down for training (pipeline.max_side="
        f"{config.pipeline.max_side or 'null'}), {len(totals.problems)} unreadable"
    )
    train_on = sources[: len(train)]
    return config if train_on == train else _with_sources(config, train_on, val)


def prepared_folder(config: Config) -> Path:
    """Where prepared data is kept; all machines must share it."""
    folder = config.pipeline.folder
    if folder != "auto":
        return expand_path(folder, "pipeline.folder")
    return expand_path(config.output, "output") / "prepared"


def prepared_name(source: Source) -> str:
    """The folder of one annotation file; equal names elsewhere have another."""
    digest = hashlib.sha256(str(source.annotations.absolute()).encode()).hexdigest()
    return f"{source.annotations.stem}-{digest[:8]}"


def _sources(config: Config, meeting: Meeting, world: World) -> tuple[list[Source], list[Source]]:
    data = config.data
    if data.kind == "coco":
        return [expand_source(s) for s in data.train], [expand_source(s) for s in data.val]
    if world.local_rank == 0:
        ensure_scenes(data.scenes)
    meeting.gather(None, "scenes")
    scenes = ensure_scenes(data.scenes, render=False)
    return [scenes.train], [scenes.val]


def _share_out(
    source: Source,
    folder: Path,
    max_side: int | None,
    value_range: ValueRange,
    meeting: Meeting,
    world: World,
) -> _Found:
    """What all ranks together find out about one source."""
    file = read_annotation_file(source.annotations)
    known = read_index(folder / "index.json")
    own = _Found()

    def work(position: int) -> None:
        name = file.file_names[position]
        size = int(file.widths[position]), int(file.heights[position])
        done = prepare_picture(
            source.images / name,
            name,
            size,
            max_side,
            folder / "images",
            known.get(name),
            value_range,
        )
        go_outside("preparing data")  # anew for each picture: a share may take long in all
        if isinstance(done, Problem):
            own.problems.append(done)
        else:
            own.entries[name] = done[0]
            own.worked += done[1]

    try:
        with ThreadPoolExecutor(max_workers=world.cores) as pool:  # decoders let go of the GIL
            list(pool.map(work, range(world.rank, len(file.file_names), world.size)))
    except OSError as error:
        raise cannot_write(folder, error) from error
    everything = _Found()
    for found in meeting.gather(own, "prepared"):
        everything.entries.update(found.entries)
        everything.problems += found.problems
        everything.worked += found.worked
    everything.problems.sort(key=str)
    return everything


def _stop_on(problems: Sequence[Problem], config: Config) -> None:
    """Raise on all ranks alike, since all hold the same problems."""
    if not problems:
        return
    lines = "\n".join(report_lines(problems))
    if config.data.unreadable_images == "stop":
        raise mark_agreed(
            UserError(
                f"{lines}\nReplace or remove these pictures, or train without them with "
                "data.unreadable_images=skip"
            )
        )


def _use(source: Source, folder: Path, found: _Found, meeting: Meeting, world: World) -> Source:
    """Write what was found; the source to train on."""
    scaled = any(entry.scaled for entry in found.entries.values())
    out = folder / "annotations.json"
    if world.is_main and (found.worked or (scaled and not out.exists())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "images").mkdir(exist_ok=True)
            if scaled:
                rewrite(source, found.entries, out)
            write_index(folder / "index.json", found.entries)
        except OSError as error:
            raise cannot_write(folder, error) from error
    meeting.gather(None, "written")
    if not scaled:
        return source
    if not out.exists():
        raise UserError(
            f"{out} was written by rank 0 and is not seen by rank {world.rank}: set "
            "pipeline.folder to a folder that all machines share"
        )
    return Source(out, folder / "images")


def _with_sources(config: Config, train: Sequence[Source], val: Sequence[Source]) -> Config:
    def entries(sources: Sequence[Source]) -> tuple[AnnotationSource, ...]:
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
