"""Whether this rank can read the data: annotation files, and a few pictures of its own share."""

from megdet_hvd.config.schema import DataConfig
from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.first_names import first_names
from megdet_hvd.data.picture_files import PictureFolder
from megdet_hvd.data.source import PictureSource, expand_source
from megdet_hvd.data.transforms import UnreadablePicture, decode
from megdet_hvd.errors import UserError
from megdet_hvd.storage import cannot_read, is_transient, retried

PICTURES = 2
"""Pictures that each rank opens of each annotation file."""
_FIRST = 4096
"""They are taken from so many at the front of the file, which needn't be read to its end."""


def read_share(config: DataConfig, rank: int, size: int) -> tuple[int, str | None]:
    """Pictures that this rank has read, and the first thing that it could not read.

    Raises:
        StorageError: storage fails at the moment, which says nothing of the data.
    """
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


def _read(
    source: PictureSource, rank: int, size: int, value_range: ValueRange
) -> tuple[int, str | None]:
    try:
        names = retried(lambda: first_names(source.annotations, _FIRST))
    except OSError as error:
        if is_transient(error):
            raise cannot_read(source.annotations, error) from error
        return 0, f"{source.annotations}: {error.strerror or error}"
    except UserError as error:
        return 0, str(error)
    if not names:
        return 0, f"{source.annotations}: no picture is named in it"
    # Neighbouring ranks read far apart, so that a machine sees much of the folder.
    share = names[rank % len(names) :: size] or names[:1]
    step = max(1, len(share) // PICTURES)
    pictures = PictureFolder(source.images)
    for count, name in enumerate(share[::step][:PICTURES]):
        try:
            there = retried((source.images / name).is_file)
        except OSError as error:
            raise cannot_read(source.images / name, error) from error
        found = name if there else pictures.find(name)
        file = source.images / (name if found is None else found)
        if found is None:
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
