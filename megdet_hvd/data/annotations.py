"""One COCO-format annotation file, as arrays: what pycocotools reads, with the same values.

Whatever is wrong with single entries is collected, not raised: training stops on it
(:mod:`megdet_hvd.data.coco`), the checker lists it (:mod:`megdet_hvd.data.check`).
Only a file that cannot be understood at all raises.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.data.annotation_json import annotation_bytes, content_of
from megdet_hvd.data.ids import Id, as_id, in_order, loosely, numbers, whole_number
from megdet_hvd.data.plain_annotations import OddError, PlainAnnotations, positions_of, read_plain
from megdet_hvd.data.problems import Problem, printable

NO_IMAGE_ID = "image needs an id (a number or a text)"
NO_FILE_NAME = "image needs a file_name (or a coco_url)"
TWO_IMAGES = "duplicate image id (one id for two pictures)"
NO_CATEGORY_ID = "category needs an id (a number or a text)"
TWO_CATEGORIES = "duplicate category id (one id for two names)"
TWO_ANNOTATIONS = "duplicate annotation id (pycocotools takes the last one twice)"
NO_BOX = "annotation needs a bbox of four numbers"
ODD_CROWD = "iscrowd must be 0 or 1"
_INT32 = 2**31 - 1
_THINNEST = 1e-6
"""Of a picture's side: 8 steps of float32, so that scaling and mirroring leave a box its area."""
_LARGEST_AREA = 1e10
"""Where COCOeval's area range ``all`` ends; it begins with 0."""
_LEFT_OUT_KEYS = ("ignore", "difficult")
_LVIS = (
    "an LVIS file: the numbers are COCO's own, without LVIS's rules for classes that were not "
    "searched for (neg_category_ids, not_exhaustive_category_ids)"
)
_YES, _NO = frozenset({"true", "yes"}), frozenset({"", "false", "no", "none", "null", "nan"})


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation file with n pictures, m boxes (crowds among them) and K categories."""

    path: Path
    """The file."""
    categories: dict[Id, str]
    """Name of each of the K category ids, in COCOeval's order."""
    roots: frozenset[Id]
    """Categories without boxes of which others are kinds, as Roboflow's first is."""
    image_ids: NDArray[np.int64]
    """(n,) the ids; where they are no whole numbers, numbers in the ids' order."""
    original_ids: tuple[Id, ...] | None
    """n ids; None where they are ``image_ids``."""
    file_names: list[str]
    """n names, as written in the file; of those with a web address only, the address."""
    widths: NDArray[np.int32]
    """(n,) pixels; 0 where the file doesn't say."""
    heights: NDArray[np.int32]
    """(n,) pixels; 0 where the file doesn't say."""
    annotation_ids: Sequence[Any]
    """m ids, whatever the file has for them; None where it has none."""
    owners: NDArray[np.int64]
    """(m,) position of each box's picture."""
    classes: NDArray[np.int64]
    """(m,) position of each box's category in ``categories``."""
    crowds: NDArray[np.bool_]
    """(m,) whether the box is a crowd (``iscrowd``)."""
    ignored: NDArray[np.bool_]
    """(m,) whether the file asks not to learn from it (``ignore``, ``difficult``)."""
    areas: NDArray[np.float64]
    """(m,) the ``area`` of the file, which decides small, medium and large; w·h where absent."""
    with_area: NDArray[np.bool_]
    """(m,) whether the file has it."""
    raw_boxes: NDArray[np.float64]
    """(m, 4) x y w h as in the file: what the COCO evaluation compares with."""
    annotated: bool
    """Whether there is a list of annotations at all; test sets have none."""
    problems: list[Problem] = field(default_factory=list)
    """Everything wrong with single entries, which are not in the arrays."""
    notes: list[str] = field(default_factory=list)
    """What was read otherwise than it is written, or left out, in words for the log."""
    truth_notes: list[str] = field(default_factory=list)
    """Where pycocotools would measure otherwise on the same file."""
    sha256: str = ""
    """Of the file's bytes; empty where it isn't a file's content."""

    def image(self, position: int) -> Id:
        """The id of a picture, as the file has it."""
        if self.original_ids is None:
            return int(self.image_ids[position])
        return self.original_ids[position]

    def place(self, box: int) -> str:
        """Which entry a box is, in words."""
        image = self.image(int(self.owners[box]))
        return f"annotation {_shown_id(self.annotation_ids[box])} (image {_shown_id(image)})"


