"""What can be wrong with a data set, as values that can be counted and shown."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from megdet_hvd.grouping import grouped
from megdet_hvd.serialize import serializable

_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


@serializable
@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set."""

    kind: str
    """The rule that is broken, the same words for all problems alike."""
    file: str
    """The annotation file, or the picture, it was found in."""
    where: str
    """The entry: ``annotation 12 (image 3)``; empty where it is the whole file."""
    detail: str = ""
    """The value found."""

    def __str__(self) -> str:
        place = f"{self.file}, {self.where}" if self.where else self.file
        return f"{place}: {self.detail}" if self.detail else place


def report_lines(problems: Sequence[Problem], first: int = 3) -> list[str]:
    """One line per kind with its count, then the first few of each; with ``first=1`` beside it."""
    lines = []
    for kind, members in grouped(problems, lambda problem: problem.kind).items():
        if first == 1:
            more = ", the first" if len(members) > 1 else ""
            lines.append(f"{kind}: {len(members)}{more}: {members[0]}")
            continue
        lines.append(f"{kind}: {len(members)}")
        lines += [f"  {problem}" for problem in members[:first]]
        if len(members) > first:
            lines.append(f"  … and {len(members) - first} more")
    return lines


def printable(name: str) -> str:
    """A name that any file and terminal can take on one line: no control signs, no half letters."""
    return "".join(
        c.encode("unicode_escape").decode("ascii") if unicodedata.category(c) in _UNPRINTABLE else c
        for c in name
    )
