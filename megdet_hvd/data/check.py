"""Reading a data set through and saying what is wrong with it."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.annotations import AnnotationFile, read_annotation_file
from megdet_hvd.data.coco import combine, missing_pictures, require_same_categories
from megdet_hvd.data.depth import MANY, all_but_black, dark_words
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.problems import Problem
from megdet_hvd.data.source import Source
from megdet_hvd.data.transforms import UnreadablePicture, decode
from megdet_hvd.errors import UserError

SMALL, MEDIUM = 32**2, 96**2
"""COCO's borders between small, medium and large, pixels² of ``area``."""


@dataclass(frozen=True)
class SourceReport:
    """What was found in one annotation file and its pictures."""

    source: Source
    problems: list[Problem]
    """Everything that stops training."""
    notes: list[str] = field(default_factory=list)
    """What does not stop training, but may not be meant."""
    index: ImageIndex | None = None
    """Its pictures and usable boxes; None where the file can't be understood at all."""
    decoded: int = 0
    """Pictures decoded."""


def check_sources(
    sources: list[Source],
    *,
    decode_pictures: bool,
    threads: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    value_range: ValueRange = "auto",
) -> list[SourceReport]:
    """Read annotation files and, if asked, decode every picture.

    Args:
        sources: what to read.
        decode_pictures: decode each picture and compare its size with the annotated one.
        threads: pictures decoded at the same time.
        progress: told (pictures done, pictures in the file).
        value_range: as training will have it (``data.value_range``).
    """
    reports: list[SourceReport] = []
    first: AnnotationFile | None = None
    for source in sources:
        try:
            file = read_annotation_file(source.annotations)
        except UserError as error:
            problem = Problem("annotation file", str(source.annotations), "", str(error))
            reports.append(SourceReport(source, [problem]))
            continue
        problems = list(file.problems)
        first = first or file
        try:
            require_same_categories(
                first.categories, str(first.path), file.categories, str(file.path)
            )
        except UserError as error:
            problems.append(Problem("categories differ", str(file.path), "", str(error)))
        missing = missing_pictures(file, source.images)
        problems += missing
        index = combine([file], [source.images], keep_empty=True)
        index = replace(index, value_range=value_range)
        dark: list[str] = []
        decoded = 0
        if decode_pictures:
            absent = {problem.where for problem in missing}
            present = [p for p, i in enumerate(file.image_ids) if f"image {i}" not in absent]
            problems += _decode_all(index, present, threads, progress, dark)
            decoded = len(present)
            if len(dark) >= MANY * decoded > 0:
                words = dark_words(len(dark), decoded, min(dark))
                problems.append(Problem("all but black", str(source.images), "", words))
        notes = _notes(file, index)
        if 0 < len(dark) < MANY * decoded:
            notes.append(dark_words(len(dark), decoded, min(dark)))
        reports.append(SourceReport(source, problems, notes, index, decoded))
    return reports


def numbers(index: ImageIndex) -> list[str]:
    """What is in a data set, line by line."""
    lines = index.summary()
    if len(index):
        lines.append(
            f"pictures: width {_spread(index.widths)}, height {_spread(index.heights)} pixels"
        )
    kept = ~index.crowds
    areas = index.areas[kept]
    small, large = int((areas < SMALL).sum()), int((areas >= MEDIUM).sum())
    lines.append(f"boxes: {small} small, {len(areas) - small - large} medium, {large} large (COCO)")
    counts = np.bincount(index.labels[kept], minlength=len(index.categories) + 1)[1:]
    width = max((len(name) for name in index.categories), default=0)
    for number, name, count in zip(index.category_ids, index.categories, counts, strict=True):
        lines.append(f"  {number:>4} {name:<{width}} {count:>8}")
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
            where = f"image {index.image_ids[position]}"
            return Problem("unreadable picture", str(index.file(position)), where, str(error))
        return None

    problems = []
    with ThreadPoolExecutor(max_workers=threads) as pool:  # decoders let go of the GIL
        for done, problem in enumerate(pool.map(fault, positions), start=1):
            if problem:
                problems.append(problem)
            progress(done, len(positions))
    return problems


def _notes(file: AnnotationFile, index: ImageIndex) -> list[str]:
    notes = []
    right, bottom = file.raw_boxes[:, 0] + file.raw_boxes[:, 2], file.raw_boxes[:, 1]
    bottom = bottom + file.raw_boxes[:, 3]
    outside = (file.raw_boxes[:, :2] < -0.5).any(axis=1)
    outside |= (right > file.widths[file.owners] + 0.5) | (bottom > file.heights[file.owners] + 0.5)
    if outside.any():
        place = int(np.flatnonzero(outside)[0])
        notes.append(
            f"{int(outside.sum())} boxes reach outside their picture and are clipped, the first: "
            f"annotation {file.annotation_ids[place]}"
        )
    unused = [
        name
        for label, name in enumerate(index.categories, start=1)
        if not (index.labels == label).any()
    ]
    if unused:
        notes.append(f"{len(unused)} classes without a box: {', '.join(unused[:10])}")
    repeated = [name for name, count in Counter(index.file_names).items() if count > 1]
    if repeated:
        notes.append(f"{len(repeated)} picture files are listed twice, the first: {repeated[0]}")
    return notes


def _spread(values: np.ndarray) -> str:
    return f"{values.min()} … {int(np.median(values))} … {values.max()}"