def read_annotation_file(path: Path) -> AnnotationFile:
    """Read one file.

    Raises:
        UserError: it is missing, not JSON, or not COCO format.
        StorageError: it can't be read at the moment.
    """
    text = annotation_bytes(path)
    digest = hashlib.sha256(text).hexdigest()
    plain = read_plain(text)
    file = None if plain is None else _as_it_stands(plain, path)
    if file is None:
        content = content_of(text, path)
        del text  # as large as all else together
        file = as_annotation_file(content, path)
    return replace(file, sha256=digest)


def as_annotation_file(content: Mapping[str, Any], path: Path) -> AnnotationFile:
    """What a file of this content says; ``path`` names it in messages."""
    reader = _AnnotationReader(str(path))
    categories = reader.categories(content["categories"])
    images = reader.images(content["images"])
    entries = content.get("annotations", [])
    boxes = reader.boxes(entries, images.positions, categories)
    roots = _roots(content["categories"]) & categories.keys()
    used = {list(categories)[k] for k in set(boxes.classes.tolist())}
    image_ids, original_ids = numbers(images.ids)
    if any("neg_category_ids" in entry for entry in content["images"][:1]):
        reader.truth_notes.append(_LVIS)
    return AnnotationFile(
        path=path,
        categories=categories,
        roots=frozenset(roots - used),
        image_ids=image_ids,
        original_ids=original_ids,
        file_names=images.names,
        widths=np.asarray(images.widths, np.int32),
        heights=np.asarray(images.heights, np.int32),
        annotation_ids=boxes.ids,
        owners=boxes.owners,
        classes=boxes.classes,
        crowds=boxes.crowds,
        ignored=boxes.ignored,
        areas=boxes.areas,
        with_area=boxes.with_area,
        raw_boxes=boxes.boxes,
        annotated="annotations" in content,
        problems=reader.problems,
        notes=reader.notes,
        truth_notes=reader.truth_notes,
    )


def _as_it_stands(plain: PlainAnnotations, path: Path) -> AnnotationFile | None:
    """The same as :func:`as_annotation_file` says of it; None: it needs rules after all."""
    reader = _AnnotationReader(str(path))
    categories = reader.categories(plain.categories)
    raw = plain.raw_boxes
    with_area = ~np.isnan(plain.areas)
    with np.errstate(over="ignore"):
        areas = np.where(with_area, plain.areas, raw[:, 2] * raw[:, 3])
    if reader.problems or bool(_beyond(areas).any()):
        return None
    try:
        classes = positions_of(plain.category_ids, np.asarray(list(categories), np.int64))
    except (TypeError, ValueError, OverflowError, OddError):
        return None
    if not all(type(number) is int for number in categories):
        return None
    if 0 in plain.annotation_ids:
        owner = plain.owners[plain.annotation_ids.index(0)]
        entry = {"id": 0, "image_id": int(plain.image_ids[owner])}
        reader.count_notes(Counter({"id 0": 1}), {"id 0": _where(entry)})
    if plain.is_lvis:
        reader.truth_notes.append(_LVIS)
    used = {list(categories)[k] for k in set(classes.tolist())}
    roots = _roots(plain.categories) & categories.keys()
    return AnnotationFile(
        path=path,
        categories=categories,
        roots=frozenset(roots - used),
        image_ids=plain.image_ids,
        original_ids=None,
        file_names=plain.file_names,
        widths=plain.widths,
        heights=plain.heights,
        annotation_ids=plain.annotation_ids,
        owners=plain.owners,
        classes=classes,
        crowds=plain.crowds,
        ignored=np.zeros(len(raw), np.bool_),
        areas=areas,
        with_area=with_area,
        raw_boxes=raw,
        annotated=True,
        notes=reader.notes,
        truth_notes=reader.truth_notes,
    )


def clip_boxes(
    raw: NDArray[np.float64], widths: NDArray[np.int32], heights: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes (m, 4) x y w h to x1 y1 x2 y2 inside pictures of the given sizes (m,).

    Returns the clipped boxes and which of them are valid: finite, w > 0 and h > 0, and some
    part of them inside the picture, of more than ``_THINNEST`` of its side: what rounding leaves
    of a box without width has one here, and none any more where the picture is mirrored.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        x1 = np.clip(raw[:, 0], 0, widths)
        y1 = np.clip(raw[:, 1], 0, heights)
        x2 = np.clip(raw[:, 0] + raw[:, 2], 0, widths)
        y2 = np.clip(raw[:, 1] + raw[:, 3], 0, heights)
        boxes = np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)
        valid = np.isfinite(raw).all(axis=1) & (raw[:, 2] > 0) & (raw[:, 3] > 0)
        sides = np.stack([widths, heights], axis=1)
        valid &= (boxes[:, 2:] - boxes[:, :2] > _THINNEST * sides).all(axis=1)
    return boxes, valid


