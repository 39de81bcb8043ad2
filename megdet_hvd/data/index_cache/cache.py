"""Annotation files as one data set, from the index that is kept of them, or anew.

An index is found by the SHA-256 of the annotation files, by how they were to be read, and by the
code that read them. It is believed where its checksums hold and the pictures are where they were:
as long as the stamps of their folders say so, or after these have been listed again. Whatever
speaks against it, and any error on the way, means reading the annotation files as without a cache.
"""

import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from megdet_hvd import __version__
from megdet_hvd.data.coco import Purpose, examine, index_or_stop, read_sources
from megdet_hvd.data.disks import on_local_disk
from megdet_hvd.data.freed_memory import give_back
from megdet_hvd.data.ids import Id
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.index_cache.arrays import DamagedArraysError, map_arrays, read_arrays
from megdet_hvd.data.index_cache.folder import (
    INDEX_ENDING,
    LOCK_ENDING,
    UnusableFolderError,
    clear_old,
    index_folder,
    mark_used,
)
from megdet_hvd.data.index_cache.pictures import all_there, as_before
from megdet_hvd.data.index_cache.records import digest_of, note_pictures_seen, pictures_seen
from megdet_hvd.data.index_cache.stored import as_index, kept_names, write_index_file
from megdet_hvd.data.located import Located
from megdet_hvd.data.source import PictureSource

LOGGER = logging.getLogger("megdet_hvd")

WORTH_IT_BYTES = 4 << 20
"""Smaller annotation files are read each time: it takes a few tenths of a second."""
LONGEST_WAIT_S = 300.0
"""For another program that reads the same files; one that stands still must not hold us."""
_LOOK_S = 0.1


@dataclass(frozen=True)
class HowToRead:
    """Arguments of :func:`megdet_hvd.data.coco.read_sources`."""

    keep_empty: bool
    invalid_boxes: Literal["stop", "drop"]
    purpose: Purpose = "train"
    categories: Collection[Id] = ()

    def key(self, digests: Sequence[str]) -> str:
        """What the index of files with these digests, read so by this code, is kept under."""
        known = sorted(repr(one) for one in self.categories)
        words = [_code(), list(digests), self.keep_empty, self.invalid_boxes, self.purpose, known]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:40]


def is_worth_it(sources: Sequence[PictureSource]) -> bool:
    """Whether an index of these files is kept: they are large, and files."""
    try:
        found = [os.stat(source.annotations) for source in sources]
    except (OSError, ValueError):
        return False  # what is wrong is for their reader to say
    plain = all(stat.S_ISREG(one.st_mode) for one in found)
    return plain and sum(one.st_size for one in found) >= WORTH_IT_BYTES


def read_kept(
    sources: Sequence[PictureSource], how: HowToRead, setting: str, *, makes: bool
) -> ImageIndex:
    """What `read_sources` says of the files, from the index kept of them where there is one.

    Args:
        sources: the files, in order.
        how: to read them.
        setting: ``data.index_cache``.
        makes: whether this process makes the index where there is none; one a machine does.

    Raises:
        UserError, StorageError: as `read_sources` does.
    """
    if not is_worth_it(sources):
        return _read(sources, how)
    say = LOGGER.warning if makes else LOGGER.info
    try:
        folder = index_folder(setting)
        if folder is None:
            return _read(sources, how)
        digests = [digest_of(source.annotations, folder) for source in sources]
        file = folder / f"{how.key(digests)}{INDEX_ENDING}"
        found = _find(file, sources)
    except (OSError, UnusableFolderError) as error:
        say(
            f"the index of the annotation files is not kept: {_reason(error)}; data.index_cache "
            "names another folder, or off"
        )
        return _read(sources, how)
    if found is not None:
        return found
    if not makes:
        return _read(sources, how)
    with _turn(file) as ours:
        found = _find(file, sources, LOGGER.debug)  # another program may have made it meanwhile
        if found is not None:
            return found
        if not ours:
            return _read(sources, how)
        return _make(file, sources, how)


def _read(sources: Sequence[PictureSource], how: HowToRead) -> ImageIndex:
    return read_sources(
        sources,
        keep_empty=how.keep_empty,
        invalid_boxes=how.invalid_boxes,
        purpose=how.purpose,
        categories=how.categories,
    )


