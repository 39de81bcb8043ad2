"""The output of ranks other than 0 goes to a file each, from their first moment."""

import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from megdet_hvd.cluster.driver_variables import RANK_LOGS
from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.errors import UserError


def rank_log(environ: Mapping[str, str]) -> Path | None:
    """The file that this process writes to; None: it is rank 0, or there is no such folder."""
    folder = environ.get(RANK_LOGS)
    try:
        rank = read_launch(environ).rank
    except UserError:  # said again, and better, where the program starts
        return None
    return Path(folder) / f"rank_{rank:04d}.log" if folder and rank else None


def redirect_output(environ: Mapping[str, str] = os.environ) -> None:
    """Send file descriptors 1 and 2 to this rank's file, after what is there already.

    Entry points call it before anything else, so that what libraries print lands there too.
    Where the file can't be written, output stays where it was, and a line says so.
    """
    path = rank_log(environ)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as error:
        print(f"warning: {path} can't be written ({error.strerror})", file=sys.stderr, flush=True)
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
