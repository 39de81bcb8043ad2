"""The former name of :mod:`megdet_hvd.job.session`."""

import warnings
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    found = getattr(import_module("megdet_hvd.job.session"), name)
    warnings.warn(
        f"megdet_hvd.comm.session.{name} has moved: import it from megdet_hvd.job.session",
        FutureWarning,
        stacklevel=2,
    )
    return found