@dataclass
class _Images:
    """n usable picture entries."""

    ids: list[Id] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    positions: dict[Any, int | None] = field(default_factory=dict)
    """Position by id; None of those that were refused."""


@dataclass(frozen=True)
class _Boxes:
    """m usable annotation entries; see `AnnotationFile`."""

    ids: list[Any]
    owners: NDArray[np.int64]
    classes: NDArray[np.int64]
    crowds: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    areas: NDArray[np.float64]
    with_area: NDArray[np.bool_]
    boxes: NDArray[np.float64]


class _AnnotationReader:
    """The entries of one file, and what is to be said of them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.truth_notes: list[str] = []
        self._refused_categories: set[Id] = set()

    def _problem(self, kind: str, where: str, detail: str = "") -> None:
        self.problems.append(Problem(kind, self.path, where, detail))

    def categories(self, entries: Sequence[Mapping[str, Any]]) -> dict[Id, str]:
        """Names by id."""
        found: dict[Id, str] = {}
        nameless = 0
        for position, entry in enumerate(entries):
            number, name = as_id(entry.get("id")), entry.get("name")
            where = f"category {_shown_id(entry.get('id'))} (entry {position})"
            if number is None:
                self._problem(NO_CATEGORY_ID, where, f"name {name!r}")
                continue
            if name is None or name == "":
                nameless += 1
                name = f"class {number}"
            name = printable(str(name))
            if found.get(number, name) != name:
                self._problem(TWO_CATEGORIES, where, f"{found[number]!r} and {name!r}")
            else:
                found[number] = name
        if nameless:
            self.notes.append(f"{nameless} categories have no name and go by their id")
        return {number: found[number] for number in in_order(found)}

    def images(self, entries: Sequence[Mapping[str, Any]]) -> _Images:
        """The picture entries, an entry that is there twice once."""
        found = _Images()
        twice = sizeless = 0
        for position, entry in enumerate(entries):
            number = as_id(entry.get("id"))
            name = entry.get("file_name")
            if name is None:
                name = entry.get("coco_url")
            if number is None:
                where = f"image {_shown_id(entry.get('id'))} (entry {position})"
                self._problem(NO_IMAGE_ID, where, f"file_name {name!r}")
                continue
            if not isinstance(name, str) or not name:
                where = f"image {_shown_id(number)} (entry {position})"
                self._problem(NO_FILE_NAME, where, f"file_name {name!r}")
                found.positions.setdefault(number, None)
                continue
            width, height = _side(entry.get("width")), _side(entry.get("height"))
            if not (width and height):
                width = height = 0
            before = found.positions.get(number)
            if before is not None:
                same = (found.names[before], found.widths[before], found.heights[before])
                if same == (name, width, height):
                    twice += 1
                else:
                    where = f"image {_shown_id(number)} (entry {position})"
                    self._problem(TWO_IMAGES, where, f"{same[0]!r} and {name!r}")
                continue
            sizeless += not width
            found.positions[number] = len(found.ids)
            found.ids.append(number)
            found.names.append(name)
            found.widths.append(width)
            found.heights.append(height)
        if twice:
            self.notes.append(f"{twice} pictures are listed twice with one id and are read once")
        if sizeless:
            self.notes.append(
                f"{sizeless} pictures have no usable width and height here; the size is read from "
                "the picture itself"
            )
        return found

    def boxes(
        self,
        entries: Sequence[Mapping[str, Any]],
        positions: dict[Any, int | None],
        categories: dict[Id, str],
    ) -> _Boxes:
        """The annotation entries."""
        classes = {number: position for position, number in enumerate(categories)}
        image_of = _Lookup(positions)
        class_of = _Lookup(classes)
        ids: list[Any] = []
        kept: list[tuple[int, int]] = []
        crowds: list[bool] = []
        ignored: list[bool] = []
        areas: list[Any] = []
        boxes: list[Any] = []
        counts: Counter[str] = Counter()
        first: dict[str, str] = {}

        def count(what: str, entry: Mapping[str, Any]) -> None:
            if not counts[what]:
                first[what] = _where(entry)
            counts[what] += 1

        self._duplicates(entries)
        nothing: Any = object()
        for entry in entries:
            image = entry.get("image_id", nothing)
            category = entry.get("category_id", nothing)
            try:
                owner = positions.get(image, nothing)
                label = classes.get(category, nothing)
            except TypeError:
                owner, label = _at(positions, image, nothing), _at(classes, category, nothing)
            if owner is nothing:
                owner = self._reference(image_of, "image", image, entry, nothing, count)
            if label is nothing and owner is not None:
                label = self._reference(class_of, "category", category, entry, nothing, count)
            if owner is None or label is None:
                continue
            box = entry.get("bbox")
            if type(box) is not list or len(box) != 4:
                detail = repr(box)
                if not box and entry.get("segmentation"):
                    detail = "it has a segmentation only; compute the boxes from the outlines"
                self._problem(NO_BOX, _where(entry), detail)
                continue
            crowd = entry.get("iscrowd", 0)
            if crowd is not False and crowd is not True and crowd not in (0, 1):
                if isinstance(crowd, str):
                    count("crowd", entry)
                crowd = _flag(crowd)
                if crowd is None:
                    self._problem(ODD_CROWD, _where(entry), repr(entry["iscrowd"]))
                    continue
            left_out = False
            for key in _LEFT_OUT_KEYS:
                if key in entry and _flag(entry[key]) is not False:
                    left_out = True
            number = entry.get("id")
            if number is None:
                count("no id", entry)
            elif number == 0 or (isinstance(number, str) and _number(number) == 0):
                count("id 0", entry)  # COCOeval writes ids, texts too, where 0 is "no match"
            ids.append(number)
            kept.append((owner, label))
            crowds.append(bool(crowd))
            ignored.append(left_out)
            areas.append(entry.get("area"))
            boxes.append(box)
        self.count_notes(counts, first)
        if any(ignored):
            self.notes.append(
                f"{sum(ignored)} boxes are marked ignore or difficult: not learned from, and "
                "measured as any other, as pycocotools does"
            )
        raw, usable = _box_array(boxes)
        if not usable.all():
            for k in np.flatnonzero(~usable):
                where = f"annotation {_shown_id(ids[k])}"
                self._problem(NO_BOX, where, repr(boxes[k]))
            keep = np.flatnonzero(usable).tolist()
            ids, kept = [ids[k] for k in keep], [kept[k] for k in keep]
            crowds, ignored = [crowds[k] for k in keep], [ignored[k] for k in keep]
            areas, raw = [areas[k] for k in keep], raw[usable]
        area_array, with_area = _area_array(areas, raw)
        beyond = int(_beyond(area_array).sum())
        if beyond:
            self.truth_notes.append(
                f"{beyond} annotations have an area below 0 or above 1e10, and COCOeval counts "
                "them neither as found nor as missed"
            )
        pairs = np.asarray(kept, np.int64).reshape(-1, 2)
        return _Boxes(
            ids=ids,
            owners=np.ascontiguousarray(pairs[:, 0]),
            classes=np.ascontiguousarray(pairs[:, 1]),
            crowds=np.asarray(crowds, np.bool_),
            ignored=np.asarray(ignored, np.bool_),
            areas=area_array,
            with_area=with_area,
            boxes=raw,
        )

    def _reference(
        self, lookup: "_Lookup", name: str, value: Any, entry: Any, nothing: Any, count: Any
    ) -> int | None:
        """The position that an id not found as it is stands for; None: leave the entry out."""
        if value is nothing or isinstance(value, list | dict):
            said = "no" if value is nothing else f"the unusable {value!r} as its"
            self._problem(f"annotation has no usable {name}_id", _where(entry), f"{said} {name}_id")
            return None
        known, position = lookup.find(value)
        if not known:
            count(f"unknown {name}", entry)
        elif position is not None:
            count(f"dressed {name}", entry)
        return position

    def _duplicates(self, entries: Sequence[Mapping[str, Any]]) -> None:
        ids = [number for e in entries if (number := e.get("id")) is not None]
        try:
            if len(set(ids)) == len(ids):
                return
        except TypeError:
            ids = [number for number in ids if not isinstance(number, list | dict)]
        for number, times in Counter(ids).items():
            if times > 1:
                where = f"annotation {_shown_id(number)}"
                self._problem(TWO_ANNOTATIONS, where, f"{times} times")

    def count_notes(self, counts: Counter[str], first: Mapping[str, str]) -> None:
        """What to say of entries that were counted, and the first of each kind."""

        def told(what: str, text: str, truth: bool = False) -> None:
            if counts[what]:
                line = f"{counts[what]} {text}, the first: {first[what]}"
                (self.truth_notes if truth else self.notes).append(line)

        told("unknown image", "annotations of pictures that the file doesn't list are left out")
        told("unknown category", "annotations of categories that it doesn't list are left out")
        for name in ("image", "category"):
            told(
                f"dressed {name}",
                f'annotations name their {name} as a text for a number, or a number for a text ("2"'
                " for 2), and are read as meant; pycocotools leaves them out",
            )
        told("crowd", "annotations have iscrowd as a text, read as the number that it spells")
        told("no id", "annotations have no id, which pycocotools asks for", truth=True)
        told("id 0", "annotation has the id 0, which COCOeval never counts as found", truth=True)


class _Lookup:
    """Positions by id, for ids that are not there as they are written."""

    def __init__(self, positions: Mapping[Any, int | None]) -> None:
        self._positions = positions
        self._loose: Mapping[Id, Id] | None = None

    def find(self, value: Any) -> tuple[bool, int | None]:
        """Whether the id is known in another dress, and its position; None if it was refused."""
        one = as_id(value)
        key = None if one is None else whole_number(one)
        if key is None:
            return False, None
        if self._loose is None:
            self._loose = loosely(self._positions)
        if key not in self._loose:
            return False, None
        return True, self._positions[self._loose[key]]


def _at(positions: Mapping[Any, Any], key: Any, nothing: object) -> Any:
    """The position under a key that may be no key at all."""
    return nothing if isinstance(key, list | dict) else positions.get(key, nothing)


def _roots(entries: Sequence[Mapping[str, Any]]) -> set[Id]:
    """Categories that are only the name of others: they have none above, and some below them."""
    above = [entry.get("supercategory") for entry in entries]
    return {
        number
        for entry, own in zip(entries, above, strict=True)
        if (number := as_id(entry.get("id"))) is not None
        and own == "none" != entry.get("name")
        and any(
            other == entry.get("name") and as_id(e.get("id")) != number
            for e, other in zip(entries, above, strict=True)
        )
    }


def _box_array(boxes: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Lists of four as (m, 4) numbers, read as numpy reads them for pycocotools; usable or not."""
    usable = np.ones(len(boxes), np.bool_)
    try:
        array = np.asarray(boxes, np.float64)
        if array.size == 0 or array.ndim == 2:
            return array.reshape(-1, 4), usable
    except (TypeError, ValueError, OverflowError):
        pass
    array = np.full((len(boxes), 4), np.nan)
    for k, box in enumerate(boxes):
        values = [_number(value) for value in box]
        usable[k] = None not in values
        array[k] = [math.nan if value is None else value for value in values]
    return array, usable


