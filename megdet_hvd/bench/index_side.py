"""One process that opens an annotation file: a side of ``bench index``, on orders by lines.

``python -m megdet_hvd.bench.index_side SIDE FOLDER CACHE`` says "ready", and opens at the first
line it is sent; it says what that took, its memory at the second, goes through all of it at the
third and says what it was; it says its memory again at the fourth, and ends.
"""

import contextlib
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from megdet_hvd.bench.peak import peak_bytes
from megdet_hvd.data.index_cache import cache as index_cache
from megdet_hvd.data.index_cache.cache import HowToRead, read_kept
from megdet_hvd.data.source import PictureSource

MIB = 2**20


def main() -> int:
    """Open once."""
    side, folder, cache = sys.argv[1:]
    source = PictureSource(Path(folder) / "set.json", Path(folder) / "pictures")
    opens = pycocotools(source) if side == "pycocotools" else ours(source, cache)
    itself = psutil.Process()
    before = itself.memory_full_info().uss
    _say({"ready": os.getpid()})
    sys.stdin.readline()
    began, processor = time.perf_counter(), time.process_time()
    opened = opens()
    _say({"clock_s": time.perf_counter() - began, "processor_s": time.process_time() - processor})
    sys.stdin.readline()
    _say({"private_mib": (itself.memory_full_info().uss - before) / MIB})
    sys.stdin.readline()
    peak = peak_bytes() / MIB  # opening's; what comes is our own doing
    _say({"content": opened(), "peak_mib": peak})
    sys.stdin.readline()
    _say({"private_used_mib": (itself.memory_full_info().uss - before) / MIB})
    return 0


def ours(source: PictureSource, cache: str) -> Callable[[], Callable[[], str]]:
    """How a training opens its pictures; what was opened is told by a digest of it."""
    index_cache.WORTH_IT_BYTES = 0

    def opens() -> Callable[[], str]:
        how = HowToRead(keep_empty=True, invalid_boxes="stop")
        index = read_kept([source], how, cache, makes=True)
        return lambda: _digest(index.image_ids, index.offsets, index.raw_boxes)

    return opens


def pycocotools(source: PictureSource) -> Callable[[], Callable[[], str]]:
    """As its users open an annotation file; it looks for no pictures."""
    from pycocotools.coco import COCO

    def opens() -> Callable[[], str]:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(source.annotations))

        def content() -> str:
            ids = [image["id"] for image in coco.dataset["images"]]
            of = [coco.imgToAnns.get(number, []) for number in ids]
            boxes = [entry["bbox"] for entries in of for entry in entries]
            offsets = np.cumsum([0, *map(len, of)])
            return _digest(
                np.asarray(ids, np.int64),
                offsets.astype(np.int64),
                np.asarray(boxes, np.float64).reshape(-1, 4),
            )

        return content

    return opens


def _digest(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    sys.exit(main())
