"""The exceptions that end a run with one clear message and no traceback, and all exit codes.

Entry points print the text once and leave with the exit code beside it; a traceback is for
faults of this package.
"""

FINISHED = 0
FAULT = 1
"""A fault of this package, with its traceback."""
USER_ERROR = 2
"""Bad input."""
RUN_ERROR = 3
"""A run that cannot go on."""
HANG = 4
"""A job that hangs, ended by its watchdog."""
STOPPED = 5
"""Stopped on request: nothing is wrong, and the run can be carried on."""
STORAGE_ERROR = 6
"""Storage that fails for the moment: the same may go well later."""


class UserError(ValueError):
    """Bad input. The text names the value, the rule it breaks, and the fix. Exit code 2."""


class RunError(RuntimeError):
    """A run that cannot go on. The text names iteration, rank and reason. Exit code 3."""


class StorageError(RuntimeError):
    """Storage that fails for the moment (a stale handle, an I/O error, too many open files).

    Neither the input nor the run is at fault, so the same may go well later: a job is requeued.
    The text names the file and what failed. Exit code 6.
    """


class MemberError(RunError):
    """Another member of a training inside an MPI program failed; the text has its error's."""

    def __init__(self, rank: int, kind: str, text: str) -> None:
        super().__init__(f"rank {rank} failed: {kind}: {text}")
        self.rank = rank
        """Who failed, by its rank in the communicator."""
        self.kind = kind
        """Name of its exception's type."""
        self.text = text
        """The exception's text."""


def exit_code_of(error: UserError | RunError | StorageError) -> int:
    """The exit code of a program that this error ends."""
    if isinstance(error, StorageError):
        return STORAGE_ERROR
    return USER_ERROR if isinstance(error, UserError) else RUN_ERROR


def text_of(error: BaseException) -> str:
    """An exception's text; what others' exceptions make of it may fail itself."""
    try:
        return str(error)
    except Exception as fault:
        return f"<its text can't be had: {type(fault).__name__}>"
