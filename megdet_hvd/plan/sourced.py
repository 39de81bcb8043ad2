"""A number that says where it comes from."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Origin = Literal["measured", "published", "derived", "assumed"]
ORIGINS: tuple[Origin, ...] = ("measured", "published", "derived", "assumed")


@dataclass(frozen=True)
class Sourced:
    """A value, how it was come by, and where: a machine, an address, or a sum."""

    value: float
    origin: Origin
    """``measured`` with the machine, ``published`` with an address, ``derived`` from those with the
    sum, ``assumed`` where nothing was found."""
    source: str


def read_sourced(entry: Mapping[str, Any]) -> Sourced:
    """From ``{value = 16, published = "address"}``.

    Raises:
        ValueError: no such entry, no number, or not exactly one origin.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"{entry!r} must be a value with where it comes from")
    origins = [origin for origin in ORIGINS if origin in entry]
    if len(origins) != 1:
        raise ValueError(f"one of {', '.join(ORIGINS)} must say where it comes from")
    value = entry.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"value={value!r} is not a number")
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"value={value!r} must be finite, and not below 0")
    return Sourced(float(value), origins[0], str(entry[origins[0]]))
