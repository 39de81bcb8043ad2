"""Whether a job's files can be written where they are wanted: its log, its run folder."""

import getpass
import os
import re
from collections.abc import Mapping
from pathlib import Path

from megdet_hvd.errors import UserError
from megdet_hvd.submit.job import JobRequest
from megdet_hvd.submit.report import CheckReport

_NAME_BYTES = 255
"""Of a file or folder, on all file systems in use."""
_PATH_BYTES = 4095
_BELOW_BYTES = 60
"""For what a run lays into its folder: ``/checkpoints/iteration_00000812.pt`` and the like."""
_EACH_TIME = re.compile(r"%\d*[jJAaNnst]")
"""Patterns whose value is known only once the job is."""


def check_log(report: CheckReport, job: JobRequest, root: Path, environ: Mapping[str, str]) -> None:
    """Slurm makes no folder for a log, and ends a job that it can't open one for without a word."""
    if "/" in job.name:
        report.problem(
            f"--job-name={job.name}: the log and the run folder are named after it, so it can hold "
            "no slash"
        )
    base = Path(os.path.normpath(root / job.all_options.get("chdir", "")))
    if not base.is_dir():
        report.problem(f"--chdir={base}: no such folder")
        return
    for option in ("output", "error"):
        pattern = job.all_options.get(option) or ("slurm-%j.out" if option == "output" else "")
        if not pattern or pattern == "/dev/null":
            continue
        where = f"--{option}={pattern}"
        folder = os.path.dirname(pattern)
        if "\\" not in pattern and _EACH_TIME.search(folder):
            report.problem(
                f"{where}: Slurm makes no folders, and this one's name is known only once the job "
                "is: let the number stand in the file's name"
            )
            continue
        file = base / job.expanded(pattern, "0" * 10, environ.get("USER") or _user())
        try:
            check_folder(file.parent, where, made=False)
        except UserError as error:
            report.problem(f"{error}. Slurm would end the job at once, without a log")
            continue
        check_names(report, file, where)


def check_names(report: CheckReport, path: Path, where: str) -> bool:
    """Whether the file system takes each name of a path, and all of it."""
    longest = max(path.parts, key=lambda part: len(os.fsencode(part)), default="")
    size, whole = len(os.fsencode(longest)), len(os.fsencode(path))
    if size > _NAME_BYTES:
        report.problem(
            f"{where}: {longest[:40]}… has {size} bytes, and a file's or folder's name can have "
            f"{_NAME_BYTES}: a shorter --job-name, or name="
        )
    elif whole + _BELOW_BYTES > _PATH_BYTES:
        report.problem(f"{where}: a path of {whole} bytes; {_PATH_BYTES} is the most")
    else:
        return True
    return False


def check_folder(folder: Path, where: str, *, made: bool) -> None:
    """Whether files can be written into it.

    Args:
        folder: a whole path.
        where: begins the message.
        made: whether it is made where it isn't there yet.

    Raises:
        UserError: they can't.
    """
    try:
        place = folder
        while made and not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            if place.exists():
                raise UserError(f"{where}: {place} is a file")
            raise UserError(f"{where}: no such folder: {folder} (mkdir -p makes it)")
    except OSError as error:
        raise UserError(f"{where}: {folder}: {error.strerror}") from None
    if not os.access(place, os.W_OK | os.X_OK):
        read_only = bool(os.statvfs(place).f_flag & os.ST_RDONLY)
        why = "is read-only here" if read_only else "can't be written by you"
        raise UserError(f"{where}: {place} {why}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
