"""Whether this rank can read the data: annotation files, and a few pictures of its own share."""

import json
import mmap
import re
from itertools import islice
from pathlib import Path

from megdet_hvd.config.schema import DataConfig
from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.source import Source, expand_source
from megdet_hvd.data.transforms import UnreadablePicture, decode
from megdet_hvd.errors import UserError

PICTURES = 2
"""Pictures that each rank opens of each annotation file."""
_FIRST = 4096
"""They are taken from so many at the front of the file, which needn't be read to its end."""
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def file_names(annotations: Path, most: int = _FIRST) -> list[str]:
    """The first picture names in an annotation file, found without parsing all of it.

    Raises:
        OSError: it can't be read.
    """
    with annotations.open("rb") as file:
        if annotations.stat().st_size == 0:
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            # No name for the iterator: it would hold the map open.
            found = [match[1] for match in islice(_FILE_NAME.finditer(content), most)]
    return [str(json.loads(name)) for name in found]


def read_share(config: DataConfig, rank: int, size: int) -> tuple[int, str | None]:
    """Pictures that this rank has read, and the first thing that it could not read."""
    if config.kind != "coco":
        return 0, None
    read = 0
    for configured in (*config.train, *config.val):
        try:
            source = expand_source(configured)
            count, problem = _read(source, rank, size, config.value_range)
        except UserError as error:
            return read, str(error)
        read += count
        if problem is not None:
            return read, problem
    return read, None


def _read(source: Source, rank: int, size: int, value_range: ValueRange) -> tuple[int, str | None]:
    try:
        names = file_names(source.annotations)
    except (OSError, ValueError) as error:
        return 0, f"{source.annotations}: {getattr(error, 'strerror', None) or error}"
    if not names:
        return 0, f"{source.annotations}: no picture is named in it"
    # Neighbouring ranks read far apart, so that a machine sees much of the folder.
    share = names[rank % len(names) :: size] or names[:1]
    step = max(1, len(share) // PICTURES)
    for count, name in enumerate(share[::step][:PICTURES]):
        file = source.images / name
        if not file.is_file():
            return count, f"{file}: no such file"
        try:
            decode(file, value_range=value_range)
        except UnreadablePicture as error:
            return count, f"{file}: {error}"
    return min(PICTURES, len(share[::step])), None


def describe_unreadable(problems: dict[str, list[str]]) -> str:
    """The error for what could not be read: one problem a machine, by the machine's name."""
    lines = [
        f"  {machine}: {found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
        for machine, found in problems.items()
    ]
    return (
        "preflight: the data can't be read on every machine:\n"
        + "\n".join(lines[:8])
        + (f"\n  and {len(lines) - 8} more machines" if len(lines) > 8 else "")
        + "\ngive a path that all of them see, or stage the data to each (SITE_STAGING)"
    )
