"""Ids of pictures, categories and annotations: whatever JSON has for a number or a name.

pycocotools takes anything that can be a dictionary's key; as keys 2 and 2.0 are equal, so are true
and 1, and "2" is another. Files have all of them: tables write 2.0, exports "2", or hashes of
64 bits and more, or names of frames.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Id = int | float | str
"""An id as its file has it, whole numbers as ``int``."""

_WHOLE = re.compile(r"[+-]?\d{1,40}(?:\.0*)?")


def as_id(value: Any) -> Id | None:
    """The id that a JSON value is, or numpy's of the same; 2.0 is 2, true is 1.

    None for what can't be one.
    """
    if isinstance(value, np.generic):  # of a table's column
        value = value.item()
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and not math.isnan(value):
        return int(value) if value.is_integer() else value
    return None


def in_order(ids: Iterable[Id]) -> list[Id]:
    """Ids as COCOeval sorts them, numbers by value and names by letters; numbers come first."""
    return sorted(ids, key=lambda one: (isinstance(one, str), one))


def loosely(known: Collection[Id]) -> Mapping[Id, Id]:
    """For ids in another dress (2 for "2", "2" for 2, "2.0" for either) the known one.

    Only where one alone is meant: of "07" and "7" neither is known as 7.
    """
    found: dict[Id, Id] = {}
    doubtful: set[Id] = set()
    for one in known:
        key = whole_number(one)
        if key is None:
            continue
        if key in found:
            doubtful.add(key)
        found[key] = one
    return {key: one for key, one in found.items() if key not in doubtful}


def whole_number(one: Id) -> int | None:
    """The number that an id is or spells; None for other names."""
    if isinstance(one, str):
        text = one.strip()
        return int(text.split(".")[0]) if _WHOLE.fullmatch(text) else None
    return one if isinstance(one, int) else None


def numbers(ids: Sequence[Id]) -> tuple[NDArray[np.int64], tuple[Id, ...] | None]:
    """A different int64 for each of n different ids, in COCOeval's order, and the ids behind them.

    Where the ids are whole numbers that fit, they are their own numbers, and the second is None.
    """
    if all(isinstance(one, int) for one in ids):
        try:
            return np.asarray(ids, np.int64).reshape(len(ids)), None
        except OverflowError:
            pass
    rank = {one: number for number, one in enumerate(in_order(ids))}
    return np.asarray([rank[one] for one in ids], np.int64), tuple(ids)
