"""The parts of a visit, in their order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gpu.visit.record import Value

BUILD = "horovod_build"
"""The part that others wait for where they need Horovod."""


@dataclass(frozen=True)
class Setting:
    """What a part is given."""

    device: str
    """``cuda`` or ``cpu``."""
    small: bool
    """A trial of the program itself: sizes of seconds on a CPU, of which no figure counts."""
    folder: Path
    """Of its own, for files."""
    carried: Path | None = None
    """What ``pack`` filled."""


Measure = Callable[[Setting], Iterable[tuple[str, Value]]]
"""Gives one quantity after the other; each is on the disk before the next is measured."""


@dataclass(frozen=True)
class Part:
    """One."""

    name: str
    """Of a module of this package with a function ``measure``: a :data:`Measure`."""
    limit_s: float
    shows: str
    """What only a GPU can show, in words."""
    needs_horovod: bool = True
    timed: bool = True
    """Whether its times count: no other part runs meanwhile, but for Horovod's build."""
    beside: bool = False
    """Runs beside the others, from the beginning on."""


PARTS: tuple[Part, ...] = (
    Part(BUILD, 240, "Horovod, built here", needs_horovod=False, timed=False, beside=True),
    Part("machine", 30, "GPU, driver, versions, compilers", needs_horovod=False, timed=False),
    Part("syncs", 40, "where a step makes the host wait", needs_horovod=False, timed=False),
    Part("kernel_tests", 60, "tests/gpu, kernels", needs_horovod=False, timed=False),
    Part("bn_kernels", 60, "CGBN's arithmetic against float64, and its time", needs_horovod=False),
    Part("fused", 75, "CGBN's own kernels, and their time", needs_horovod=False),
    Part("two_ranks", 90, "two processes on the GPU: sums and gradients through NCCL"),
    Part("steps", 130, "steps of 2 pictures beside torchvision's"),
    Part("large_batches", 70, "steps of 8 and 12 pictures"),
    Part("profile", 50, "kernels, launches, idle time; new canvases"),
    Part("training_tests", 120, "trainings in three precisions", timed=False),
    Part("repeated", 100, "deterministic=true twice", timed=False),
    Part("lost_rank", 100, "a rank is killed, a rank is stopped", timed=False),
    Part("overflow", 60, "float16: a rank's gradients overflow", timed=False),
    Part("four_ranks", 90, "two process sets beside the global one", timed=False),
    Part("memory", 90, "memory.checkpoint=auto, predicted and true", timed=False),
    Part("doctor", 40, "what the doctor says", timed=False),
    Part("peer", 110, "sums between GPUs without Horovod"),
)
"""What retires most comes first: a visit may end before the last."""


def chosen(names: Sequence[str]) -> tuple[Part, ...]:
    """Those of these names, in their order; all where none is named.

    Raises:
        ValueError: there is none of that name.
    """
    known = {part.name: part for part in PARTS}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no part {name!r}: {', '.join(known)}")
    return tuple(part for part in PARTS if not names or part.name in names)


def command_of(python: str, part: Part, setting: Setting) -> list[str]:
    """What runs it."""
    words: list[Any] = [python, "-m", "tests.gpu.visit.part", part.name, setting.folder]
    words += ["--device", setting.device]
    words += ["--small"] if setting.small else []
    words += [] if setting.carried is None else ["--carried", setting.carried]
    return [*map(str, words)]
