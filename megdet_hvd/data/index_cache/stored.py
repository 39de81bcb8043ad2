"""An index as arrays in a file, and the file as an index."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.index_cache.arrays import MappedArrays, write_arrays
from megdet_hvd.data.index_cache.names import NameTable

ARRAYS = (
    *("sources", "image_ids", "widths", "heights", "offsets"),
    *("boxes", "labels", "crowds", "learnable", "areas", "raw_boxes"),
)
"""Fields of `ImageIndex` that are arrays."""


class StoredParts:
    """Fields of an index that lie in a mapped file. Pickled as a reference to it."""

    def __init__(self, arrays: MappedArrays) -> None:
        self._arrays = arrays
        self.fields = _fields(arrays.arrays)
        """By name."""

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredParts, (self._arrays,)


def write_index_file(
    path: Path, index: ImageIndex, names: Sequence[Sequence[str]], facts: Mapping[str, Any]
) -> None:
    """Write an index of pictures in files, without the places of its files.

    Args:
        path: the file.
        index: as `read_sources` gives it.
        names: of all pictures of each annotation file, those that the index leaves out too.
        facts: what else to keep; under names that are no fields of an index.

    Raises:
        OSError: it can't be written.
    """
    own = NameTable.of(index.file_names)
    others = [_beside(index, source, every) for source, every in enumerate(names)]
    left_out = NameTable.of(name for part in others for name in part)
    arrays = {name: getattr(index, name) for name in ARRAYS}
    words = {
        "categories": index.categories,
        "category_ids": index.category_ids,
        "headings": list(index.headings.items()),
        "original_ids": index.original_ids,
        "notes": index.notes,
        "doubts": index.doubts,
        "left_out": [len(part) for part in others],
    }
    arrays |= {"name_text": own.text, "name_ends": own.ends}
    arrays |= {"left_out_text": left_out.text, "left_out_ends": left_out.ends}
    write_arrays(path, arrays, {**facts, **words})


def as_index(
    facts: Mapping[str, Any],
    arrays: "MappedArrays | Mapping[str, Any]",
    annotation_files: Sequence[Path],
    folders: Sequence[Path],
) -> ImageIndex:
    """The index that was written, of files that lie here now.

    Args:
        facts: as they were read.
        arrays: a mapped file, or arrays that were read.
        annotation_files: as many as there were.
        folders: of the pictures of each.
    """
    stored = StoredParts(arrays) if isinstance(arrays, MappedArrays) else None
    fields = stored.fields if stored is not None else _fields(arrays)  # type: ignore[arg-type]
    original = facts["original_ids"]
    return ImageIndex(
        annotation_files=tuple(annotation_files),
        folders=tuple(folders),
        categories=tuple(facts["categories"]),
        category_ids=tuple(facts["category_ids"]),
        headings=dict(facts["headings"]),
        original_ids=None if original is None else tuple(original),
        notes=tuple(facts["notes"]),
        doubts=tuple(facts["doubts"]),
        stored=stored,
        **fields,
    )


def kept_names(
    facts: Mapping[str, Any], arrays: "MappedArrays | Mapping[str, Any]"
) -> list[list[str]]:
    """Names of the pictures of each annotation file, those that the index leaves out too."""
    found = arrays.arrays if isinstance(arrays, MappedArrays) else arrays
    own = list(NameTable(found["name_text"], found["name_ends"]))
    others = iter(NameTable(found["left_out_text"], found["left_out_ends"]))
    bounds = np.searchsorted(found["sources"], np.arange(len(facts["left_out"]) + 1)).tolist()
    return [
        own[bounds[source] : bounds[source + 1]] + list(islice(others, count))
        for source, count in enumerate(facts["left_out"])
    ]


def _beside(index: ImageIndex, source: int, every: Sequence[str]) -> list[str]:
    """Names of an annotation file's pictures that the index leaves out."""
    first, last = np.searchsorted(index.sources, [source, source + 1]).tolist()
    own = set(index.file_names[first:last])
    return [name for name in every if name not in own]


def _fields(arrays: Mapping[str, Any]) -> dict[str, Any]:
    names = NameTable(arrays["name_text"], arrays["name_ends"])
    return {**{name: arrays[name] for name in ARRAYS}, "file_names": names}
