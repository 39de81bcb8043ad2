"""COCO-format annotation files, read as one data set.

Any number of classes with any category ids; several files together; crowds kept apart. What is
wrong with the files ends the run here, before training, with the first cases named.
"""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.data.annotations import INVALID_BOX, AnnotationFile, read_annotation_file
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.problems import Problem, report_lines
from megdet_hvd.data.source import Source, expand_source
from megdet_hvd.errors import UserError
from megdet_hvd.storage import cannot_read, is_transient, retried

MISSING_PICTURE = "missing picture file"


def read_coco(
    sources: Sequence[AnnotationSource],
    *,
    keep_empty: bool,
    invalid_boxes: Literal["stop", "drop"],
) -> ImageIndex:
    """Read configured annotation files as one data set; see `read_sources`."""
    return read_sources(
        [expand_source(source) for source in sources],
        keep_empty=keep_empty,
        invalid_boxes=invalid_boxes,
    )


def read_sources(
    sources: Sequence[Source], *, keep_empty: bool, invalid_boxes: Literal["stop", "drop"]
) -> ImageIndex:
    """Read annotation files as one data set, in the order given.

    A picture whose only boxes are crowds or dropped counts as empty.

    Raises:
        UserError: whatever is wrong with the files, their categories or their pictures.
        StorageError: a file or folder can't be read at the moment.
    """
    if not sources:
        raise UserError("no annotation files were given; name at least one (data.train, data.val)")
    files = [read_annotation_file(source.annotations) for source in sources]
    folders = [source.images for source in sources]
    _stop_on_problems(files, invalid_boxes)
    for other in files[1:]:
        require_same_categories(
            files[0].categories, str(files[0].path), other.categories, str(other.path)
        )
    missing: list[Problem] = []
    for file, folder in zip(files, folders, strict=True):
        missing += missing_pictures(file, folder)
    if missing:
        lines = "\n".join(report_lines(missing))
        raise UserError(
            f"{lines}\nEvery file_name must exist under the images folder given beside its "
            f"annotation file; put the pictures there or correct data.…images"
        )
    index = combine(files, folders, keep_empty=keep_empty)
    if len(index) == 0:
        names = ", ".join(str(file.path) for file in files)
        raise UserError(f"no picture with boxes is left of {names}; nothing can be learned from it")
    return index


def require_same_categories(
    first: dict[int, str], first_name: str, second: dict[int, str], second_name: str
) -> None:
    """Refuse two sets of categories (id to name) that differ.

    Raises:
        UserError: naming each difference.
    """
    if first == second:
        return
    differences = []
    for number in sorted(first.keys() | second.keys()):
        a, b = first.get(number), second.get(number)
        if a != b:
            left = "missing" if a is None else repr(a)
            right = "missing" if b is None else repr(b)
            differences.append(f"  category {number}: {left} against {right}")
    shown = "\n".join(differences[:10])
    more = f"\n  … and {len(differences) - 10} more" if len(differences) > 10 else ""
    raise UserError(
        f"categories differ between {first_name} ({len(first)}) and {second_name} "
        f"({len(second)}):\n{shown}{more}\nAll annotation files must declare the same ids and names"
    )


def missing_pictures(file: AnnotationFile, folder: Path) -> list[Problem]:
    """The pictures of an annotation file that are not on disk.

    Lists each folder once instead of asking for each file: one request per folder instead of
    118,287 for COCO, which matters on a shared file system.
    """
    listings: dict[str, set[str] | None] = {}
    problems = []
    for image_id, name in zip(file.image_ids, file.file_names, strict=True):
        parent, base = os.path.split(str(PurePosixPath(name)))
        if parent not in listings:
            listings[parent] = _listing(folder / parent)
        listing = listings[parent]
        if listing is None or base not in listing:
            detail = str(folder / name)
            if listing is None:
                detail += f" (the folder {folder / parent} does not exist or cannot be read)"
            problems.append(Problem(MISSING_PICTURE, str(file.path), f"image {image_id}", detail))
    return problems


def combine(
    files: Sequence[AnnotationFile], folders: Sequence[Path], *, keep_empty: bool
) -> ImageIndex:
    """One index from files that declare the same categories."""
    numbers = np.asarray(list(files[0].categories), np.int64)
    owners, starts = [], 0
    for file in files:
        owners.append(file.owners + starts)
        starts += len(file.image_ids)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    crowds = np.concatenate([f.crowds for f in files])
    useful = np.bincount(owner[~crowds], minlength=starts)
    kept = np.ones(starts, np.bool_) if keep_empty else useful > 0
    order = order[kept[owner[order]]]
    offsets = np.zeros(int(kept.sum()) + 1, np.int64)
    np.cumsum(np.bincount(owner[order], minlength=starts)[kept], out=offsets[1:])
    names = [name for file in files for name in file.file_names]
    labels = np.searchsorted(numbers, np.concatenate([f.category_ids for f in files])) + 1
    sources = np.repeat(np.arange(len(files), dtype=np.int32), [len(f.image_ids) for f in files])

    return ImageIndex(
        annotation_files=tuple(f.path for f in files),
        folders=tuple(folders),
        categories=tuple(files[0].categories.values()),
        category_ids=tuple(files[0].categories),
        sources=sources[kept],
        image_ids=np.concatenate([f.image_ids for f in files])[kept],
        file_names=[name for name, keep in zip(names, kept, strict=True) if keep],
        widths=np.concatenate([f.widths for f in files])[kept],
        heights=np.concatenate([f.heights for f in files])[kept],
        offsets=offsets,
        boxes=np.concatenate([f.boxes for f in files])[order],
        labels=labels[order].astype(np.int64),
        crowds=crowds[order],
        areas=np.concatenate([f.areas for f in files])[order],
        raw_boxes=np.concatenate([f.raw_boxes for f in files])[order],
        notes=_notes(files, int((~kept).sum())),
    )


def _notes(files: Sequence[AnnotationFile], left_out: int) -> tuple[str, ...]:
    notes = []
    invalid = [p for f in files for p in f.problems if p.kind == INVALID_BOX]
    if invalid:
        notes.append(f"dropped {len(invalid)} invalid boxes, the first: {invalid[0]}")
    if left_out:
        notes.append(f"left out {left_out} pictures without boxes (data.keep_empty=false)")
    return tuple(notes)


def _stop_on_problems(files: Sequence[AnnotationFile], invalid_boxes: str) -> None:
    problems = [
        p
        for f in files
        for p in f.problems
        if not (p.kind == INVALID_BOX and invalid_boxes == "drop")
    ]
    if not problems:
        return
    fix = "Correct the annotation file"
    if any(p.kind == INVALID_BOX for p in problems):
        fix += ", or drop invalid boxes with data.invalid_boxes=drop"
    lines = "\n".join(report_lines(problems))
    raise UserError(f"{lines}\n{fix}; `python -m megdet_hvd.data check` lists them all")


def _listing(folder: Path) -> set[str] | None:
    """Names in a folder; None: it isn't there, or may not be read.

    Raises:
        StorageError: it can't be read at the moment, which says nothing of its files.
    """
    try:
        return set(retried(lambda: os.listdir(folder)))
    except OSError as error:
        if is_transient(error):
            raise cannot_read(folder, error) from error
        return None
