"""Parts one after another, each within its time; what one does never ends the others.

The build of Horovod runs beside parts that do without it, and parts whose times don't count run
several at a time. Before each part it is known whether
there is time for it, and a request to stop (SIGTERM, Ctrl-C) ends the part that runs and begins
no other; so whoever ends the visit early still has the table of what was found.
"""

import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from tests.gpu.visit.family import begin, end, end_orphans, orphans_adopted
from tests.gpu.visit.parts import BUILD, Part, Setting
from tests.gpu.visit.record import Record, State, log_file, read_record, write_record

SHORTEST_S = 5.0
"""A part is not begun with less time left."""
CPU_SLOWER = 5
"""Limits are those of a machine with a GPU that does nothing else."""
MARK = "MEGDET_VISIT_PART"
"""In the environment of all that a part starts: its name."""
_POLL_S = 0.1
_LAST_WORDS = 3


@dataclass
class Running:
    """A part at work."""

    part: Part
    process: "subprocess.Popen[bytes]"
    began: float
    until: float


@dataclass
class Runner:
    """Runs the parts of one visit."""

    command: Callable[[Part, Setting], Sequence[str]]
    """What runs a part."""
    setting: Setting
    """``folder``: where records go."""
    deadline: float
    """On time.monotonic()'s clock."""
    environ: Mapping[str, str]
    root: Path
    """The working tree."""
    zipped: Path
    """All records and logs as one file, made anew after each part."""
    lanes: int = 1
    """So many parts at a time, of those whose times don't count."""
    stopped: str = ""
    """Why no further part is begun."""
    running: list[Running] = field(default_factory=list)
    built: bool = True
    """False: Horovod's build has failed."""
    not_reached: list[str] = field(default_factory=list)
    _not_ours: frozenset[int] = frozenset()

    def run(self, parts: Sequence[Part]) -> None:
        """All of them, as long as there is time."""
        former = {n: signal.signal(n, self._stop) for n in (signal.SIGTERM, signal.SIGINT)}
        waiting = list(parts)
        try:
            with orphans_adopted() as self._not_ours:
                while waiting or self.running:
                    part = self._next(waiting)
                    if part is not None:
                        waiting.remove(part)
                        self._take(part)
                        continue
                    time.sleep(_POLL_S)
                    for one in [one for one in self.running if self._over(one)]:
                        self._finish(one)
        finally:
            for one in self.running:  # after an error of this program's own
                end(one.process)
            for number, handler in former.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = signal.Signals(number).name

    def _next(self, waiting: Sequence[Part]) -> Part | None:
        """What to begin now; None: it must wait for others, or for the build."""
        if self._too_late():
            return next(iter(waiting), None)
        building = any(one.part.beside for one in self.running)
        others = [one.part for one in self.running if not one.part.beside]
        part = next((one for one in waiting if not (building and one.needs_horovod)), None)
        if part is None or part.beside or not others:
            return part
        alone = part.timed or any(one.timed for one in others)
        return None if alone or len(others) >= self.lanes else part

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def _too_late(self) -> bool:
        return bool(self.stopped) or self._left() < SHORTEST_S

    def _take(self, part: Part) -> None:
        if self._too_late():
            self.not_reached.append(part.name)
            return
        if part.needs_horovod and not self.built:
            why = f"Horovod was not built: {log_file(self.setting.folder, BUILD).name}"
            write_record(self.setting.folder, replace(self._record(part, "failed"), why=why))
            return
        self.running.append(self._begin(part))

    def _record(self, part: Part, state: State) -> Record:
        return Record(part.name, state, self.setting.device, small=self.setting.small)

    def _begin(self, part: Part) -> Running:
        out = self.setting.folder
        write_record(out, self._record(part, "running"))
        print(f"{part.name}: {part.shows} …", flush=True)
        now = time.monotonic()
        limit_s = part.limit_s * (CPU_SLOWER if self.setting.device == "cpu" else 1)
        words = self.command(part, self.setting)
        environ = {**self.environ, MARK: part.name}
        process = begin(words, log_file(out, part.name), environ, self.root)
        return Running(part, process, now, min(now + limit_s, self.deadline))

    def _over(self, running: Running) -> bool:
        return (
            running.process.poll() is not None
            or time.monotonic() >= running.until
            or bool(self.stopped)
        )

    def _finish(self, running: Running) -> None:
        self.running.remove(running)
        code = running.process.poll()
        state: State = "done" if code == 0 else "failed"
        if code is None:
            state = "cut off" if self.stopped else "timed out"
            end(running.process)
        end_orphans(MARK, running.part.name, self._not_ours)
        out = self.setting.folder
        seconds = time.monotonic() - running.began
        record = read_record(out, running.part.name)
        record = record or self._record(running.part, state)
        why = "" if state == "done" else self._why(running.part, state, code, seconds)
        write_record(out, replace(record, state=state, seconds=round(seconds, 1), why=why))
        print(f"{running.part.name}: {state} in {seconds:.0f} s {why}".rstrip(), flush=True)
        zip_records(out, self.zipped)
        if running.part.beside:
            self.built = state == "done"

    def _why(self, part: Part, state: State, code: int | None, seconds: float) -> str:
        if state == "cut off":
            return f"by {self.stopped}"
        log = log_file(self.setting.folder, part.name).read_text("utf-8", "replace")
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        last = " | ".join(lines[-_LAST_WORDS:])[-300:]
        after = f"after {seconds:.0f} s" if state == "timed out" else f"exit code {code}"
        return f"{after}: {last}"


def zip_records(out: Path, zipped: Path) -> None:
    """All files of ``out`` itself and of its folders' upper level, whole or not at all."""
    partial = zipped.with_name(f"{zipped.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for pattern in ("*.json", "*.log", "*.txt", "*/*.json", "*/*.log", "*/*.txt"):
            for file in sorted(out.glob(pattern)):
                with suppress(FileNotFoundError):  # a part that runs has taken it away
                    archive.write(file, file.relative_to(out))
    partial.replace(zipped)
