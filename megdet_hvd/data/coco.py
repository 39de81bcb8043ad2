"""COCO-format annotation files, read as one data set.

Any number of classes with any category ids; several files together; crowds kept apart.
:func:`examine` holds the rules and finds everything wrong, for the checker; :func:`read_sources`
runs the same and ends the run here, before training, with the first cases named.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from megdet_hvd.data.annotations import AnnotationFile
from megdet_hvd.data.ids import Id, in_order
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.located import MISSING_PICTURE, Located, read_source
from megdet_hvd.data.problems import Problem, report_lines
from megdet_hvd.data.source import PictureSource
from megdet_hvd.errors import UserError
from megdet_hvd.grouping import grouped
from megdet_hvd.wording import counted, first_of

INVALID_BOX = "invalid box (NaN, no area, or wholly outside its picture)"
NOT_FINITE = "box with NaN or infinity, which nothing can be measured against"
WHOLE_FILE = "annotation file"
OTHER_CATEGORIES = "categories differ"
NOTHING = "nothing is left"

Purpose = Literal["train", "val"]
"""Training learns from boxes; validation measures against the file as it is."""


@dataclass(frozen=True)
class Examined:
    """What the rules say of annotation files read as one data set."""

    located: list[Located]
    """The files that could be read, in order."""
    problems: list[Problem] = field(default_factory=list)
    """Everything that stops the run."""
    index: ImageIndex | None = None
    """The data set; None where something is wrong with it."""

    @property
    def doubts(self) -> list[Problem]:
        """What looks wrong, and doesn't stop the run."""
        return [doubt for one in self.located for doubt in one.doubts]


def read_sources(
    sources: Sequence[PictureSource],
    *,
    keep_empty: bool,
    invalid_boxes: Literal["stop", "drop"],
    purpose: Purpose = "train",
    categories: Collection[Id] = (),
) -> ImageIndex:
    """Read annotation files as one data set, in the order given; see `examine`.

    Raises:
        UserError: whatever is wrong with the files, their categories or their pictures.
        StorageError: a file or folder can't be read at the moment.
    """
    if not sources:
        raise UserError("no annotation files were given; name at least one (data.train, data.val)")
    examined = examine(
        sources,
        keep_empty=keep_empty,
        invalid_boxes=invalid_boxes,
        purpose=purpose,
        categories=categories,
    )
    return index_or_stop(examined, purpose)


def index_or_stop(examined: Examined, purpose: Purpose) -> ImageIndex:
    """The data set.

    Raises:
        UserError: there is none, and why.
    """
    if examined.index is None:
        raise UserError(_stop(examined.problems, purpose))
    return examined.index


def examine(
    sources: Sequence[PictureSource],
    *,
    keep_empty: bool,
    invalid_boxes: Literal["stop", "drop"],
    purpose: Purpose = "train",
    categories: Collection[Id] = (),
) -> Examined:
    """Read annotation files as one data set, and find everything wrong with it.

    A picture with nothing to learn from (crowds, boxes marked ignore, dropped ones) counts as
    empty.

    Args:
        sources: the files, in order.
        keep_empty: keep pictures without boxes to learn from.
        invalid_boxes: ``stop``: a box without area, or wholly outside, is a problem in training;
            ``drop``: it isn't learned from. Truth to be measured against stays as the file has it.
        purpose: what the pictures are for.
        categories: ids to keep even where they look like a mere heading; those of training.

    Raises:
        StorageError: a file or folder can't be read at the moment.
    """
    located: list[Located] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            one = read_source(source)
        except UserError as error:
            problems.append(Problem(WHOLE_FILE, str(source.annotations), "", str(error)))
            continue
        located.append(one)
    return _examined(
        located,
        problems,
        keep_empty=keep_empty,
        invalid_boxes=invalid_boxes,
        purpose=purpose,
        categories=categories,
    )