def _area_array(
    areas: list[Any], raw: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(m,) areas, w·h where the file has none; and whether it has."""
    with_area = np.asarray([area is not None for area in areas], np.bool_)
    try:
        array = np.asarray(areas, np.float64).reshape(len(areas))
    except (TypeError, ValueError, OverflowError):
        values = [None if area is None else _number(area) for area in areas]
        with_area = np.asarray([value is not None for value in values], np.bool_)
        array = np.asarray([math.nan if v is None else v for v in values], np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(with_area, array, raw[:, 2] * raw[:, 3]), with_area


def _beyond(areas: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of them are in none of COCOeval's ranges."""
    return (areas < 0) | (areas > _LARGEST_AREA)


def _number(value: Any) -> float | None:
    """A number in any dress, null as NaN; None for what is none."""
    if value is None:
        return math.nan
    if isinstance(value, int | float | str):
        try:
            return float(value)
        except OverflowError:
            return math.inf if isinstance(value, int) and value > 0 else -math.inf
        except ValueError:
            return None
    return None


def _side(value: Any) -> int:
    """Width or height; 0 for anything but a whole number above 0 in any dress."""
    if type(value) is int:
        return value if 0 < value <= _INT32 else 0
    number = None if isinstance(value, bool) else _number(value)
    if number is None or not 0 < number <= _INT32 or number != int(number):
        return 0
    return int(number)


def _flag(value: Any) -> bool | None:
    """Yes or no in any dress, nothing as no; None for what is neither."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _YES or word in _NO:
            return word in _YES
    number = _number(value)
    if number is None:
        return None
    if math.isnan(number):
        return False
    return bool(number) if number >= 0 and number == number // 1 else None


def _where(entry: Mapping[str, Any]) -> str:
    return f"annotation {_shown_id(entry.get('id'))} (image {_shown_id(entry.get('image_id'))})"


def _shown_id(value: Any) -> str:
    """An id for a message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
