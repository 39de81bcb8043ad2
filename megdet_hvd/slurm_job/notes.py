"""Why the batch script was asked to stop: what its signal handlers have left, read."""

from collections.abc import Mapping
from pathlib import Path

from megdet_hvd.cluster.driver_variables import NOTE

WHY = {
    "USR2": "USR2: stop without a requeue",
    "USR1": "Slurm sent USR1: the time limit or a preemption is near",
    "TERM": "Slurm sent TERM: the job is cancelled, requeued, preempted or out of time",
}
"""The signals, the one that counts first; each has words for the log."""


def places(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders that the batch script leaves its notes in."""
    return tuple(Path(line) for line in environ[NOTE].splitlines() if line)


def read_note(folders: tuple[Path, ...]) -> str | None:
    """Why the job shall stop; None: nobody asked, or no folder can be read."""
    for signal, words in WHY.items():
        if any(_is_there(folder / f"note.{signal}") for folder in folders):
            return words
    return None


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a disk that fails, or one that is gone
        return False
