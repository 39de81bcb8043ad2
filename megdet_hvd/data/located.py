"""An annotation file together with its pictures: their files, their sizes, the boxes in them."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.data.annotations import AnnotationFile, clip_boxes, read_annotation_file
from megdet_hvd.data.box_form import suspicion
from megdet_hvd.data.picture_files import PictureFolder
from megdet_hvd.data.picture_size import picture_size
from megdet_hvd.data.problems import Problem, printable
from megdet_hvd.data.source import PictureSource
from megdet_hvd.data.stamps import FolderSeen

MISSING_PICTURE = "missing picture file"
NO_SIZE = "image has no width and height, and its picture can't be read"
_THREADS = 8

Sizes = Mapping[int, Callable[[], tuple[int, int] | None]]
"""By position, what gives a picture's width and height; None: they can't be told."""


@dataclass(frozen=True)
class Located:
    """An annotation file of n pictures and m boxes, and where its pictures are."""

    file: AnnotationFile
    """What the file says."""
    folder: Path
    """Where its pictures are looked for."""
    file_names: list[str]
    """n names of the files on disk, relative to ``folder``; as written where there is none."""
    widths: NDArray[np.int32]
    """(n,) pixels; where the annotations don't say, of the picture."""
    heights: NDArray[np.int32]
    """(n,) pixels, likewise."""
    boxes: NDArray[np.float32]
    """(m, 4) x1 y1 x2 y2, clipped to the picture."""
    valid: NDArray[np.bool_]
    """(m,) finite, with an area, and partly within the picture."""
    missing: frozenset[int]
    """Positions of the pictures that are not there."""
    problems: list[Problem]
    """Pictures that are missing or have no size."""
    doubts: list[Problem]
    """What looks wrong without being certain."""
    notes: list[str]
    """What was read otherwise than it is written."""
    folders: dict[str, FolderSeen]
    """The folders, below ``folder``, that were listed for it."""
    mended: bool
    """Whether pictures lie under other names than the file's."""
    sizes_read: bool
    """Whether sizes were read from pictures."""


def read_source(source: PictureSource) -> Located:
    """Read an annotation file and look its pictures up.

    Raises:
        UserError: the file is missing, not JSON, or not COCO format.
        StorageError: the file or a folder can't be read at the moment.
    """
    return locate(read_annotation_file(source.annotations), source.images)


def locate(file: AnnotationFile, folder: Path, sizes_without_file: Sizes | None = None) -> Located:
    """Look the pictures of a file up.

    ``sizes_without_file``: of pictures that lie in no file, what gives their size, by position.

    Raises:
        StorageError: a folder or a picture can't be read at the moment.
    """
    elsewhere = sizes_without_file or {}
    pictures = PictureFolder(folder)
    names, problems, notes = _look_up(file, pictures, elsewhere)
    missing = frozenset(k for k, name in enumerate(names) if name is None)
    file_names = [
        own if name is None else name for name, own in zip(names, file.file_names, strict=True)
    ]
    widths, heights = file.widths, file.heights
    unknown = [k for k in np.flatnonzero(widths == 0).tolist() if k not in missing]
    if unknown:
        widths, heights = widths.copy(), heights.copy()
        with ThreadPoolExecutor(_THREADS) as pool:
            files = [k for k in unknown if k not in elsewhere]
            found = pool.map(lambda k: picture_size(folder / file_names[k]), files)
            sizes = dict(zip(files, found, strict=True))
            sizes |= {k: elsewhere[k]() for k in unknown if k in elsewhere}
            for k in unknown:
                size = sizes[k]
                if size is None:
                    where = f"image {file.image(k)!r}"
                    problems.append(
                        Problem(NO_SIZE, str(file.path), where, _path(folder, file_names[k]))
                    )
                else:
                    widths[k], heights[k] = size
    boxes, valid = clip_boxes(file.raw_boxes, widths[file.owners], heights[file.owners])
    # A picture without a size is told by itself: its boxes are no further fault.
    valid |= (widths[file.owners] == 0) & np.isfinite(file.raw_boxes).all(axis=1)
    doubt = suspicion(file, widths, heights)
    return Located(
        file=file,
        folder=folder,
        file_names=file_names,
        widths=widths,
        heights=heights,
        boxes=boxes,
        valid=valid,
        missing=missing,
        problems=problems,
        doubts=[] if doubt is None else [doubt],
        notes=notes,
        folders=pictures.seen,
        mended=bool(notes),
        sizes_read=bool(unknown),
    )


def _look_up(
    file: AnnotationFile, pictures: PictureFolder, elsewhere: Sizes
) -> tuple[list[str | None], list[Problem], list[str]]:
    """The file of each picture, what is missing, and what was found under another name."""
    folder = pictures.folder
    names: list[str | None] = [
        name if k in elsewhere or pictures.has(name) else None
        for k, name in enumerate(file.file_names)
    ]
    mended: list[int] = []
    for k, name in enumerate(names):
        if name is None:
            names[k] = pictures.find(file.file_names[k])
            mended += [k] if names[k] is not None else []
    shared: set[str] = set()
    if mended:  # two names may not be mended to one file, unless they are one name
        meant: dict[str, set[str]] = {}
        for own, found in zip(file.file_names, names, strict=True):
            if found is not None:
                meant.setdefault(found, set()).add(own)
        shared = {found for found, owns in meant.items() if len(owns) > 1}
        for k in mended:
            if names[k] in shared:
                names[k] = None
        mended = [k for k in mended if names[k] is not None]
    problems = []
    below = None if any(names) or not names else pictures.below(file.file_names[0])
    first_missing = names.index(None) if None in names else -1
    for k, name in enumerate(names):
        if name is not None:
            continue
        own = file.file_names[k]
        detail = _path(folder, own)
        if (target := pictures.dangling(own)) is not None:
            detail += f" (a link to {printable(target)}, which is not there)"
        elif not pictures.is_listed(own):
            parent = os.path.dirname(detail)
            detail += f" (the folder {parent} does not exist or cannot be read)"
        elif shared and pictures.find(own) in shared:
            detail += f" (like another picture's it would be {pictures.find(own)}: two for one)"
        elif below is not None:
            detail += f" (it is in {folder / below}; is that the folder of the pictures?)"
        elif k == first_missing and (other := pictures.other_ending(own)) is not None:
            detail += f" (there is {other}; is that it? Then correct file_name)"
        problems.append(
            Problem(MISSING_PICTURE, str(file.path), f"image {file.image(k)!r}", detail)
        )
    notes = []
    if mended:
        first = mended[0]
        kinds = Counter(_difference(file.file_names[k], names[k] or "") for k in mended)
        notes.append(
            f"{len(mended)} pictures lie under another name than their file_name "
            f"({', '.join(kinds)}), the first: {file.file_names[first]!r} is {names[first]!r}"
        )
    return names, problems, notes


def _path(folder: Path, name: str) -> str:
    return printable(str(folder / name))


def _difference(own: str, found: str) -> str:
    if own.casefold() == found.casefold():
        return "upper and lower case"
    if "\\" in own:
        return "backslashes"
    if "://" in own:
        return "web addresses"
    if "%" in own and "%" not in found:
        return "escapes like %20"
    if own.rsplit("/", 1)[-1] == found.rsplit("/", 1)[-1]:
        return "other folders in front"
    if own.isascii() and found.isascii():
        return "other spelling"
    return "another Unicode form"
