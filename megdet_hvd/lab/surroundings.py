"""Where a record was made: versions, machine, day."""

import os
import platform
import time
from importlib import metadata
from typing import Any


def surroundings() -> dict[str, Any]:
    """What a record says of where it was made."""
    from megdet_hvd.bench.machine import processor

    packages = ("megdet_hvd", "torch", "torchvision", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "machine": f"{len(os.sched_getaffinity(0))} cores, {processor()}, {platform.system()}",
        "at": time.strftime("%Y-%m-%d"),
    }
