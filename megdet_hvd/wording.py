"""How messages write counts, ranks, long lists and durations. Pure."""

from collections.abc import Iterable, Sequence


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2 images``; ``2 passes``, ``2 processes``, ``2 boxes``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}es" if noun.endswith(("s", "x")) else f"{number} {noun}s"


def number_ranges(numbers: Iterable[int], separator: str = ", ") -> str:
    """``(0, 1, 2, 5)`` as ``0-2, 5``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return separator.join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def ranks_in_words(ranks: Sequence[int]) -> str:
    """``rank 3``, or ``ranks 0-7, 16``."""
    return f"rank{'s' if len(ranks) > 1 else ''} {number_ranges(ranks)}"


def first_of(names: Sequence[object], shown: int, rest: str = "") -> str:
    """``a, b``, or ``a, b and 3 more``: the first ``shown``; ``rest`` stands behind ``more``."""
    left = len(names) - shown
    text = ", ".join(str(name) for name in names[:shown])
    return f"{text} and {left} more{rest}" if left > 0 else text


def duration(seconds: float) -> str:
    """``2 d 3 h``, ``3 h 20 min``, ``12 min`` or ``40 s``."""
    whole = int(seconds)
    if whole >= 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min" if whole >= 100 else f"{whole} s"


def hours_minutes_seconds(seconds: float) -> str:
    """``3725.4`` as ``1:02:05``, as progress bars write it."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
