"""What is known of prepared pictures, in a file: a second run looks only at what has changed."""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from megdet_hvd.serialize import serializable
from megdet_hvd.storage import temporary_beside

VERSION = 1
"""Raised when pictures prepared by a former version must be prepared again."""


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

    @property
    def scaled(self) -> bool:
        """Whether training reads a smaller copy."""
        return (self.kept_width, self.kept_height) != (self.width, self.height)


def write_index(path: Path, entries: Mapping[str, Entry]) -> None:
    """By file name, as the annotation file has it. Raises OSError."""
    content = {"version": VERSION, "pictures": {n: astuple(e) for n, e in entries.items()}}
    temporary = temporary_beside(path)
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(path)


def read_index(path: Path) -> dict[str, Entry]:
    """What was written; empty where there is nothing, or nothing that this version can use."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return {}
        return {name: Entry(*values) for name, values in content["pictures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
