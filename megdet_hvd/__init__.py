"""MegDet on Horovod: object detectors trained with very large mini-batches."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``megdet_hvd.load_detector``, imported when it is asked for: it needs torch."""
    if name == "load_detector":
        return import_module("megdet_hvd.evaluation.predictor").load_detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
