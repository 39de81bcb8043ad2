"""Locks, moves that happen wholly or not at all, and small facts about folders."""

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from install.console import say, warn
from install.problem import SetupProblem


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold the lock; wait while another set-up works on the same thing.

    The system lets go of it when the process ends, however that happens.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another set-up is working on {what}; waiting for it …")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            warn(f"no lock on {lock} ({error}): do not run two set-ups at once here")
        yield


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none or it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def put_folder(made: Path, place: Path) -> None:
    """Move a finished folder to its place, replacing what an earlier run left there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        shutil.rmtree(place)
    made.replace(place)


def own_folder(folder: Path) -> None:
    """Make a folder that nobody else can get into, or see that it is one already.

    Raises:
        SetupProblem: another user has laid it, or may change it.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            wrong = "is no folder"
        elif found.st_uid != os.geteuid():
            wrong = f"belongs to user {found.st_uid}, not to you"
        elif found.st_mode & 0o022:
            wrong = f"may be written to by others (mode {stat.S_IMODE(found.st_mode):04o})"
        else:
            return
        raise SetupProblem(
            f"{folder} {wrong}, and what lies in it would be built and run: remove it, or set "
            "TMPDIR or MEGDET_CACHE to a folder of your own"
        ) from None


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def device_of(path: Path) -> int:
    """The file system that the path lies on, or will lie on."""
    while not path.exists():
        path = path.parent
    return path.stat().st_dev
