"""The pictures of a data set and their boxes, as flat arrays that are cheap to hand to workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.ids import Id
from megdet_hvd.wording import counted


@dataclass(frozen=True)
class ImageRecord:
    """One picture, not yet decoded."""

    index: int
    """Position in the data set."""
    file: Path
    """The picture file."""
    source: int
    """Position of its annotation file in the list of files."""
    image_id: int
    """Id in that file, or a number that stands for it; see `ImageIndex.image_ids`."""
    width: int
    """Pixels, as annotated."""
    height: int
    """Pixels, as annotated."""
    boxes: NDArray[np.float32]
    """(n, 4) x1 y1 x2 y2, clipped to the picture. Only those to learn from: no crowds."""
    labels: NDArray[np.int64]
    """(n,) 1…K."""


class PicturesWithoutFile(Protocol):
    """Opens pictures that lie in no file of theirs, by position in the index."""

    def decode(self, position: int, size: tuple[int, int], value_range: ValueRange) -> Image.Image:
        """As :func:`megdet_hvd.data.transforms.decode` does a file; ``size``: as annotated."""
        ...


class FieldsElsewhere(Protocol):
    """Fields of an index that other processes can find for themselves; pickled as a reference."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """By name."""
        ...


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """n pictures with m boxes, crowds among them, of K classes.

    Boxes of picture i are rows ``offsets[i]:offsets[i + 1]`` of the arrays of length m.
    """

    annotation_files: tuple[Path, ...]
    """The annotation files, in the order given; ``source`` counts in it."""
    folders: tuple[Path, ...]
    """Picture folder of each annotation file."""
    categories: tuple[str, ...]
    """K class names; label k is ``categories[k - 1]``."""
    category_ids: tuple[Id, ...]
    """K category ids of the files; label k is ``category_ids[k - 1]``."""
    sources: NDArray[np.int32]
    """(n,)"""
    image_ids: NDArray[np.int64]
    """(n,) the files' ids where they are whole numbers; else numbers in the ids' order."""
    file_names: Sequence[str]
    """n names of files on disk, relative to the picture's folder."""
    widths: NDArray[np.int32]
    """(n,) pixels."""
    heights: NDArray[np.int32]
    """(n,) pixels."""
    offsets: NDArray[np.int64]
    """(n + 1,)"""
    boxes: NDArray[np.float32]
    """(m, 4) x1 y1 x2 y2, clipped; of invalid boxes anything."""
    labels: NDArray[np.int64]
    """(m,) 1…K."""
    crowds: NDArray[np.bool_]
    """(m,)"""
    learnable: NDArray[np.bool_]
    """(m,) what training learns from: no crowds, nothing marked ignore, no invalid boxes."""
    areas: NDArray[np.float64]
    """(m,) as annotated, pixels²."""
    raw_boxes: NDArray[np.float64]
    """(m, 4) x y w h, as annotated."""
    original_ids: tuple[Id, ...] | None = None
    """n ids as the files have them; None where they are ``image_ids``."""
    headings: Mapping[Id, str] = field(default_factory=dict)
    """Categories that the files declare as a heading of others only; no classes here."""
    notes: tuple[str, ...] = ()
    """What was left out on reading, in words for the log."""
    doubts: tuple[str, ...] = ()
    """What looks wrong with the files, in words for the log."""
    value_range: ValueRange = "auto"
    """Black and white of pictures of more than 8 bits, as `decode` wants it."""
    pictures: PicturesWithoutFile | None = None
    """What opens the pictures of a data set of the user's own; None: they are files."""

    stored: FieldsElsewhere | None = None
    """Where fields lie that a process with a copy of this index need not be sent."""

    def __getstate__(self) -> dict[str, Any]:
        there = {} if self.stored is None else self.stored.fields
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in there or there[name] is not value
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        stored: FieldsElsewhere | None = state["stored"]
        self.__dict__.update({**({} if stored is None else stored.fields), **state})

    def opened_by(self, pictures: PicturesWithoutFile) -> "ImageIndex":
        """The same, of pictures that ``pictures`` opens."""
        return replace(self, pictures=pictures)

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def aspects(self) -> NDArray[np.float64]:
        """(n,) width over height."""
        return self.widths / self.heights

    def file(self, position: int) -> Path:
        """The picture file at a position."""
        return self.folders[int(self.sources[position])] / self.file_names[position]

    def original_id(self, position: int) -> Id:
        """The id of the picture at a position, as its file has it."""
        if self.original_ids is None:
            return int(self.image_ids[position])
        return self.original_ids[position]

    def record(self, position: int) -> ImageRecord:
        """The picture at a position, with the boxes to learn from."""
        rows = slice(self.offsets[position], self.offsets[position + 1])
        kept = self.learnable[rows]
        return ImageRecord(
            index=position,
            file=self.file(position),
            source=int(self.sources[position]),
            image_id=int(self.image_ids[position]),
            width=int(self.widths[position]),
            height=int(self.heights[position]),
            boxes=self.boxes[rows][kept],
            labels=self.labels[rows][kept],
        )

    def shown_rows(self, position: int) -> list[int]:
        """The boxes of the picture at a position that have a place in it, crowds included."""
        rows = range(int(self.offsets[position]), int(self.offsets[position + 1]))
        corners = self.boxes[rows.start : rows.stop]
        with np.errstate(invalid="ignore"):
            there = np.all(corners[:, 2:] > corners[:, :2], axis=1)
        return [rows[k] for k in np.flatnonzero(there)]

    def counts(self) -> str:
        """A line for the log: what is in the set."""
        boxes, crowds = int(self.learnable.sum()), int(self.crowds.sum())
        others = len(self.boxes) - boxes - crowds
        left = f"{counted(others, 'box')} not learned from, " if others else ""
        bare = counted(int((np.diff(self.offsets) == 0).sum()), "picture")
        return (
            f"{counted(len(self), 'picture')}, {counted(boxes, 'box')} of "
            f"{counted(len(self.categories), 'class')}, {counted(crowds, 'crowd')}, "
            f"{left}{bare} without any"
        )

    def summary(self) -> list[str]:
        """Lines for the log: what is in the set, and what was left out."""
        return [self.counts(), *self.notes]
