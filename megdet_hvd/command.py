"""What a command is called, and how it leaves: with its code, and without a traceback.

``python -m megdet_hvd.data check … | head`` closes the pipe in the middle, and Ctrl-C says no more
than that it is enough.
"""

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

BROKEN_PIPE = 141
"""As shells say it of a program that SIGPIPE has ended."""
INTERRUPTED = 130
"""Likewise, of SIGINT."""
BAD_INPUT, STORAGE_ERROR = 2, 6
"""As in errors.py, which stands beside this module."""
_STDOUT = 1
_ENVIRONMENT = frozenset(
    {"PIL", "filelock", "horovod", "matplotlib", "mpi4py", "numpy", "psutil", "pycocotools"}
    | {"pydantic", "pydantic_core", "torch", "torchvision", "tqdm", "yaml"}
)
"""Modules that only the environment is sure to have; without them another Python was started."""
_NEEDED_AT_ONCE = ("pydantic", "yaml", "filelock")
"""Those of them that configuration and run folders need."""

SCRIPTS = {
    "megdet-train": "megdet_hvd.train",
    "megdet-evaluate": "megdet_hvd.evaluate",
    "megdet-predict": "megdet_hvd.predict",
    "megdet-data": "megdet_hvd.data.__main__",
    "megdet-pipeline": "megdet_hvd.pipeline.__main__",
    "megdet-submit": "megdet_hvd.submit.__main__",
    "megdet-doctor": "megdet_hvd.doctor.__main__",
    "megdet-preflight": "megdet_hvd.preflight.__main__",
    "megdet-placement": "megdet_hvd.placement",
    "megdet-bench": "megdet_hvd.bench.__main__",
    "megdet-plan": "megdet_hvd.plan.__main__",
    "megdet-init": "megdet_hvd.init",
}
"""The console scripts of an installed package, and the module whose ``main`` each runs."""


def words_of(module: str) -> list[str]:
    """The words that start a program in the way this process was started.

    Args:
        module: the program, such as ``megdet_hvd.train``.

    Returns:
        ``["megdet-train"]`` in a process that one of the console scripts has started, else
        ``["python", "-m", "megdet_hvd.train"]``; so, too, where the module has no script.
    """
    script = f"megdet-{module.removeprefix('megdet_hvd.')}"
    if script in SCRIPTS and Path(sys.argv[0] if sys.argv else "").name in SCRIPTS:
        return [script]
    return ["python", "-m", module]


def name_of(module: str) -> str:
    """:func:`words_of` as one text: ``python -m megdet_hvd.train``, or ``megdet-train``."""
    return " ".join(words_of(module))


def leave(main: Callable[[], int]) -> NoReturn:
    """Run an entry point and leave with its exit code."""
    code: int | str | None
    problem: str | None = None
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
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _ENVIRONMENT:
            raise
        _say_that_it_lacks(package)
        code = BAD_INPUT
    except OSError as error:
        of_a_file = error.filename is not None  # a stream that can't be written has no name
        problem = None if of_a_file else _output_problem() or _output_problem(b"\n")
        if problem is None:
            raise
        code = STORAGE_ERROR
    problem = problem or _output_problem()
    if problem is not None and not _nobody_reads():
        with suppress(OSError, ValueError):
            print(
                f"error: standard output can't be written ({problem}): make room, or send it "
                "elsewhere",
                file=sys.stderr,
                flush=True,
            )
        code = code or STORAGE_ERROR
    if problem is not None or _nobody_reads():
        # What is still buffered has nowhere to go; Python would say so at exit, with another code.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    sys.exit(code)


def _output_problem(probe: bytes = b"") -> str | None:
    """Why standard output takes nothing more, such as a full disk; None: it does.

    What could not be written stays in its buffer, and fails again; without a buffer
    (``PYTHONUNBUFFERED``) it takes a probe.
    """
    try:
        sys.stdout.flush()
        if probe:
            os.write(_STDOUT, probe)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError:  # it was closed by the program
        return None
    return None


def need_environment() -> None:
    """Leave with one line where the packages that every program needs at once are not there.

    Called before they are imported, by modules that are a program and a part of the library.
    """
    for package in _NEEDED_AT_ONCE:
        if find_spec(package) is None:
            _say_that_it_lacks(package)
            sys.exit(BAD_INPUT)


def _say_that_it_lacks(package: str) -> None:
    with suppress(OSError, ValueError):
        print(
            f"error: {sys.executable} lacks {package}: it is not the environment's Python, or "
            "that is not finished. source .venv/bin/activate, or put install/run before the "
            f"command; make setup makes the environment, and {name_of('megdet_hvd.doctor')} shows "
            "what is missing",
            file=sys.stderr,
            flush=True,
        )


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
