"""The pictures of a data set and their boxes, as flat arrays that are cheap to hand to workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.config.sections.data import ValueRange


@dataclass(frozen=True)
class Record:
    """One picture, not yet decoded."""

    index: int
    """Position in the data set."""
    file: Path
    """The picture file."""
    source: int
    """Position of its annotation file in the list of files."""
    image_id: int
    """Id in that file."""
    width: int
    """Pixels, as annotated."""
    height: int
    """Pixels, as annotated."""
    boxes: NDArray[np.float32]
    """(n, 4) x1 y1 x2 y2, clipped to the picture. No crowds."""
    labels: NDArray[np.int64]
    """(n,) 1…K."""


class _Records(Sequence[Record]):
    def __init__(self, index: "ImageIndex") -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self._index.record(i) for i in range(len(self))[position]]
        return self._index.record(range(len(self))[position])

    def __iter__(self) -> Iterator[Record]:
        return (self._index.record(i) for i in range(len(self)))


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
    category_ids: tuple[int, ...]
    """K category ids of the files; label k is ``category_ids[k - 1]``."""
    sources: NDArray[np.int32]
    """(n,)"""
    image_ids: NDArray[np.int64]
    """(n,)"""
    file_names: list[str]
    """n names, relative to the picture's folder."""
    widths: NDArray[np.int32]
    """(n,) pixels."""
    heights: NDArray[np.int32]
    """(n,) pixels."""
    offsets: NDArray[np.int64]
    """(n + 1,)"""
    boxes: NDArray[np.float32]
    """(m, 4) x1 y1 x2 y2, clipped."""
    labels: NDArray[np.int64]
    """(m,) 1…K."""
    crowds: NDArray[np.bool_]
    """(m,)"""
    areas: NDArray[np.float64]
    """(m,) as annotated, pixels²."""
    raw_boxes: NDArray[np.float64]
    """(m, 4) x y w h, as annotated."""
    notes: tuple[str, ...] = ()
    """What was left out on reading, in words for the log."""
    value_range: ValueRange = "auto"
    """Black and white of pictures of more than 8 bits, as `decode` wants it."""

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def records(self) -> Sequence[Record]:
        """The pictures one by one, made when asked for."""
        return _Records(self)

    @property
    def aspects(self) -> NDArray[np.float64]:
        """(n,) width over height."""
        return self.widths / self.heights

    def file(self, position: int) -> Path:
        """The picture file at a position."""
        return self.folders[int(self.sources[position])] / self.file_names[position]

    def record(self, position: int) -> Record:
        """The picture at a position, with its boxes, crowds left out."""
        rows = slice(self.offsets[position], self.offsets[position + 1])
        kept = ~self.crowds[rows]
        return Record(
            index=position,
            file=self.file(position),
            source=int(self.sources[position]),
            image_id=int(self.image_ids[position]),
            width=int(self.widths[position]),
            height=int(self.heights[position]),
            boxes=self.boxes[rows][kept],
            labels=self.labels[rows][kept],
        )

    def ground_truth(self, positions: Sequence[int] | None = None) -> dict[str, list[Any]]:
        """The pictures at ``positions`` (all by default) as a COCO dictionary, crowds included.

        Image ids are the positions, so that several annotation files never collide; annotation
        ids count from 1, since the COCO evaluation takes 0 for "no match"; category ids are the
        files' own. Boxes are those of the file, not clipped, as the COCO evaluation has it.
        """
        chosen = range(len(self)) if positions is None else positions
        annotations: list[dict[str, Any]] = []
        for position in chosen:
            for row in range(self.offsets[position], self.offsets[position + 1]):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": int(position),
                        "category_id": self.category_ids[self.labels[row] - 1],
                        "bbox": [float(v) for v in self.raw_boxes[row]],
                        "area": float(self.areas[row]),
                        "iscrowd": int(self.crowds[row]),
                    }
                )
        images = [
            {
                "id": int(p),
                "file_name": self.file_names[p],
                "width": int(self.widths[p]),
                "height": int(self.heights[p]),
            }
            for p in chosen
        ]
        categories = [
            {"id": number, "name": name}
            for number, name in zip(self.category_ids, self.categories, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def summary(self) -> list[str]:
        """Lines for the log: what is in the set, and what was left out."""
        crowds = int(self.crowds.sum())
        per_image = np.diff(self.offsets)
        lines = [
            f"{len(self)} pictures, {len(self.boxes) - crowds} boxes of "
            f"{len(self.categories)} classes, {crowds} crowds, "
            f"{int((per_image == 0).sum())} pictures without any"
        ]
        return lines + list(self.notes)
