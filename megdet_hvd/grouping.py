"""Things put together by what they have in common."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

Thing = TypeVar("Thing")
Key = TypeVar("Key", bound=Hashable)


def grouped(things: Iterable[Thing], key: Callable[[Thing], Key]) -> dict[Key, list[Thing]]:
    """The things of each key, keys and things in the order in which they first appear."""
    groups: dict[Key, list[Thing]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return groups


def keys_by_value(values: Mapping[int, Key]) -> dict[Key, list[int]]:
    """The numbers (ranks, say) that have each value, ascending."""
    return grouped(sorted(values), values.__getitem__)
