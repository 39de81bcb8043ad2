"""What is known of prepared pictures, one JSON line each, beside their copies.

It makes a prepared set whole: a set without it, or with fewer lines than it promises, is mended.
"""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.serialize import serializable

VERSION = 2
"""Raised when sets prepared by a former version are of no use to this one."""

FORMAT = "megdet_hvd prepared data"
INDEX = "index.jsonl"


@serializable
@dataclass(frozen=True)
class Entry:
    """A picture that was found to be sound."""

    file_bytes: int
    """Size of its file."""
    modified_ns: int
    """When its file was written."""
    width: int
    """Pixels, as annotated."""
    height: int
    """Pixels, as annotated."""
    kept_width: int
    """Pixels of what training reads: less than ``width`` where it was scaled down."""
    kept_height: int
    copy: str = ""
    """Name of the smaller copy; empty: training reads the file itself."""
    copy_bytes: int = 0
    """Size of the smaller copy."""
    value_range: str = ""
    """Black and white that the smaller copy was made with; empty: those of its format."""

    @property
    def scaled(self) -> bool:
        """Whether training reads a smaller copy."""
        return bool(self.copy)


@dataclass(frozen=True)
class Index:
    """A prepared set."""

    annotations: Path
    """The annotation file that it was made from."""
    images: Path
    """The folder of its pictures."""
    names: Sequence[str]
    """The pictures, as the annotation file has them."""
    entries: Sequence[Entry | None]
    """What is known of each; None: it could not be read."""


def write_index(folder: Path, index: Index) -> None:
    """Write it into the folder of the set, whole or not at all. Raises OSError."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "annotations": str(index.annotations),
        "images": str(index.images),
        "pictures": len(index.names),
    }
    lines = [json.dumps(head)]
    for name, entry in zip(index.names, index.entries, strict=True):
        lines.append(json.dumps([name, None if entry is None else astuple(entry)]))
    write_bytes(folder / INDEX, ("\n".join(lines) + "\n").encode())


def read_index(folder: Path) -> Index | None:
    """What was written; None where there is nothing, or nothing that this version can use."""
    try:
        with (folder / INDEX).open(encoding="utf-8") as file:
            head = _head(file.readline())
            if head is None:
                return None
            pairs = [json.loads(line) for line in file]
        entries = [None if known is None else Entry(*known) for _, known in pairs]
        if len(pairs) != head["pictures"]:
            return None
        names = [str(name) for name, _ in pairs]
        return Index(Path(head["annotations"]), Path(head["images"]), names, entries)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def source_of(folder: Path) -> tuple[Path, Path] | None:
    """The annotation file and the picture folder that a set was made from; None: it is none."""
    try:
        with (folder / INDEX).open(encoding="utf-8") as file:
            head = _head(file.readline())
        return None if head is None else (Path(head["annotations"]), Path(head["images"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _head(line: str) -> dict[str, Any] | None:
    head: dict[str, Any] = json.loads(line)
    return head if (head["format"], head["version"]) == (FORMAT, VERSION) else None