def _find(
    file: Path, sources: Sequence[PictureSource], say: Callable[[str], None] = LOGGER.warning
) -> ImageIndex | None:
    """The index in a file, of pictures that are there; None: it is to be made.

    ``say`` is told of a file that is damaged.

    Raises:
        StorageError: a folder of pictures can't be listed at the moment.
    """
    annotations = [source.annotations for source in sources]
    folders = [source.images for source in sources]
    arrays: Any
    try:
        if on_local_disk(file):
            arrays = map_arrays(file)
            facts = arrays.facts
        else:
            facts, arrays = read_arrays(file)
        told = facts["told_paths"]
        if told is not None and told != _paths(sources):
            return None
        index = as_index(facts, arrays, annotations, folders)
    except FileNotFoundError:
        return None
    except (OSError, DamagedArraysError, LookupError, TypeError, ValueError) as error:
        say(f"{file}: made anew: {_reason(error)}")
        return None
    known = pictures_seen(file, folders)
    now = None if known is None else as_before(folders, known)
    if now is None and facts["by_name"]:
        now = all_there(folders, kept_names(facts, arrays))
    if now is None:
        return None
    if now != known:
        note_pictures_seen(file, folders, now)
    mark_used(file)
    return index


def _make(file: Path, sources: Sequence[PictureSource], how: HowToRead) -> ImageIndex:
    LOGGER.info(
        f"reading {', '.join(str(source.annotations) for source in sources)}; the next time it "
        f"comes from {file}"
    )
    examined = examine(
        sources,
        keep_empty=how.keep_empty,
        invalid_boxes=how.invalid_boxes,
        purpose=how.purpose,
        categories=how.categories,
    )
    index = index_or_stop(examined, how.purpose)
    located = examined.located
    if any(one.sizes_read for one in located):  # of pictures that may be others the next time
        return index
    file = file.with_name(f"{how.key([one.file.sha256 for one in located])}{INDEX_ENDING}")
    folders = [source.images for source in sources]
    try:
        clear_old(file.parent)
        names = [one.file_names for one in located]
        write_index_file(file, index, names, _facts(index, sources, located))
        note_pictures_seen(file, folders, [one.folders for one in located])
        found = _find(file, sources)
    except OSError as error:
        LOGGER.warning(
            f"{file} can't be written ({_reason(error)}): each process keeps the index of the "
            "annotation files in memory of its own, and reads them again the next time; "
            "data.index_cache names another folder"
        )
        found = None
    if found is None:
        return index
    del examined, located, index, names
    give_back()
    return found


def _facts(
    index: ImageIndex, sources: Sequence[PictureSource], located: Sequence[Located]
) -> dict[str, Any]:
    paths = _paths(sources)
    texts = [*index.notes, *index.doubts]
    told = any(path in text for path in paths for text in texts)
    return {
        "told_paths": paths if told else None,
        "by_name": not any(one.mended for one in located),
    }


def _paths(sources: Sequence[PictureSource]) -> list[str]:
    return [str(path) for source in sources for path in (source.annotations, source.images)]


@contextmanager
def _turn(file: Path) -> Iterator[bool]:
    """Hold the making of a file against other programs, waiting for them; whether it is ours."""
    try:
        lock = file.with_suffix(LOCK_ENDING).open("a", encoding="utf-8")
    except OSError:
        yield True  # it can't be written either, which its writer says
        return
    with lock:
        yield _taken(lock, file)


def _taken(lock: Any, file: Path) -> bool:
    until, said = time.monotonic() + LONGEST_WAIT_S, False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if not said:
                LOGGER.info(f"another program is making {file}; waiting for it")
                said = True
        except OSError:  # a file system without locks: the last to finish wins, all have the same
            return True
        if time.monotonic() > until:
            LOGGER.warning(
                f"{file}: another program has been making it for {LONGEST_WAIT_S:g} s; reading the "
                "annotation files without it"
            )
            return False
        time.sleep(_LOOK_S)


@cache
def _code() -> str:
    """Digest of the code that reads annotation files: what another version made is another's."""
    digest = hashlib.sha256(__version__.encode())
    here = Path(__file__).parent
    for source in sorted([*here.glob("*.py"), *here.parent.glob("*.py")]):
        with suppress(OSError):
            digest.update(f"{source.name} ".encode() + source.read_bytes())
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror or error}"
    return str(error) or type(error).__name__
