"""Waiting for the launcher: a stop is handed on, and a launcher left alone is ended."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.cluster.launchers import LEFT_BEHIND_S
from megdet_hvd.slurm_job.notes import read_note

LOOK_S = 0.5
"""Between two looks at the launcher and the notes."""
ASK_S = 30.0
"""Between two questions to Slurm for the job's steps."""
_ASK_AT_FIRST_S = 3.0
"""Until it has shown the launcher's, which may be gone within seconds."""
_AT_FIRST_S = 120.0
OVERDUE_S = LEFT_BEHIND_S + 30.0
"""After the ranks' own last word; by then srun has ended whoever was left behind."""
GONE_S = 120.0
"""For a launcher whose step Slurm no longer has, where no rank has said a word: Slurm's word alone
ends it then, so it must hold for a while."""
_LET_GO_S = 15.0
_SIGNALLED = 128


@dataclass
class Overdue:
    """Whether the launcher waits for ranks that are gone.

    It does where the link between two nodes is cut: the ranks end, and word of it never arrives.
    """

    spoken_s: float | None = None
    """When the ranks were first seen to have said how they ended."""
    had_step: bool = False
    """Whether Slurm ever had a step of the launcher's: mpirun on one node makes none."""
    gone_s: float | None = None
    """Since when Slurm has none."""

    def look(self, now_s: float, *, spoken: bool, steps: Sequence[str] | None) -> str | None:
        """Why the launcher is to be ended; None: it may go on.

        Args:
            now_s: by any clock that only goes forward.
            spoken: whether the ranks have written how they ended.
            steps: that Slurm has of the job; None: it did not answer.
        """
        if spoken and self.spoken_s is None:
            self.spoken_s = now_s
        if steps:
            self.had_step, self.gone_s = True, None
        elif steps is not None and self.had_step and self.gone_s is None:
            self.gone_s = now_s
        gone = None if self.gone_s is None else now_s - self.gone_s
        if self.spoken_s is not None:
            since = now_s - self.spoken_s
            if since >= OVERDUE_S:
                return f"the ranks ended {since:.0f} s ago, and it still waits for one"
            if gone is not None and gone >= ASK_S and since >= ASK_S:
                return f"the ranks ended {since:.0f} s ago, and Slurm no longer has their step"
        if gone is not None and gone >= GONE_S:
            return f"Slurm has no longer had the ranks' step for {gone:.0f} s"
        return None


def wait(
    running: "subprocess.Popen[bytes]",
    *,
    notes: tuple[Path, ...],
    stop_file: Path,
    outcome: Path,
    steps: Callable[[], Sequence[str] | None],
    say: Callable[[str], None],
) -> int:
    """The launcher's exit code once it has ended, as a shell has it: 128 + n after signal n.

    Args:
        running: the launcher.
        notes: folders in which the batch script notes that the job shall stop.
        stop_file: what the ranks look for.
        outcome: what they write when they end.
        steps: asks Slurm for the job's steps; None: no answer.
        say: writes a line of the log.
    """
    told = refused = False
    overdue = Overdue()
    began_s = asked_s = time.monotonic()
    while (code := running.poll()) is None:
        if not told and (note := read_note(notes)) is not None:
            try:
                stop_file.write_text(note, encoding="utf-8")
                say(f"{note}; the ranks finish their step and write a checkpoint")
                told = True
            except OSError as error:  # tried again
                if not refused:
                    say(
                        f"{note}; {stop_file} can't be written ({error.strerror}) so far, so the "
                        "ranks hear nothing of it"
                    )
                refused = True
        now = time.monotonic()
        early = not overdue.had_step and now - began_s < _AT_FIRST_S
        if now - asked_s >= (_ASK_AT_FIRST_S if early else ASK_S):
            asked_s = now
            why = overdue.look(now, spoken=outcome.exists(), steps=steps())
            if why is not None:
                say(f"the launcher does not end by itself ({why}): it is ended")
                return exit_code(_end(running))
        time.sleep(LOOK_S)
    return exit_code(code)


def exit_code(code: int) -> int:
    """As a shell has it."""
    return _SIGNALLED - code if code < 0 else code


def _end(running: "subprocess.Popen[bytes]") -> int:
    running.terminate()
    try:
        return running.wait(_LET_GO_S)
    except subprocess.TimeoutExpired:
        running.kill()
        return running.wait()
