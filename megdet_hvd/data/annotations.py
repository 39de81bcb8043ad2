"""One COCO-format annotation file, as arrays.

Whatever is wrong with single entries is collected, not raised: training stops on it
(:mod:`megdet_hvd.data.coco`), the checker lists it (:mod:`megdet_hvd.data.check`).
Only a file that cannot be understood at all raises.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.data.problems import Problem
from megdet_hvd.errors import UserError
from megdet_hvd.storage import cannot_read, retried

INVALID_BOX = "invalid box (NaN, no area, or wholly outside its picture)"
_LISTS = ("images", "annotations", "categories")
_HEAVY = ("segmentation", "keypoints", "caption")


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation file with n pictures and m usable boxes, crowds among them."""

    path: Path
    """The file."""
    categories: dict[int, str]
    """Name of each category id, ascending by id."""
    image_ids: NDArray[np.int64]
    """(n,) ids, in the order of the file."""
    file_names: list[str]
    """n names, as written in the file."""
    widths: NDArray[np.int32]
    """(n,) pixels."""
    heights: NDArray[np.int32]
    """(n,) pixels."""
    annotation_ids: NDArray[np.int64]
    """(m,) ids."""
    owners: NDArray[np.int64]
    """(m,) position of each box's picture."""
    category_ids: NDArray[np.int64]
    """(m,) the file's own category ids."""
    crowds: NDArray[np.bool_]
    """(m,) whether the box is a crowd (``iscrowd``)."""
    areas: NDArray[np.float64]
    """(m,) the ``area`` of the file, which decides small, medium and large; w·h where absent."""
    raw_boxes: NDArray[np.float64]
    """(m, 4) x y w h as in the file: what the COCO evaluation compares with."""
    boxes: NDArray[np.float32]
    """(m, 4) x1 y1 x2 y2, clipped to the picture: what training learns from."""
    problems: list[Problem]
    """Everything wrong with single entries; boxes named here are not in the arrays."""


def read_annotation_file(path: Path) -> AnnotationFile:
    """Read one file.

    Raises:
        UserError: it is missing, not JSON, or not COCO format.
        StorageError: it can't be read at the moment.
    """
    content = _load(path)
    problems: list[Problem] = []
    categories = _categories(path, content["categories"], problems)
    ids, names, widths, heights = _images(path, content["images"], problems)
    position = {image_id: i for i, image_id in enumerate(ids)}
    columns = _annotations(path, content["annotations"], position, categories, problems)
    annotation_ids, owners, category_ids, crowds, areas, raw = columns
    width_array = np.asarray(widths, np.int32)
    height_array = np.asarray(heights, np.int32)
    raw_boxes = np.asarray(raw, np.float64).reshape(-1, 4)
    owner_array = np.asarray(owners, np.int64)
    boxes, usable = clip_boxes(raw_boxes, width_array[owner_array], height_array[owner_array])
    for k in np.flatnonzero(~usable):
        image = ids[owners[k]]
        size = f"picture {widths[owners[k]]}×{heights[owners[k]]}"
        where = f"annotation {annotation_ids[k]} (image {image})"
        shown = [float(v) for v in raw_boxes[k]]
        problems.append(Problem(INVALID_BOX, str(path), where, f"bbox {shown}, {size}"))
    raw_areas = raw_boxes[:, 2] * raw_boxes[:, 3]
    area_array = np.asarray(areas, np.float64)
    area_array = np.where(np.isfinite(area_array), area_array, raw_areas)
    return AnnotationFile(
        path=path,
        categories=categories,
        image_ids=np.asarray(ids, np.int64),
        file_names=names,
        widths=width_array,
        heights=height_array,
        annotation_ids=np.asarray(annotation_ids, np.int64)[usable],
        owners=owner_array[usable],
        category_ids=np.asarray(category_ids, np.int64)[usable],
        crowds=np.asarray(crowds, np.bool_)[usable],
        areas=area_array[usable],
        raw_boxes=raw_boxes[usable],
        boxes=boxes[usable],
        problems=problems,
    )


def clip_boxes(
    raw: NDArray[np.float64], widths: NDArray[np.int32], heights: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes (m, 4) x y w h to x1 y1 x2 y2 inside pictures of the given sizes (m,).

    Returns the clipped boxes and which of them are valid: finite, w > 0 and h > 0, and some
    part of them inside the picture.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        x1 = np.clip(raw[:, 0], 0, widths)
        y1 = np.clip(raw[:, 1], 0, heights)
        x2 = np.clip(raw[:, 0] + raw[:, 2], 0, widths)
        y2 = np.clip(raw[:, 1] + raw[:, 3], 0, heights)
        boxes = np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)
        valid = np.isfinite(raw).all(axis=1) & (raw[:, 2] > 0) & (raw[:, 3] > 0)
        valid &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return boxes, valid