def index_of(
    located: Sequence[Located],
    *,
    keep_empty: bool,
    invalid_boxes: Literal["stop", "drop"],
    purpose: Purpose,
    categories: Collection[Id] = (),
) -> ImageIndex:
    """One data set of annotations that have been read; arguments as `examine` has them.

    Raises:
        UserError: whatever is wrong with them.
    """
    examined = _examined(
        list(located),
        [],
        keep_empty=keep_empty,
        invalid_boxes=invalid_boxes,
        purpose=purpose,
        categories=categories,
    )
    return index_or_stop(examined, purpose)


def _examined(
    located: list[Located],
    problems: list[Problem],
    *,
    keep_empty: bool,
    invalid_boxes: Literal["stop", "drop"],
    purpose: Purpose,
    categories: Collection[Id],
) -> Examined:
    for one in located:
        problems += one.file.problems
        problems += _invalid(one, purpose, invalid_boxes)
    all_of_them = _fullest(located) if located else None
    for other in located:
        if all_of_them is None or other.file is all_of_them:
            continue
        first, second = all_of_them, other.file
        try:
            require_known_categories(
                first.categories, str(first.path), second.categories, str(second.path)
            )
        except UserError as error:
            problems.append(Problem(OTHER_CATEGORIES, str(second.path), "", str(error)))
    for one in located:
        problems += one.problems
    if problems:
        return Examined(located, problems)
    index = combine(located, keep_empty=keep_empty, purpose=purpose, categories=categories)
    if len(index) == 0:
        return Examined(located, [_nothing(located)])
    return Examined(located, [], index)


def require_known_categories(
    first: Mapping[Id, str], first_name: str, second: Mapping[Id, str], second_name: str
) -> None:
    """Refuse a second set of categories (id to name) that aren't all in the first.

    Tools write the classes that occur into each file, so one may lack some: its numbers are the
    same with and without a class that has no truth. Another name or id means something else. A name
    that was told apart from another's (:func:`_distinct`) is the file's own.

    Raises:
        UserError: naming each difference.
    """
    if all(first.get(number) in (name, _apart(name, number)) for number, name in second.items()):
        return
    differences = []
    for number in in_order(first.keys() | second.keys()):
        a, b = first.get(number), second.get(number)
        if a != b and (b is None or a != _apart(b, number)):
            left = "missing" if a is None else repr(a)
            right = "missing" if b is None else repr(b)
            differences.append(f"  category {number!r}: {left} against {right}")
    shown = "\n".join(differences[:10])
    more = f"\n  … and {len(differences) - 10} more" if len(differences) > 10 else ""
    raise UserError(
        f"categories differ between {first_name} ({len(first)}) and {second_name} "
        f"({len(second)}):\n{shown}{more}\nThe second may lack some; the others must have the same "
        "ids and names"
    )


def lacking(known: Mapping[Id, str], own: Collection[Id]) -> str | None:
    """The categories that a file lacks of those that are known, in words; None: it has all."""
    names = [f"{number} {name!r}" for number, name in known.items() if number not in own]
    return first_of(names, 5) if names else None


def lacking_note(one: Located, located: Sequence[Located]) -> list[str]:
    """What is to be said of a file that lacks categories which others of the data set declare."""
    absent = lacking(_fullest(located).categories, one.file.categories)
    if absent is None:
        return []
    return [f"declares no category {absent}: what of it is in its pictures counts as background"]


def _fullest(located: Sequence[Located]) -> AnnotationFile:
    """The first of the files that declare the most categories."""
    return max((one.file for one in located), key=lambda file: len(file.categories))


