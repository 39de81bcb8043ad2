"""Slurm's programs, run with a time limit: the only place here that starts processes."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TIME_S = 60


@dataclass(frozen=True)
class CommandResult:
    """What a program said."""

    code: int | None
    """Exit code; None: it isn't there, or did not end in time."""
    out: str = ""
    err: str = ""

    @property
    def text(self) -> str:
        """Everything it said."""
        return f"{self.out}\n{self.err}".strip()

    @property
    def no_cluster(self) -> bool:
        """Whether there is no such program, or no Slurm that it could ask."""
        silent = ("Unable to contact slurm", "configuration source", "Connection refused")
        return self.code is None or (self.code != 0 and any(s in self.text for s in silent))


def ask(
    words: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    time_s: float | None = _TIME_S,
) -> CommandResult:
    """Run a program to its end; never raises for what it does.

    ``time_s``: when it is given up; None: never, where it may have done its work all the same.
    """
    try:
        done = subprocess.run(
            list(words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=time_s,
            env=None if environ is None else dict(environ),
            cwd=cwd,
        )
    except FileNotFoundError:
        return CommandResult(None, err=f"{words[0]} is not on PATH")
    except subprocess.TimeoutExpired:
        return CommandResult(None, err=f"{words[0]} did not answer in {time_s} s")
    except OSError as error:
        return CommandResult(None, err=f"{words[0]} can't be run ({error.strerror})")
    return CommandResult(done.returncode, done.stdout, done.stderr)
