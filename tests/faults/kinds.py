"""The kinds of fault, and what a run that suffers one must do."""

import re
from dataclasses import dataclass
from typing import Literal

Program = Literal["train", "pipeline"]

FINISHED, FAULT, USER_ERROR, RUN_ERROR, HANG, STOPPED, STORAGE_ERROR = range(7)
"""Exit codes that a run tells in its outcome."""
KILLED = None
"""No outcome: all ranks were gone before one could write it."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    name: str
    what: str
    """For the table."""
    moments: tuple[str, ...]
    """When it may come: see :mod:`tests.faults.victim`; ``before``: between two starts."""
    codes: frozenset[int | None] = frozenset()
    """How the attempt may end because of it; empty: it goes on."""
    says: str = ""
    """Regular expression that must match the attempt's output; ``{rank}`` is the faulty rank."""
    programs: tuple[Program, ...] = ("train", "pipeline")
    main_rank: bool = False
    """It comes to rank 0, which writes the files."""
    ranks: int = 1
    """Wants at least so many."""
    tracebacks: int = 0
    """So many at most: a fault of code is shown with its traceback, and that of its cause."""
    settings: tuple[str, ...] = ()
    """What the attempt must be started with for it."""
    weight: int = 2
    """How often it is drawn, against others."""

    @property
    def ends(self) -> bool:
        """Whether the attempt ends because of it."""
        return bool(self.codes)

    def told(self, output: str, rank: int) -> bool:
        """Whether the output says what it must."""
        return re.search(self.says.format(rank=rank), output) is not None


def _codes(*codes: int | None) -> frozenset[int | None]:
    return frozenset(codes)


_STOP = _codes(STOPPED, FINISHED)  # it may meet the last step, which is then the end
_DEAD = _codes(KILLED, FAULT, HANG)

KINDS: tuple[Kind, ...] = (
    Kind(
        "kill",
        "kill -9 of a rank in a step, in a BN sum, in evaluation, before a checkpoint's rename",
        ("step", "bn", "evaluation", "checkpoint"),
        _DEAD,
        r"(?i)rank {rank}\b.*(ended|killed|signal 9)|signal 9|Killed|exit code: 137|-9",
        weight=4,
    ),
    Kind(
        "stopped",
        "SIGSTOP of a rank for good",
        ("step",),
        _codes(HANG),
        r"the job hangs[\s\S]*rank {rank} ",
        ranks=2,
        weight=1,
    ),
    Kind("paused", "SIGSTOP, and SIGCONT 1.5 s later", ("step", "evaluation")),
    Kind(
        "exception",
        "an exception in a step of one rank",
        ("step",),
        _codes(FAULT),
        r"rank {rank}.*\n?[\s\S]*InjectedFault: in a step",
        tracebacks=1,
    ),
    Kind(
        "skipped layer",
        "a rank that skips one CGBN layer",
        ("step",),
        _codes(HANG, FAULT),
        r"the job hangs|HorovodInternalError|out of step",
        ranks=2,
        tracebacks=1,
        weight=1,
    ),
    Kind(
        "NaN",
        "a loss that is not a number, on one rank",
        ("step",),
        _codes(RUN_ERROR),
        r"error: .*(iteration|step) \d+.*(finite|nan)",
    ),
    Kind(
        "full disk",
        "the run folder's disk full for three steps",
        ("step",),
        says=r"No space left|File too large",
        main_rank=True,
        weight=3,
    ),
    Kind(
        "full disk at the stop",
        "TERM, and no space for the last checkpoint",
        ("step",),
        _codes(RUN_ERROR),
        r"error: .*checkpoint could not be written.*(No space left|File too large)",
        main_rank=True,
    ),
    Kind(
        "damaged checkpoint",
        "the newest checkpoint torn, or one bit of it flipped",
        ("before",),
        says=r"damaged",
        main_rank=True,
        weight=3,
    ),
    Kind(
        "storage once",
        "ESTALE or EIO, once, when a picture is read",
        ("step",),
        settings=("data.workers=0",),
        weight=4,
    ),
    Kind(
        "storage for good",
        "ESTALE or EIO at every read of a picture",
        ("step",),
        _codes(STORAGE_ERROR),
        r"error: .*(Stale file handle|Input/output error)",
        settings=("data.workers=0",),
    ),
    Kind(
        "unreadable checkpoint",
        "EIO at every read of the checkpoint to carry on from",
        ("start",),
        _codes(STORAGE_ERROR),
        r"error: .*Input/output error",
        main_rank=True,
        weight=1,
    ),
    Kind(
        "corrupt picture",
        "a picture that becomes unreadable in mid-run, and is mended for the next start",
        ("step",),
        _codes(RUN_ERROR),
        r"error: .*can't be read",
        settings=("data.workers=0",),
    ),
    Kind(
        "second writer",
        "another training in the same run folder",
        ("step",),
        says=r"SECOND WRITER refused with 2: error: .*process \d+ on \S+, since 2",
        programs=("train",),
        main_rank=True,
        weight=1,
    ),
    Kind(
        "TERM or USR1",
        "a stop request, at start-up, in a step, in evaluation, while a checkpoint is written",
        ("start", "step", "evaluation", "checkpoint"),
        _STOP,
        r"stopped on request|finished after",
        weight=4,
    ),
    Kind(
        "strangers",
        "strangers' lines on every port of the job",
        ("step",),
        ranks=2,  # one alone listens on none
        weight=4,
    ),
    Kind("clock", "a rank's clock set back by a day", ("step",)),
    Kind(
        "loader killed",
        "kill -9 of a loader process",
        ("step",),
        _codes(RUN_ERROR, FAULT, STORAGE_ERROR),
        r"(?i)loader|DataLoader worker|data\.workers",
        settings=("data.workers=1",),
        tracebacks=1,
    ),
    Kind(
        "side product",
        "ValueError, MemoryError, KeyError … from a picture of curves or detections",
        ("evaluation",),
        # It is said once: by the full disk, where that came before.
        says=r"warning: .*InjectedFault|warning: the picture of .*No space left.*said once",
        main_rank=True,
        weight=3,
    ),
    Kind(
        "evaluator fails",
        "an exception in the evaluators' work",
        ("evaluation",),
        programs=("pipeline",),
        says=r"error: iteration \d+ is not evaluated: .*InjectedFault",
        tracebacks=2,
        weight=4,
    ),
    Kind(
        "evaluator killed",
        "kill -9 of an evaluator",
        ("evaluation",),
        _codes(KILLED, FAULT, HANG, FINISHED),
        r"rank {rank}|signal 9|Killed",
        programs=("pipeline",),
        weight=2,
    ),
)

BY_NAME = {kind.name: kind for kind in KINDS}