def combine(
    located: Sequence[Located],
    *,
    keep_empty: bool,
    purpose: Purpose = "train",
    categories: Collection[Id] = (),
) -> ImageIndex:
    """One index from files of which one declares the categories of all."""
    files = [one.file for one in located]
    fullest = _fullest(located)
    declared = fullest.categories
    used = {number for file in files for number in file.categories.keys() - file.roots}
    headings = fullest.roots - used - set(categories)
    names = _distinct(declared, fullest.roots)
    left_out = {number: names[number] for number in declared if number in headings}
    classes = {number: names[number] for number in declared if number not in headings}
    label_of = {number: label for label, number in enumerate(classes, start=1)}
    owners, labels, starts = [], [], 0
    for file in files:
        owners.append(file.owners + starts)
        starts += len(file.image_ids)
        table = np.asarray([label_of.get(number, 0) for number in file.categories], np.int64)
        labels.append(table[file.classes])
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    crowds = np.concatenate([f.crowds for f in files])
    learnable = ~crowds & ~np.concatenate([f.ignored for f in files])
    learnable &= np.concatenate([one.valid for one in located])
    useful = np.bincount(owner[learnable], minlength=starts)
    kept = np.ones(starts, np.bool_) if keep_empty else useful > 0
    order = order[kept[owner[order]]]
    offsets = np.zeros(int(kept.sum()) + 1, np.int64)
    np.cumsum(np.bincount(owner[order], minlength=starts)[kept], out=offsets[1:])
    file_names = [name for one in located for name in one.file_names]
    sources = np.repeat(np.arange(len(files), dtype=np.int32), [len(f.image_ids) for f in files])
    original = None
    if any(file.original_ids is not None for file in files):
        ids = [id_ for f in files for id_ in (f.original_ids or f.image_ids.tolist())]
        original = tuple(id_ for id_, keep in zip(ids, kept, strict=True) if keep)

    return ImageIndex(
        annotation_files=tuple(f.path for f in files),
        folders=tuple(one.folder for one in located),
        categories=tuple(classes.values()),
        category_ids=tuple(classes),
        headings=left_out,
        sources=sources[kept],
        image_ids=np.concatenate([f.image_ids for f in files])[kept],
        original_ids=original,
        file_names=[name for name, keep in zip(file_names, kept, strict=True) if keep],
        widths=np.concatenate([one.widths for one in located])[kept],
        heights=np.concatenate([one.heights for one in located])[kept],
        offsets=offsets,
        boxes=np.concatenate([one.boxes for one in located])[order],
        labels=np.concatenate(labels)[order].astype(np.int64),
        crowds=crowds[order],
        learnable=learnable[order],
        areas=np.concatenate([f.areas for f in files])[order],
        raw_boxes=np.concatenate([f.raw_boxes for f in files])[order],
        notes=(
            *_notes(located, purpose, left_out, names),
            *(
                [
                    f"left out {counted(int((~kept).sum()), 'picture')} without boxes to learn "
                    "from (data.keep_empty=false)"
                ]
                if not kept.all()
                else []
            ),
        ),
        doubts=(
            *(f"{d.kind}: {d}" for one in located for d in one.doubts),
            *((_nothing(located).detail,) if purpose == "train" and not learnable.any() else ()),
        ),
    )


def notes_of(one: Located, purpose: Purpose) -> list[str]:
    """What is to be said of one file that stops nothing, invalid boxes aside."""
    notes = [*one.file.notes, *one.notes]
    if purpose == "val":
        notes += one.file.truth_notes
        if not one.file.annotated:
            notes.append("the file has no annotations: there is no ground truth to measure against")
        elif one.file.crowds.all():
            count = len(one.file.crowds)
            said = f"all {count} boxes are crowds (iscrowd)" if count else "it has no boxes"
            notes.append(f"there is no ground truth to measure against: {said}")
    return notes


def invalid_note(one: Located, purpose: Purpose) -> list[str]:
    """What becomes of the invalid boxes of one file, where they don't stop the run."""
    invalid = np.flatnonzero(~one.valid)
    if not len(invalid):
        return []
    first = _invalid_box(one, int(invalid[0]), INVALID_BOX)
    if purpose == "train":
        return [f"dropped {len(invalid)} invalid boxes, the first: {first}"]
    return [
        f"{len(invalid)} boxes of the truth have no area or lie outside their pictures; they count "
        f"as never found, as pycocotools has it. The first: {first}"
    ]


