"""A folder's files copied, many at once; what an interrupted copy left whole is kept."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from megdet_hvd.errors import RunError
from megdet_hvd.staging.place import missing
from megdet_hvd.staging.source import THREADS, StagingSource
from megdet_hvd.storage import retried

PARTIAL = ".megdet_partial"
"""Ends the name of a file while it is copied, so that no half file has its real name."""


def copy_folder(source: StagingSource, place: Path) -> int:
    """Make ``place`` hold the source's files.

    Sizes are checked afterwards, checksums are not: shared file systems hold none to compare
    with, and one taken from what was just read would show that memory works.

    Returns:
        Bytes that were copied.

    Raises:
        RunError: the source changed meanwhile.
        OSError: reading or writing failed.
    """
    wanted = missing(place, source.files)
    for folder in sorted({os.path.dirname(name) for name in wanted}):
        (place / folder).mkdir(parents=True, exist_ok=True)

    def copy(name: str) -> None:
        partial = place / f"{name}{PARTIAL}"
        retried(lambda: shutil.copyfile(source.path / name, partial))
        partial.replace(place / name)

    pool = ThreadPoolExecutor(THREADS)
    try:
        for _ in pool.map(copy, wanted):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    changed = missing(place, source.files)
    if changed:
        raise RunError(
            f"{source.path / changed[0]} changed while it was copied ({len(changed)} files did); "
            "start the job again when nobody writes there"
        )
    return sum(source.files[name] for name in wanted)
