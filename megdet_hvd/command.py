"""How a command leaves: with its code, whoever reads its output, and without a traceback.

``python -m megdet_hvd.data check … | head`` closes the pipe in the middle, and Ctrl-C says no more
than that it is enough.
"""

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

BROKEN_PIPE = 141
"""As shells say it of a program that SIGPIPE has ended."""
INTERRUPTED = 130
"""Likewise, of SIGINT."""
_STDOUT = 1


def leave(main: Callable[[], int]) -> NoReturn:
    """Run an entry point and leave with its exit code."""
    code: int | str | None
    open_what_is_closed()
    try:
        code = main()
    except SystemExit as leaving:  # --help, and wrong words
        code = leaving.code
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        code = BROKEN_PIPE
    except KeyboardInterrupt:
        with suppress(OSError, ValueError):
            print("interrupted", file=sys.stderr, flush=True)
        code = INTERRUPTED
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = code or (0 if _nobody_reads() else 1)
    if _nobody_reads():
        # What is still buffered has nowhere to go; Python would say so at exit, with another code.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    sys.exit(code)


def open_what_is_closed() -> None:
    """Give standard streams that were closed before the start (``>&-``, a daemon) to nobody.

    Python has None for them, and the next file that is opened, a checkpoint perhaps, would get the
    stream's number and all that libraries print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nobody = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nobody, mode, encoding="utf-8"))


def _nobody_reads() -> bool:
    """Whether standard output is a pipe that its reader has left."""
    poll = select.poll()
    try:
        poll.register(_STDOUT, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except OSError:
        return False
