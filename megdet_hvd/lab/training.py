"""One training of the lab: the training command itself, watched while it runs, and its record.

It is ``python -m megdet_hvd.train --run FOLDER …``, so what was broken off is carried on by the
same command; what diverges is stopped early.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megdet_hvd.bench.launch import launch_environ, launched
from megdet_hvd.checkpoint.naming import list_checkpoints
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.errors import FINISHED, RUN_ERROR, RunError
from megdet_hvd.lab.divergence import Divergence, find_divergence
from megdet_hvd.lab.records import LabRecord, thinned
from megdet_hvd.lab.run_mark import claim, mark_of
from megdet_hvd.lab.runs import LabRun
from megdet_hvd.report.metrics_file import MetricsRecord, read_metrics

LOOK_EVERY_S = 2.0
"""A diverged training is noticed within so long."""
NOT_FINITE = "not finite"
"""In every message that ends a run for that reason."""
_ERROR = "error: "
"""Begins what a command says of its end, behind the launcher's rank."""
_SCORES = ("epoch", "AP", "AP50", "AP75")
_BALANCE = ("rpn_foreground", "rpn_foreground_spread", "box_foreground", "box_foreground_spread")


@dataclass
class Training:
    """A training to be done, or under way, in one or several processes of this machine."""

    run: LabRun
    words: Sequence[str]
    """Its settings."""
    peak_rate: float
    folder: Path
    """The run folder; what it prints goes beside it."""
    known: dict[str, Any]
    """What its record says of it beforehand."""
    keep: bool = False
    """Leave the run folder when the record is made."""
    divergence: Divergence | None = None
    resumed: bool = False
    processor_s: float = 0.0
    """Of this sitting."""
    _process: "subprocess.Popen[bytes] | None" = None
    _began: float = 0.0
    _looked: float = 0.0
    _cores: Collection[int] = ()
    _printed_before: int = 0
    """Bytes in the output as the newest command began."""
    _commands: list[list[str]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """What its commands print."""
        return self.folder.with_name(self.folder.name + ".txt")

    @property
    def recalibrated(self) -> Path:
        """Where the scores after a recalibration are written."""
        return self.folder / "recalibrated.json"

    def start(self, cores: Collection[int]) -> None:
        """Begin, or carry on, on these cores alone; what has diverged already is left as it is.

        Raises:
            UserError: the folder is another training's.
        """
        claim(self.folder, self.known["settings"], self.known["backbone"])
        self.resumed = bool(list_checkpoints(RunFolder(self.folder).checkpoints))
        self._commands = [self._train_command()]
        if self.run.recalibrated:
            module = "megdet_hvd.lab.precise_bn"
            files = ["--run", str(self.folder), "--out", str(self.recalibrated)]
            self._commands.append([sys.executable, "-m", module, *files])
        self._began = time.monotonic()
        self._cores = cores
        self.divergence = self._diverged()
        if self.divergence is None:
            self._next()

    def _train_command(self) -> list[str]:
        words = ["megdet_hvd.train", "--run", str(self.folder), *self.words]
        return launched(words, self.run.processes)

    def _next(self) -> None:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores)  # children inherit it
        try:
            with self.output.open("ab") as output:
                self._printed_before = output.tell()
                self._process = subprocess.Popen(
                    self._commands.pop(0),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=launch_environ(self.run.processes),
                )
        finally:
            os.sched_setaffinity(0, before)

    def look(self) -> bool:
        """Whether it is over; stops it where it has diverged.

        Raises:
            RunError: a command of it failed.
        """
        if self._process is None:
            assert self.divergence is not None, "start() comes first"
            return True
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            if time.monotonic() - self._looked > LOOK_EVERY_S and self.divergence is None:
                self._looked = time.monotonic()
                self.divergence = self._diverged()
                if self.divergence is not None:
                    self._process.send_signal(signal.SIGTERM)
            return False
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        self.processor_s += usage.ru_utime + usage.ru_stime
        if code == FINISHED:
            self.divergence = self.divergence or self._diverged()
        elif code == RUN_ERROR and NOT_FINITE in self._last_words():
            last = Divergence(self._last_iteration() + 1, "the loss is not finite")
            self.divergence = self.divergence or self._diverged() or last
        elif self.divergence is None:  # what has diverged was told to stop, whatever code that has
            raise RunError(
                f"{self.run.name} ended with exit code {code}{_told(self._last_words())}; "
                f"see {self.output}"
            )
        if self._commands and self.divergence is None:
            self._next()
            return False
        return True

    def stop(self) -> None:
        """End it, with a checkpoint to carry on from, and wait until it has ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()

    def _lines(self) -> list[MetricsRecord]:
        return read_metrics(RunFolder(self.folder).metrics).train

    def _diverged(self) -> Divergence | None:
        lines = self._lines()
        return find_divergence(
            [line["iteration"] for line in lines],
            [line.get("loss") for line in lines],
            [line["rate"] for line in lines],
            self.peak_rate,
        )

    def _last_iteration(self) -> int:
        lines = self._lines()
        return lines[-1]["iteration"] if lines else 0

    def _last_words(self) -> str:
        with self.output.open("rb") as output:
            output.seek(self._printed_before)  # an earlier sitting's errors are none of this one's
            return output.read().decode(errors="replace")[-4000:]

    def record(self) -> LabRecord:
        """What is kept of it; the run folder goes, unless it is to be kept."""
        metrics = read_metrics(RunFolder(self.folder).metrics)
        lines = metrics.train
        iterations = [line["iteration"] for line in lines]
        losses = [line.get("loss") for line in lines]
        tenth = lines[-max(1, len(lines) // 10) :]
        end = self.divergence
        whole = self.run.updates is None
        scores = [{key: line.get(key) for key in _SCORES} for line in metrics.eval]
        record: LabRecord = {
            **self.known,
            "peak_rate": self.peak_rate,
            "updates": iterations[-1] if iterations else 0,
            "epochs": lines[-1].get("epoch", 0.0) if lines else 0.0,
            "diverged": None if end is None else {"at": end.iteration, "why": end.reason},
            "initial_loss": losses[0] if losses else None,
            "loss": thinned(iterations, losses),
            "scores": scores if whole and end is None else [],
            "balance": {
                key: sum(line.get(key) or 0.0 for line in tenth) / max(1, len(tenth))
                for key in _BALANCE
            },
            "processor_s": round(self.processor_s, 1),
            "clock_s": round(time.monotonic() - self._began, 1),
            "resumed": self.resumed,
        }
        if end is None and self.recalibrated.exists():
            record["recalibrated"] = json.loads(self.recalibrated.read_text(encoding="utf-8"))
        return record

    def clean(self) -> None:
        """Remove the run folder and what was printed, unless they are to be kept."""
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.output.unlink(missing_ok=True)
            mark_of(self.folder).unlink(missing_ok=True)


def _told(output: str) -> str:
    """The newest error in what was printed, or its last line: others may have printed behind it.

    A launcher does, and a training that a killed sitting has left: it goes on in the same file.
    """
    lines = output.strip().splitlines()
    errors = [line[line.index(_ERROR) :] for line in lines if _ERROR in line]
    return "".join(f" ({line[:300]})" for line in (errors or lines)[-1:])
