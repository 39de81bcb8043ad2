"""How a program ended, in a file: launchers lose exit codes (horovodrun --gloo returns 1 for all).

The rank that ends the run writes it, the job's driver reads it.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from megdet_hvd.storage import retried, temporary_beside


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    code: int
    """The exit code, as in :mod:`megdet_hvd.errors`."""
    message: str = ""
    """The error, or what was done."""
    iteration: int | None = None
    """Training steps done; None: it had not come to train."""
    run_folder: str | None = None
    """Where the run lies; None: it has no folder yet."""


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write it, whole or not at all. The first to write wins: the others end because of it.

    Raises:
        OSError: the file can't be written.
    """
    temporary = temporary_beside(path)  # of ranks on several machines, whose numbers may be equal
    temporary.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    try:
        with suppress(FileExistsError):
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                with path.open("x", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(outcome)))
    finally:
        temporary.unlink()


def read_outcome(path: Path) -> Outcome | None:
    """What was written; None: nothing, so the program was killed before it could say anything."""
    try:
        found = Outcome(**json.loads(retried(lambda: path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    whole = type(found.code) is int and isinstance(found.message, str)
    iteration, folder = found.iteration, found.run_folder
    whole = whole and (iteration is None or type(iteration) is int)
    return found if whole and (folder is None or isinstance(folder, str)) else None
