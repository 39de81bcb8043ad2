"""Annotation files without anything odd, in a quarter of the time and two thirds of the memory.

Every rule for odd entries is in :mod:`megdet_hvd.data.annotations`. Files as COCO publishes them
need none: whole numbers for ids, each once; sizes and names for all pictures; four numbers for each
box; pictures and classes that are listed. msgspec reads just these fields, typed, and passes over
all others, outlines above all. Where it finds anything else, or anything at all speaks against it,
the file goes the usual way, to the same values, notes and errors.

In what it passes over msgspec is as strict as :mod:`json` but for text that is not UTF-8, which is
looked for here, and for whole numbers of more than 4,300 digits.
"""

import codecs
import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INT32 = 2**31 - 1
_PIECE = 1 << 20


@dataclass(frozen=True)
class PlainAnnotations:
    """n pictures and m boxes, as the file has them."""

    categories: list[dict[str, Any]]
    """Entries."""
    image_ids: NDArray[np.int64]
    """(n,) each once."""
    file_names: list[str]
    """n, none empty; of pictures with a web address only, the address."""
    widths: NDArray[np.int32]
    """(n,) above 0."""
    heights: NDArray[np.int32]
    """(n,) above 0."""
    annotation_ids: list[int]
    """m, each once."""
    owners: NDArray[np.int64]
    """(m,) positions in ``image_ids``."""
    category_ids: NDArray[np.int64]
    """(m,)"""
    crowds: NDArray[np.bool_]
    """(m,)"""
    areas: NDArray[np.float64]
    """(m,) NaN where the file has none."""
    raw_boxes: NDArray[np.float64]
    """(m, 4) x y w h."""
    is_lvis: bool
    """Whether the pictures say for which classes they were not searched."""


def read_plain(text: bytes) -> PlainAnnotations | None:
    """What a file says; None: something about it is odd, or msgspec is missing."""
    library = _library()
    if library is None or not _is_utf8(text):
        return None
    try:
        return _arrays(_decoder(library).decode(text))
    except (library.DecodeError, RecursionError, OverflowError, OddError):
        return None


class OddError(Exception):
    """Something that needs a rule."""


def _require(plain: bool | np.bool_) -> None:
    if not plain:
        raise OddError


def _library() -> Any:
    try:
        import msgspec
    except Exception:  # it isn't there, or is broken: the usual way does for all
        return None
    return msgspec


def _decoder(msgspec: Any) -> Any:
    def left_out(*names: str) -> list[tuple[str, Any, Any]]:
        """Fields that nothing but their absence is plain for."""
        return [(name, msgspec.UnsetType, msgspec.UNSET) for name in names]

    image = msgspec.defstruct(
        "PlainImage",
        [
            *(("id", int), ("width", int), ("height", int)),
            *(("file_name", str | None, None), ("coco_url", str | None, None)),
            ("neg_category_ids", list[int] | msgspec.UnsetType, msgspec.UNSET),
        ],
        gc=False,
    )
    annotation = msgspec.defstruct(
        "PlainAnnotation",
        [
            ("id", int),
            ("image_id", int),
            ("category_id", int),
            ("bbox", tuple[float, float, float, float]),
            ("iscrowd", int, 0),
            ("area", float | None, None),
            *left_out("ignore", "difficult"),
        ],
        gc=False,
    )
    content = msgspec.defstruct(
        "PlainContent",
        [
            ("images", GenericAlias(list, (image,))),
            ("annotations", GenericAlias(list, (annotation,))),
            ("categories", msgspec.Raw),
        ],
    )
    return msgspec.json.Decoder(content)


def _arrays(content: Any) -> PlainAnnotations:
    images, annotations = content.images, content.annotations
    categories = json.loads(bytes(content.categories))
    _require(isinstance(categories, list) and bool(categories))
    _require(all(isinstance(entry, dict) for entry in categories))

    image_ids = _column(images, "id", np.int64)
    widths, heights = _column(images, "width", np.int64), _column(images, "height", np.int64)
    names = [image.coco_url if image.file_name is None else image.file_name for image in images]
    _require(bool(((widths > 0) & (widths <= _INT32)).all()))
    _require(bool(((heights > 0) & (heights <= _INT32)).all()))
    _require(all(names))

    ids = [annotation.id for annotation in annotations]
    _require(len(set(ids)) == len(ids))
    crowds = _column(annotations, "iscrowd", np.int64)
    _require(bool(((crowds == 0) | (crowds == 1)).all()))
    areas = np.fromiter(
        (np.nan if one.area is None else one.area for one in annotations), np.float64, len(ids)
    )
    boxes = np.fromiter(
        (value for annotation in annotations for value in annotation.bbox),
        np.float64,
        4 * len(ids),
    )
    return PlainAnnotations(
        categories=categories,
        image_ids=image_ids,
        file_names=names,
        widths=widths.astype(np.int32),
        heights=heights.astype(np.int32),
        annotation_ids=ids,
        owners=positions_of(_column(annotations, "image_id", np.int64), image_ids),
        category_ids=_column(annotations, "category_id", np.int64),
        crowds=crowds.astype(np.bool_),
        areas=areas,
        raw_boxes=boxes.reshape(-1, 4),
        is_lvis=bool(images) and isinstance(images[0].neg_category_ids, list),
    )


def _column(entries: Sequence[Any], name: str, kind: Any) -> NDArray[Any]:
    return np.fromiter((getattr(entry, name) for entry in entries), kind, len(entries))


def positions_of(values: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each value stands among those that are known.

    Raises:
        OddError: one isn't there, or one that is known is there twice.
    """
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    _require(not bool((ordered[1:] == ordered[:-1]).any()))
    if not len(values):
        return np.zeros(0, np.int64)
    _require(len(known) > 0)
    places = np.minimum(np.searchsorted(ordered, values), len(known) - 1)
    _require(bool((ordered[places] == values).all()))
    return order[places].astype(np.int64)


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(text)
    try:
        for start in range(0, len(text), _PIECE):
            decoder.decode(view[start : start + _PIECE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
