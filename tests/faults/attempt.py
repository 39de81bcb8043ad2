"""One start of a run: launched, watched, ended, and what it left."""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from megdet_hvd.cluster.outcome import read_outcome
from tests.faults.draw import Chain, Fault
from tests.ranks import ROOT, RanksHung, end_family, launch_command, stacks_of, surroundings_of

MARK = "MEGDET_FAULTS_MARK"
LEFT_S = 8.0
"""So long may processes take to go once their launcher has gone."""


@dataclass
class Attempt:
    """What became of it."""

    code: int | None
    """As the outcome tells; None: nobody could tell."""
    launcher_code: int
    output: str
    took_s: float
    events: list[dict[str, Any]]
    """The faults that took effect."""
    ranks: int
    tagged: bool = False
    """The launcher marks what the ranks say, ``[1]<stderr>:…``; the rest is its own."""
    left: list[str] = field(default_factory=list)
    """Processes that were still there."""


def run_attempt(
    chain: Chain,
    words: Sequence[str],
    faults: Sequence[Fault],
    folder: Path,
    disk: Path,
    limit_s: float,
) -> Attempt:
    """Run the program of ``chain`` with ``faults``.

    Args:
        chain: which program, under which launcher.
        words: its command line.
        faults: what the ranks suffer.
        folder: for the attempt's own files; empty.
        disk: the file system that may be filled.
        limit_s: a hang after that.

    Raises:
        RanksHung: it did not end; the text has the stacks of all its processes.
    """
    folder.mkdir()
    events, outcome, mend = folder / "events", folder / "outcome.json", folder / "mend"
    plan = {
        "program": chain.program,
        "ranks": chain.ranks,
        "faults": [vars(fault) for fault in faults],
        "events": str(events),
        "mend": str(mend),
        "disk": str(disk),
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    mark = uuid.uuid4().hex
    own = {
        MARK: mark,
        "MEGDET_FAULTS": str(folder / "plan.json"),
        "MEGDET_OUTCOME": str(outcome),
    }
    env = surroundings_of(own)
    began = time.monotonic()
    launcher_code, output = _run(chain, words, env, folder / "output", limit_s)
    took_s = time.monotonic() - began
    left = _left(mark)
    told = read_outcome(outcome)
    if mend.exists():
        path, content = json.loads(mend.read_text())
        Path(path).write_bytes(bytes.fromhex(content))
    with suppress(FileNotFoundError):
        (disk / "filler").unlink()
    return Attempt(
        None if told is None else told.code,
        launcher_code,
        output,
        took_s,
        _events(events),
        chain.ranks,
        chain.launcher == "gloo",
        left,
    )


def _run(
    chain: Chain, words: Sequence[str], env: Mapping[str, str], file: Path, limit_s: float
) -> tuple[int, str]:
    command = [
        *launch_command(chain.launcher, chain.ranks),
        sys.executable,
        "-m",
        "tests.faults.victim",
        *words,
    ]
    with (
        file.open("w+", errors="replace") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=ROOT,
            start_new_session=True,
        ) as running,
    ):
        family = psutil.Process(running.pid)
        try:
            running.wait(limit_s)
        except subprocess.TimeoutExpired:
            stacks = stacks_of(family)
            end_family(family)
            for process in _marked(env[MARK]):
                process.kill()
            output.seek(0)
            raise RanksHung(f"did not end in {limit_s:.0f} s\n{output.read()}\n{stacks}") from None
        output.seek(0)
        return running.returncode, output.read()


def _events(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _left(mark: str) -> list[str]:
    """Processes that did not end by themselves; they are killed, being this attempt's own."""
    until = time.monotonic() + LEFT_S
    while (processes := _marked(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    told = []
    for process in processes:
        with suppress(psutil.Error):
            told.append(f"{process.pid} {' '.join(process.cmdline())[:160]}")
            process.kill()
    return told