def _notes(
    located: Sequence[Located],
    purpose: Purpose,
    headings: Mapping[Id, str],
    names: Mapping[Id, str],
) -> list[str]:
    several = len(located) > 1
    notes = []
    for one in located:
        before = f"{one.file.path}: " if several else ""
        notes += [before + n for n in (*notes_of(one, purpose), *invalid_note(one, purpose))]
    declared = _fullest(located).categories
    notes += [f"{one.file.path} {note}" for one in located for note in lacking_note(one, located)]
    if headings:
        said = ", ".join(f"{number} {declared[number]!r}" for number in headings)
        notes.append(f"category {said} is a heading without boxes and is left out as a class")
    renamed = [n for n in declared if n not in headings and names[n] != declared[n]]
    if renamed:
        said = ", ".join(f"{number}: {names[number]!r}" for number in renamed[:5])
        notes.append(f"{len(renamed)} categories have another's name and are told apart: {said}")
    return notes


def _distinct(declared: Mapping[Id, str], roots: Collection[Id]) -> dict[Id, str]:
    """Names that differ: of those alike the first keeps it, headings last."""
    taken: set[str] = set()
    names: dict[Id, str] = {}
    for number in sorted(declared, key=lambda one: one in roots):
        name = declared[number]
        if name in taken:
            name = _apart(name, number)
        while name in taken or (name != declared[number] and name in declared.values()):
            name += "'"
        taken.add(name)
        names[number] = name
    return names


def _apart(name: str, number: Id) -> str:
    return f"{name} (id {number})"


def _invalid(one: Located, purpose: Purpose, invalid_boxes: str) -> list[Problem]:
    """The boxes that stop the run."""
    if invalid_boxes == "drop":
        return []
    rows, kind = ~one.valid, INVALID_BOX
    if purpose == "val":
        rows, kind = ~np.all(np.isfinite(one.file.raw_boxes), axis=1), NOT_FINITE
    return [_invalid_box(one, int(row), kind) for row in np.flatnonzero(rows)]


def _invalid_box(one: Located, row: int, kind: str) -> Problem:
    file, owner = one.file, int(one.file.owners[row])
    shown = [float(value) for value in file.raw_boxes[row]]
    size = f"picture {one.widths[owner]}×{one.heights[owner]}"
    return Problem(kind, str(file.path), file.place(row), f"bbox {shown}, {size}")


def _nothing(located: Sequence[Located]) -> Problem:
    """Why no picture is left to work with."""
    names = ", ".join(str(one.file.path) for one in located)
    boxes = sum(len(one.valid) for one in located)
    causes = []
    if not any(one.file.annotated for one in located):
        causes.append("the file has no annotations, as a test set: it can only be evaluated on")
    for rows, cause in (
        ([one.file.crowds for one in located], "are crowds (iscrowd)"),
        ([one.file.ignored for one in located], "are marked ignore or difficult"),
        ([~one.valid for one in located], "are invalid and dropped"),
    ):
        count = sum(int(row.sum()) for row in rows)
        if count:
            causes.append(f"{'all ' if count == boxes else ''}{count} boxes {cause}")
    causes += [note for one in located for note in one.file.notes if "left out" in note]
    what = "picture with boxes" if any(one.file_names for one in located) else "picture"
    detail = f"no {what} is left of {names}; nothing can be learned from it"
    return Problem(NOTHING, names, "", "; ".join([detail, *causes]))


def _stop(problems: Sequence[Problem], purpose: Purpose) -> str:
    """The text of the error that ends the run."""
    groups = grouped(problems, lambda problem: problem.kind)
    whole = [p for kind in (WHOLE_FILE, OTHER_CATEGORIES, NOTHING) for p in groups.pop(kind, [])]
    lines = [problem.detail for problem in whole]
    rest = [problem for members in groups.values() for problem in members]
    if not rest:
        return "\n".join(lines)
    lines += report_lines(rest, 1)
    fixes = []
    if MISSING_PICTURE in groups:
        fixes.append(
            "Every file_name must exist under the images folder given beside its annotation "
            "file; put the pictures there or correct data.…images"
        )
    if len(groups) > (MISSING_PICTURE in groups):
        fix = "Correct the annotation file"
        if INVALID_BOX in groups or NOT_FINITE in groups:
            fix += ", or drop invalid boxes with data.invalid_boxes=drop"
        fixes.append(fix)
    lines.append(f"{'. '.join(fixes)}; `python -m megdet_hvd.data check` lists them all")
    return "\n".join(lines)