def _load(path: Path) -> dict[str, list[Any]]:
    def lighten(entry: dict[str, Any]) -> dict[str, Any]:
        # Polygons are nine tenths of COCO's file: letting go of each as it is parsed keeps
        # the peak near the size of the text.
        for key in _HEAVY:
            entry.pop(key, None)
        return entry

    try:
        text = retried(path.read_bytes)
    except FileNotFoundError:
        raise UserError(
            f"annotation file {path} does not exist; give the path of a COCO-format JSON file "
            f"(data.train / data.val, key annotations)"
        ) from None
    except OSError as error:
        raise cannot_read(f"annotation file {path}", error) from None
    try:
        content = json.loads(text, object_hook=lighten)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"annotation file {path} is not JSON: {error}; a COCO-format JSON file is needed"
        ) from None
    if not isinstance(content, dict):
        raise UserError(
            f"annotation file {path} is not COCO format: its top level is "
            f"{'a list' if isinstance(content, list) else type(content).__name__}, and must be an "
            f"object with the keys {', '.join(_LISTS)}"
        )
    missing = [key for key in _LISTS if key not in content]
    if missing:
        found = ", ".join(sorted(map(str, content))) or "none"
        raise UserError(
            f"annotation file {path} is not COCO format: missing {', '.join(missing)} "
            f"(keys found: {found}); it needs {', '.join(_LISTS)}"
        )
    for key in _LISTS:
        if not isinstance(content[key], list) or any(not isinstance(e, dict) for e in content[key]):
            raise UserError(
                f"annotation file {path} is not COCO format: {key} must be a list of objects"
            )
    if not content["categories"]:
        raise UserError(f"annotation file {path} declares no categories; at least one is needed")
    return content


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _categories(path: Path, entries: list[Any], problems: list[Problem]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for position, entry in enumerate(entries):
        number, name = entry.get("id"), entry.get("name")
        where = f"category {number!r} (entry {position})"
        if not _is_int(number) or not isinstance(name, str):
            detail = f"id {number!r}, name {name!r}"
            problems.append(
                Problem("category needs a whole-number id and a name", str(path), where, detail)
            )
        elif number in categories:
            problems.append(Problem("duplicate category id", str(path), where, f"name {name!r}"))
        elif name in categories.values():
            problems.append(Problem("duplicate category name", str(path), where, f"name {name!r}"))
        else:
            categories[number] = name
    return dict(sorted(categories.items()))


def _images(
    path: Path, entries: list[Any], problems: list[Problem]
) -> tuple[list[int], list[str], list[int], list[int]]:
    ids: list[int] = []
    names: list[str] = []
    widths: list[int] = []
    heights: list[int] = []
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        number, name = entry.get("id"), entry.get("file_name")
        width, height = entry.get("width"), entry.get("height")
        where = f"image {number!r} (entry {position})"
        if not _is_int(number) or not isinstance(name, str) or not name:
            detail = f"id {number!r}, file_name {name!r}"
            problems.append(
                Problem("image needs a whole-number id and a file_name", str(path), where, detail)
            )
        elif not (_is_int(width) and _is_int(height) and width > 0 and height > 0):
            detail = f"width {width!r}, height {height!r}"
            problems.append(
                Problem("image needs width and height above 0", str(path), where, detail)
            )
        elif number in seen:
            problems.append(Problem("duplicate image id", str(path), where, f"file_name {name!r}"))
        else:
            seen.add(number)
            ids.append(number)
            names.append(name)
            widths.append(width)
            heights.append(height)
    return ids, names, widths, heights


def _annotations(
    path: Path,
    entries: list[Any],
    position: dict[int, int],
    categories: dict[int, str],
    problems: list[Problem],
) -> tuple[list[int], list[int], list[int], list[bool], list[float], list[tuple[float, ...]]]:
    ids: list[int] = []
    owners: list[int] = []
    category_ids: list[int] = []
    crowds: list[bool] = []
    areas: list[float] = []
    boxes: list[tuple[float, ...]] = []
    seen: set[int] = set()
    for entry in entries:
        number, image, category = entry.get("id"), entry.get("image_id"), entry.get("category_id")
        where = f"annotation {number!r} (image {image!r})"
        if not _is_int(number):
            problems.append(Problem("annotation needs a whole-number id", str(path), where))
            continue
        if number in seen:
            problems.append(Problem("duplicate annotation id", str(path), where))
            continue
        seen.add(number)
        if not _is_int(image) or image not in position:
            problems.append(Problem("annotation of an unknown image", str(path), where))
            continue
        if not _is_int(category) or category not in categories:
            detail = f"category_id {category!r}"
            problems.append(Problem("annotation of an unknown category", str(path), where, detail))
            continue
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            problems.append(
                Problem("annotation needs a bbox of four numbers", str(path), where, f"{box!r}")
            )
            continue
        ids.append(number)
        owners.append(position[image])
        category_ids.append(category)
        crowds.append(bool(entry.get("iscrowd", 0)))
        areas.append(_number(entry.get("area")))
        boxes.append(tuple(_number(v) for v in box))
    return ids, owners, category_ids, crowds, areas, boxes


def _number(value: Any) -> float:
    """A JSON number as float; anything else (null, text) as NaN, which no rule lets pass."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return math.nan
