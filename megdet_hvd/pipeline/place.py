"""Where prepared sets lie: a folder each, named by what is in it, that appears whole.

A set is made in a folder of its own and renamed once it is complete; whoever comes second takes
the first one's, which holds the same. Sets are never deleted, since a run may be reading them;
those of one picture folder share the copies that they have in common. What a killed preparation
left behind goes, where it is certain that nobody works on it.
"""

import fcntl
import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.source import PictureSource
from megdet_hvd.job.session import machine_key
from megdet_hvd.pipeline.index import INDEX, VERSION, source_of
from megdet_hvd.pipeline.picture import FileStamp

COPIES = "images"
"""The folder of smaller copies in a set."""
ANNOTATIONS = "annotations.json"

_UNFINISHED = ".preparing-"
_OWNER = "owner.json"
_ABANDONED_S = 7 * 24 * 3600.0
"""An unfinished set in which nothing has been written for so long is nobody's."""


def content_digest(source: PictureSource, index: ImageIndex) -> str:
    """Of an annotation file: its bytes, and what was read of them."""
    digest = hashlib.sha256()
    with source.annotations.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    words = [list(index.file_names), index.categories, index.category_ids, index.value_range]
    digest.update(json.dumps(words).encode())
    arrays = (index.image_ids, index.widths, index.heights, index.offsets, index.labels)
    for array in (*arrays, index.crowds, index.areas, index.raw_boxes):
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def set_name(
    content: str, images: Path, seen: Sequence[FileStamp | None], max_side: int | None
) -> str:
    """The folder name of the set that these pictures and annotations make.

    Args:
        content: from :func:`content_digest`.
        images: folder of the pictures.
        seen: what was seen of each picture's file.
        max_side: longer side at most, pixels.
    """
    facts = [VERSION, max_side, str(images.absolute()), content, seen]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]


def original(source: PictureSource) -> PictureSource:
    """The source that a prepared set was made from, as far as it is still there; else itself."""
    folder = source.annotations.parent
    if source.annotations.name != ANNOTATIONS or source.images != folder / COPIES:
        return source
    found = source_of(folder)
    return source if found is None or not found[0].exists() else PictureSource(*found)


def similar_set(root: Path, source: PictureSource) -> Path | None:
    """A set of the same picture folder, of which much may be taken over: the newest.

    One of the same annotation file comes before others.
    """
    found = []
    with suppress(OSError):
        for index in root.glob(f"[!.]*/{INDEX}"):
            known = source_of(index.parent)
            if known is not None and known[1] == source.images.absolute():
                same = known[0] == source.annotations.absolute()
                found.append((same, index.stat().st_mtime_ns, index.parent))
    return max(found)[2] if found else None


@contextmanager
def unfinished_set(root: Path) -> Iterator[Path]:
    """A new folder to make a set in; gone afterwards, unless it has been renamed. Rank 0 only.

    Raises:
        OSError: it can't be made.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{_UNFINISHED}{secrets.token_hex(8)}"
    folder.mkdir()
    try:
        with (folder / _OWNER).open("w", encoding="utf-8") as owner:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            json.dump(machine_key(), owner)
            owner.flush()
            (folder / COPIES).mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, final: Path) -> None:
    """Give an unfinished set its name, unless somebody else's set has it by now.

    Raises:
        OSError: it can't be renamed.
    """
    with suppress(OSError):
        (folder / _OWNER).unlink()
    try:
        folder.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def clear_abandoned(root: Path) -> None:
    """Delete what killed preparations left: never a set, and nothing that may be worked on."""
    with suppress(OSError):
        for folder in root.glob(f"{_UNFINISHED}*"):
            with suppress(OSError, ValueError):
                if _abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    with (folder / _OWNER).open(encoding="utf-8") as owner:
        here = json.load(owner) == list(machine_key())
        newest = max(path.stat().st_mtime for path in (folder, folder / COPIES))
        if time.time() - newest > _ABANDONED_S:
            return True
        if not here:  # a lock of another machine may not be seen here
            return False
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
