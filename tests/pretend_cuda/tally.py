"""What a program asks of the device, counted where the program's own lines ask for it."""

import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NamedTuple

PACKAGE = str(Path(__file__).resolve().parents[2] / "megdet_hvd")
LIBRARIES = sysconfig.get_paths()["purelib"]


class Place(NamedTuple):
    """Where something was asked for."""

    own: str
    """``model/rpn.py:140``: the package's innermost line; of autograd, that of ``backward()``."""
    library: str
    """``torchvision/ops/boxes.py:143``, the innermost line outside of torch itself, where a
    library that the package calls asks; else empty."""

    def __str__(self) -> str:
        return f"{self.own} (in {self.library})" if self.library else self.own


@dataclass
class Tally:
    """Counts since the last :meth:`clear`."""

    syncs: Counter[tuple[Place, str]] = field(default_factory=Counter)
    """By place and kind: the host waits for the device."""
    launches: Counter[tuple[Place, str]] = field(default_factory=Counter)
    """By place and operator: the operator starts a kernel, or a few."""

    def clear(self) -> None:
        """Begin anew."""
        self.syncs.clear()
        self.launches.clear()

    def note_sync(self, kind: str) -> None:
        """The host waits, for ``kind``."""
        self.syncs[place(), kind] += 1

    def note_launch(self, operator: str) -> None:
        """``operator`` starts a kernel."""
        self.launches[place(), operator] += 1

    def syncs_table(self) -> str:
        """One place a line, for a message."""
        return _table(self.syncs)

    def launches_table(self, most: int = 25) -> str:
        """So, for operators; the ``most`` frequent places, all operators of a place together."""
        places: Counter[tuple[Place, str]] = Counter()
        for (where, _), count in self.launches.items():
            places[where, ""] += count
        return _table(Counter(dict(places.most_common(most))))


def _table(counts: Counter[tuple[Place, str]]) -> str:
    lines = [f"{n:6} {where} {kind}".rstrip() for (where, kind), n in counts.most_common()]
    return "\n".join([f"{sum(counts.values()):6} in all", *lines])


def place() -> Place:
    """Of the code that is running."""
    own, library = "", ""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and not own:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            own = f"{file[len(PACKAGE) + 1 :]}:{frame.f_lineno}"
        elif not library and file.startswith(LIBRARIES):
            inner = file[len(LIBRARIES) + 1 :]
            if not inner.startswith("torch/"):
                library = f"{inner}:{frame.f_lineno}"
        frame = frame.f_back
    return Place(own or "outside the package", library)
