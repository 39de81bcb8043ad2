"""A data set of the user's own: asked once for all its boxes, and for pictures as they are needed.

What it says goes the way of an annotation file, so that the same rules hold, the same mistakes are
told, and evaluation measures against the same truth. The order of the pictures is a function of
seed and epoch, as everywhere.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from PIL import Image

from megdet_hvd.config.schema import DataConfig
from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.annotations import as_annotation_file
from megdet_hvd.data.coco import Purpose, index_of
from megdet_hvd.data.ids import Id, as_id
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.located import locate
from megdet_hvd.data.orientation import upright
from megdet_hvd.data.transforms import UnreadablePicture, decode, to_rgb
from megdet_hvd.errors import UserError
from megdet_hvd.storage import cannot_read, is_transient, retried

if TYPE_CHECKING:
    from torch import Tensor

Opened: TypeAlias = "Image.Image | np.ndarray[Any, Any] | Tensor"
"""A Pillow picture; or uint8 RGB, an array (H, W, 3) or a tensor (3, H, W)."""
Split = Literal["train", "val"]


@dataclass(frozen=True)
class OwnSample:
    """A picture with its boxes."""

    picture: str | os.PathLike[str] | Callable[[], Opened]
    """Its file, or a function that opens it, called in loader processes each time it is needed."""
    boxes: Any
    """(n, 4) x1 y1 x2 y2, pixels of the upright picture; anything that makes such an array."""
    labels: Any
    """(n,) whole numbers, 1…K."""
    size: tuple[int, int] | None = None
    """Width and height, pixels; None: read from the picture, before training."""
    image_id: Id | None = None
    """A number or a text of this picture alone; None: its position. Augmentation is drawn by it."""
    crowds: Any = None
    """(n,) true: not learned from, and counted neither way in evaluation; None: none."""
    areas: Any = None
    """(n,) pixels², by which COCO tells small, medium and large; None: of the box."""


class OwnDataSet(Protocol):
    """Pictures by position. With loader processes it is pickled, so it must hold no open files."""

    @property
    def categories(self) -> Sequence[str]:
        """K names; label k is ``categories[k - 1]``. An attribute will do."""
        ...

    def __len__(self) -> int:
        """How many pictures."""
        ...

    def __getitem__(self, position: int, /) -> OwnSample:
        """The picture at a position 0…len - 1; always the same, on every rank.

        Called for all positions before training, so it should open no picture itself, and again in
        loader processes where the picture is a function.
        """
        ...


class DataSetFactory(Protocol):
    """Opens a data set."""

    def __call__(self, split: Split, data: DataConfig, /) -> OwnDataSet | None:
        """Called on every rank, the first of each machine before the others.

        Args:
            split: ``train`` or ``val``.
            data: the section of that name; its ``train`` and ``val`` are free to be read.

        Returns:
            The data set; None for ``val``: nothing is evaluated.
        """
        ...


class OwnPictures:
    """The pictures of a data set that opens them itself, by position in the index."""

    def __init__(self, pictures: OwnDataSet, items: Sequence[int]) -> None:
        self._pictures, self._items = pictures, np.asarray(items, np.int64)

    def decode(self, position: int, size: tuple[int, int], value_range: ValueRange) -> Image.Image:
        """The picture at a position as upright 8-bit RGB; see `transforms.decode`.

        Raises:
            UnreadablePicture: it can't be opened, or has another size.
            StorageError: its storage fails at the moment.
            Exception: whatever else the user's function raises.
        """
        source = self._pictures[int(self._items[position])].picture
        if not callable(source):
            return decode(Path(source), size, value_range)
        opened = _opened(source)
        try:
            picture = to_rgb(upright(opened), value_range)
        except Exception as error:  # as of a file
            raise UnreadablePicture(f"{type(error).__name__}: {error}") from error
        if picture.size != size:
            raise UnreadablePicture(
                f"it is {picture.width}×{picture.height} pixels, but annotated as "
                f"{size[0]}×{size[1]}"
            )
        return picture


def read_own(
    factory: DataSetFactory,
    config: DataConfig,
    split: Split,
    *,
    purpose: Purpose,
    keep_empty: bool,
) -> ImageIndex | None:
    """Open a data set and read its boxes; None: there is none of this split.

    Raises:
        UserError: whatever is wrong with it, told as of an annotation file.
        StorageError: a picture can't be read at the moment.
        Exception: whatever the user's code raises.
    """
    told = f"data.dataset={config.dataset}"
    opened: Any = factory(split, config)
    if opened is None and split == "val":
        return None
    if not (hasattr(opened, "__len__") and hasattr(opened, "__getitem__")):
        raise UserError(
            f"{told} gives a {type(opened).__name__} for {split!r}; return an object with len(), "
            "items and categories (docs/extending.md)"
        )
    given = getattr(opened, "categories", ())
    one_text = isinstance(given, str) or not isinstance(given, Iterable)
    categories = [given] if one_text else list(given)
    if one_text or not categories or not all(isinstance(name, str) for name in categories):
        raise UserError(
            f"{told} has the categories {categories} for {split!r}; give it an attribute "
            "categories, a list of the names of labels 1…K"
        )
    path = Path(f"{config.dataset}({split!r})")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    functions: dict[int, Callable[[], Opened]] = {}
    item_of: dict[Id, int] = {}
    for item in range(len(opened)):
        sample = opened[item]
        where = f"{told}: item {item} of {split!r}"
        if not isinstance(sample, OwnSample):
            raise UserError(
                f"{where} is a {type(sample).__name__}; return a megdet_hvd.data.own.OwnSample"
            )
        number = item if sample.image_id is None else as_id(sample.image_id)
        if number is None:
            raise UserError(f"{where} has the image_id {sample.image_id!r}; give a number or text")
        name = f"item {item} of {path}"
        if callable(sample.picture):
            functions[item] = sample.picture
        elif isinstance(sample.picture, str | os.PathLike):
            name = os.fspath(sample.picture)
        else:
            raise UserError(
                f"{where} has a {type(sample.picture).__name__} for its picture; give its file, or "
                "a function that opens it"
            )
        if item_of.setdefault(number, item) != item:
            raise UserError(
                f"{where} has the image_id {number!r} of item {item_of[number]}; give each picture "
                "its own, or None: its position"
            )
        width, height = (0, 0) if sample.size is None else _size(sample.size, where)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations += _annotations(sample, number, len(categories), where, len(annotations))
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(categories, 1)],
    }
    file = as_annotation_file(content, path)
    sizes = {item: _size_by_opening(function) for item, function in functions.items()}
    located = locate(file, Path("."), sizes)
    index = index_of(
        [located],
        keep_empty=keep_empty,
        invalid_boxes=config.invalid_boxes,
        purpose=purpose,
        categories=range(1, len(categories) + 1),
    )
    if not functions:
        return index
    if config.workers != 0:
        _check_pickles(opened, told)
    items = [item_of[index.original_id(position)] for position in range(len(index))]
    return index.opened_by(OwnPictures(opened, items))


def _size(size: Any, where: str) -> tuple[int, int]:
    sides = _array(size, None, where, "size").tolist()
    if (
        not isinstance(sides, list)
        or len(sides) != 2
        or not all(isinstance(side, int | float) and side > 0 and side % 1 == 0 for side in sides)
    ):
        raise UserError(
            f"{where} has the size {size!r}; give (width, height) in pixels, or None: it is read "
            "from the picture"
        )
    return int(sides[0]), int(sides[1])


def _annotations(
    sample: OwnSample, number: Id, classes: int, where: str, first: int
) -> list[dict[str, Any]]:
    boxes = _array(sample.boxes, np.float64, where, "boxes")
    labels = _array(sample.labels, None, where, "labels")
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != (len(boxes),):
        raise UserError(
            f"{where} has boxes of shape {boxes.shape} and labels of shape {labels.shape}; they "
            "must be (n, 4) and (n,)"
        )
    found = labels.tolist()
    for label in found:
        if not isinstance(label, int) or not 1 <= label <= classes:
            raise UserError(
                f"{where} has the label {label!r}; it must be a whole number from 1 to {classes}, "
                "the number of categories"
            )
    given: dict[str, list[Any]] = {"crowds": [0] * len(boxes), "areas": [None] * len(boxes)}
    for name in given:
        values = getattr(sample, name)
        if values is not None:
            flat = _array(values, None, where, name)
            if flat.shape != (len(boxes),):
                raise UserError(
                    f"{where} has {name} of shape {flat.shape} for {len(boxes)} boxes; give one "
                    "for each"
                )
            given[name] = flat.tolist()
    for crowd in given["crowds"]:
        if crowd not in (0, 1):  # as numbers, true and false are these
            raise UserError(f"{where} has the crowds value {crowd!r}; give true or false")
    return [
        {
            "id": first + row + 1,
            "image_id": number,
            "category_id": label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": int(crowd),
            **({} if area is None else {"area": area}),
        }
        for row, ((x1, y1, x2, y2), label, crowd, area) in enumerate(
            zip(boxes.tolist(), found, given["crowds"], given["areas"], strict=True)
        )
    ]


def _array(values: Any, kind: Any, where: str, name: str) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(values, kind)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or with gradients
        raise UserError(f"{where} has {name} that are no array of numbers ({error})") from error


def _size_by_opening(function: Callable[[], Opened]) -> Callable[[], tuple[int, int] | None]:
    def size() -> tuple[int, int] | None:
        try:
            return upright(_opened(function)).size
        except UnreadablePicture:
            return None

    return size


def _opened(function: Callable[[], Opened]) -> Image.Image:
    try:
        opened = retried(function)
        if isinstance(opened, Image.Image):
            opened.load()
    except OSError as error:
        if is_transient(error):
            raise cannot_read(Path("a picture of data.dataset"), error) from error
        raise UnreadablePicture(f"{type(error).__name__}: {error}") from error
    if isinstance(opened, Image.Image):
        return opened
    pixels: Any = opened
    if hasattr(opened, "permute") and tuple(opened.shape[:1]) == (3,):  # a tensor; torch may wait
        pixels = opened.permute(1, 2, 0).cpu().numpy()
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
        kind = getattr(opened, "dtype", type(opened).__name__)
        raise TypeError(
            "a picture of a data set must be a Pillow picture, or uint8 RGB, as an array (H, W, 3) "
            f"or a tensor (3, H, W); this one is {kind} {tuple(getattr(opened, 'shape', ()))}"
        )
    return Image.fromarray(pixels)


def _check_pickles(opened: OwnDataSet, told: str) -> None:
    """That loader processes can be given the data set, and find its class."""
    reason = None
    if type(opened).__module__ == "__main__":
        reason = "its class is defined in the program that was started, which they don't see"
    else:
        try:
            ForkingPickler.dumps(opened)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        raise UserError(
            f"{told} can't be handed to loader processes ({reason}): define its class in a module, "
            "and keep no open files, locks or lambdas in it; or set data.workers=0"
        )
