"""The first pictures that an annotation file names, found without parsing all of it."""

import json
import mmap
import re
from itertools import islice
from pathlib import Path

from megdet_hvd.data.annotations import read_annotation_file

_NAMES = [
    re.compile(rb'"' + key + rb'"\s*:\s*("(?:[^"\\]|\\.)*")') for key in (b"file_name", b"coco_url")
]
"""LVIS has a web address only."""


def first_names(annotations: Path, most: int) -> list[str]:
    """Up to ``most`` picture names, in the order of the file.

    Files in which they don't stand as plain letters (UTF-16) are parsed.

    Raises:
        OSError: it can't be read.
        UserError: it had to be parsed, and is not COCO format.
    """
    with annotations.open("rb") as file:
        if annotations.stat().st_size == 0:
            return []
        for pattern in _NAMES:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                # No name for the iterator: it would hold the map open.
                found = [match[1] for match in islice(pattern.finditer(content), most)]
            names = _decoded(found)
            if names:
                return names
    return read_annotation_file(annotations).file_names[:most]


def _decoded(found: list[bytes]) -> list[str]:
    try:
        return [str(json.loads(name)) for name in found]
    except ValueError:  # another encoding, or no JSON at all
        return []
