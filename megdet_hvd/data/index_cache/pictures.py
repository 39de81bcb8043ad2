"""Whether the pictures of an index are still where they were."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from megdet_hvd.data.index_cache.records import FoldersSeen
from megdet_hvd.data.picture_files import PictureFolder
from megdet_hvd.data.stamps import FolderSeen, folder_stamp


def as_before(folders: Sequence[Path], known: FoldersSeen) -> FoldersSeen | None:
    """What folders hold now, where it is what they held; None: it isn't.

    A folder is listed again where its stamp has changed or can't be believed.

    Raises:
        StorageError: a folder can't be listed at the moment.
    """
    if len(folders) != len(known):
        return None
    now: list[dict[str, FolderSeen]] = []
    for folder, of in zip(folders, known, strict=True):
        pictures, own = PictureFolder(folder), dict(of)
        for below, (stamp, digest) in of.items():
            if stamp is None or folder_stamp(folder / below) != stamp:
                own[below] = pictures.look(below)
                if own[below][1] != digest:
                    return None
        now.append(own)
    return now


def all_there(folders: Sequence[Path], names: Sequence[Iterable[str]]) -> FoldersSeen | None:
    """What folders hold in which each picture is there under just its name; None: one isn't.

    Args:
        folders: of the pictures of each source.
        names: of each source, relative to its folder.

    Raises:
        StorageError: a folder can't be listed at the moment.
    """
    seen = []
    for folder, own in zip(folders, names, strict=True):
        pictures = PictureFolder(folder)
        if not all(map(pictures.has, own)):
            return None
        seen.append(pictures.seen)
    return seen
