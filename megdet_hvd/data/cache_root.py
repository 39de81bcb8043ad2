"""The folder in which what can be made again is kept."""

import os
from pathlib import Path

from megdet_hvd.config.paths import expand_path


def cache_root() -> Path:
    """``$MEGDET_CACHE``, or ``~/.cache/megdet_hvd``; it may have to be made.

    Raises:
        UserError: a variable in it is not set.
    """
    return expand_path(os.environ.get("MEGDET_CACHE") or "~/.cache/megdet_hvd", "MEGDET_CACHE")
