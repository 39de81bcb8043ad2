"""Reading a data set through and saying what is wrong with it."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.coco import Purpose, combine, examine, invalid_note, lacking_note, notes_of
from megdet_hvd.data.depth import MANY, all_but_black, dark_words
from megdet_hvd.data.formats import LFS_POINTER
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.large import refuse_pipe
from megdet_hvd.data.located import Located
from megdet_hvd.data.problems import Problem
from megdet_hvd.data.source import PictureSource
from megdet_hvd.data.transforms import UnreadablePicture, decode
from megdet_hvd.wording import counted

OTHER_SIZE = "picture of another size than annotated"
LFS = "git-LFS pointer in place of the picture; fetch the pictures with `git lfs pull`"

SMALL, MEDIUM = 32**2, 96**2
"""COCO's borders between small, medium and large, pixels² of ``area``."""


@dataclass(frozen=True)
class SourceReport:
    """What is in one annotation file and its pictures."""

    annotations: Path
    """The file."""
    images: Path
    """The folder of its pictures."""
    index: ImageIndex
    """Its pictures and boxes."""
    notes: list[str]
    """What does not stop training, but may not be meant."""
    decoded: int
    """Pictures decoded."""


@dataclass(frozen=True)
class DataReport:
    """What was found in annotation files and their pictures."""

    sources: list[SourceReport]
    """The files that could be understood."""
    problems: list[Problem]
    """Everything that stops training."""
    doubts: list[Problem]
    """What training only warns of: it goes on, and would hardly learn anything."""


def check_sources(
    sources: list[PictureSource],
    *,
    decode_pictures: bool,
    threads: int,
    purpose: Purpose = "train",
    progress: Callable[[int, int], None] = lambda done, total: None,
    value_range: ValueRange = "auto",
) -> DataReport:
    """Read annotation files as training does and, if asked, decode every picture.

    Args:
        sources: what to read, as one data set.
        decode_pictures: decode each picture and compare its size with the annotated one.
        threads: pictures decoded at the same time.
        purpose: by which rules: those of training, or those of evaluation.
        progress: told (pictures done, pictures in the file).
        value_range: as training will have it (``data.value_range``).

    Raises:
        StorageError: a file or folder can't be read at the moment.
    """
    examined = examine(sources, keep_empty=purpose == "val", invalid_boxes="stop", purpose=purpose)
    problems, doubts = list(examined.problems), list(examined.doubts)
    reports = []
    for one in examined.located:
        index = combine([one], keep_empty=True, purpose=purpose)
        index = replace(index, value_range=value_range)
        dark: list[str] = []
        decoded = 0
        if decode_pictures:
            present = [k for k in range(len(index)) if k not in one.missing and index.widths[k] > 0]
            unreadable = _decode_all(index, present, threads, progress, dark)
            problems += unreadable
            decoded = len(present) - len(unreadable)
            if len(dark) >= MANY * decoded > 0:
                words = dark_words(len(dark), decoded, min(dark))
                doubts.append(Problem("all but black", str(one.folder), "", words))
        notes = [*notes_of(one, purpose), *_notes(one, index, purpose)]
        notes += [f"it {note}" for note in lacking_note(one, examined.located)]
        if 0 < len(dark) < MANY * decoded:
            notes.append(dark_words(len(dark), decoded, min(dark)))
        if purpose == "val":  # in training they are a problem
            notes += invalid_note(one, purpose)
        reports.append(SourceReport(one.file.path, one.folder, index, notes, decoded))
    return DataReport(reports, problems, doubts)


def numbers(index: ImageIndex) -> list[str]:
    """What is in a data set, line by line."""
    lines = [index.counts()]
    if len(index):
        lines.append(
            f"pictures: width {_spread(index.widths)}, height {_spread(index.heights)} pixels"
        )
    kept = index.learnable
    areas = index.areas[kept]
    small, large = int((areas < SMALL).sum()), int((areas >= MEDIUM).sum())
    lines.append(f"boxes: {small} small, {len(areas) - small - large} medium, {large} large (COCO)")
    counts = np.bincount(index.labels[kept], minlength=len(index.categories) + 1)[1:]
    width = max((len(name) for name in index.categories), default=0)
    for number, name, count in zip(index.category_ids, index.categories, counts, strict=True):
        lines.append(f"  {number!s:>4} {name:<{width}} {count:>8}")
    return lines


def _decode_all(
    index: ImageIndex,
    positions: list[int],
    threads: int,
    progress: Callable[[int, int], None],
    dark: list[str],
) -> list[Problem]:
    """Pictures that can't be decoded; the files of those that are all but black go to ``dark``."""

    def fault(position: int) -> Problem | None:
        size = (int(index.widths[position]), int(index.heights[position]))
        try:
            black = all_but_black(decode(index.file(position), size, index.value_range))
            if black is not None:
                dark.append(f"{index.file(position)}{black}")
        except UnreadablePicture as error:
            where = f"image {index.original_id(position)!r}"
            file = index.file(position)
            if is_lfs_pointer(file):
                return Problem(LFS, str(file), where)
            kind = OTHER_SIZE if "annotated as" in str(error) else "unreadable picture"
            return Problem(kind, str(file), where, str(error))
        return None

    problems = []
    with ThreadPoolExecutor(max_workers=threads) as pool:  # decoders let go of the GIL
        for done, problem in enumerate(pool.map(fault, positions), start=1):
            if problem:
                problems.append(problem)
            progress(done, len(positions))
    return problems


def _notes(one: Located, index: ImageIndex, purpose: Purpose) -> list[str]:
    notes = []
    raw, owners = one.file.raw_boxes, one.file.owners
    with np.errstate(invalid="ignore", over="ignore"):
        right, bottom = raw[:, 0] + raw[:, 2], raw[:, 1] + raw[:, 3]
        outside = (raw[:, :2] < -0.5).any(axis=1)
        outside |= (right > one.widths[owners] + 0.5) | (bottom > one.heights[owners] + 0.5)
    outside &= one.valid & (one.widths[owners] > 0)
    if outside.any():
        place = int(np.flatnonzero(outside)[0])
        boxes = counted(int(outside.sum()), "box")
        become = "clipped" if purpose == "train" else "measured as they are, as pycocotools does"
        notes.append(
            f"{boxes} partly outside the picture ({become}), the first: {one.file.place(place)}"
        )
    counts = np.bincount(index.labels, minlength=len(index.categories) + 1)[1:]
    unused = [name for name, count in zip(index.categories, counts, strict=True) if not count]
    if unused:
        classes = counted(len(unused), "class")
        more = ", …" if len(unused) > 10 else ""
        notes.append(f"{classes} without a box: {', '.join(unused[:10])}{more}")
    if index.headings:
        said = ", ".join(f"{number!r}: {name!r}" for number, name in index.headings.items())
        notes.append(f"a category without boxes that others are kinds of is no class: {said}")
    repeated = [name for name, count in Counter(index.file_names).items() if count > 1]
    if repeated:
        notes.append(f"{len(repeated)} picture files are listed twice, the first: {repeated[0]}")
    return notes


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is what git leaves in place of a large one."""
    try:
        refuse_pipe(file)
        with file.open("rb") as opened:
            return opened.read(len(LFS_POINTER)) == LFS_POINTER
    except (OSError, ValueError):
        return False


def _spread(values: np.ndarray) -> str:
    return f"{values.min()} to {values.max()} (median {int(np.median(values))})"
