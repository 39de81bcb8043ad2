"""Names for what is cached, and the stamp of an environment. Values in, values out."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

RECIPE = 1
"""Raise it when the way Horovod is built changes without any other part of the key."""


def fingerprint(value: object) -> str:
    """Twelve hexadecimal digits of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def wheel_key(parts: Mapping[str, str]) -> str:
    """Folder name of a built wheel: the leading versions to read, the rest as a fingerprint.

    ``parts`` needs ``horovod``, ``torch``, ``python`` and ``mpi``; every other entry (GPU
    architectures, CUDA and NCCL versions, edits, machine …) counts as much.
    """
    shown = "_".join(f"{name}-{parts[name]}" for name in ("horovod", "torch", "python", "mpi"))
    shown = re.sub(r"[^A-Za-z0-9._-]+", "-", shown)  # builds lie below it: see build_folder
    return f"{shown}_{fingerprint({**parts, 'recipe': RECIPE})}"


def ready(stamp: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Whether the stamp describes a finished environment that has all that is wanted."""
    if stamp is None or stamp.get("state") != "ready":
        return False
    return all(stamp.get(name) == value for name, value in wanted.items())
