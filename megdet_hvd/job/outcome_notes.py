"""How this program ends, told to the job's driver: what is known of the run, kept until then."""

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from megdet_hvd.cluster.driver_variables import OUTCOME
from megdet_hvd.cluster.outcome import Outcome, write_outcome
from megdet_hvd.storage import retried

_known = Outcome(code=0)


def begin() -> None:
    """A program begins: nothing is known of its run."""
    global _known
    _known = Outcome(code=0)


def note(
    *, message: str | None = None, iteration: int | None = None, run_folder: Path | None = None
) -> None:
    """Keep what the outcome will say; None leaves it as it is."""
    global _known
    if message is not None:
        _known = replace(_known, message=message)
    if iteration is not None:
        _known = replace(_known, iteration=iteration)
    if run_folder is not None:
        _known = replace(_known, run_folder=str(run_folder.absolute()))


def tell(code: int, message: str | None = None) -> None:
    """Write the outcome where the driver wants it (``MEGDET_OUTCOME``); else do nothing.

    ``message``: the error; None: what :func:`note` was given. The first rank to write wins.
    That it can't be written is a warning: the exit code still says the most important.
    """
    path = os.environ.get(OUTCOME)
    if not path:
        return
    said = _known.message if message is None else message
    try:
        retried(lambda: write_outcome(Path(path), replace(_known, code=code, message=said)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        with suppress(OSError, ValueError):  # nobody may read it any more
            sys.stderr.write(f"warning: {path}: the outcome can't be written ({reason})\n")
            sys.stderr.flush()
