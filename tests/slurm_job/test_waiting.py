"""The wait for the launcher: a stop handed on, and an end of its own where the ranks are gone."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from megdet_hvd.slurm_job import waiting
from megdet_hvd.slurm_job.waiting import ASK_S, GONE_S, OVERDUE_S, Overdue, exit_code

WHY = "Slurm sent USR1: the time limit or a preemption is near"


def wait_for(
    program: str, *words: str, folder: Path, steps: list[str] | None = None, note: bool = False
) -> tuple[int, str]:
    """The exit code, and what was said, of a launcher that runs a few lines of Python."""
    said: list[str] = []
    if note:
        (folder / "note.USR1").touch()
    with subprocess.Popen([sys.executable, "-c", program, *words]) as running:
        code = waiting.wait(
            running,
            notes=(folder / "gone", folder),
            stop_file=folder / "logs" / "stop",
            outcome=folder / "outcome.json",
            steps=lambda: steps,
            say=said.append,
        )
    return code, "\n".join(said)


def test_word_for_the_ranks_is_tried_again_where_it_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 0.02)
    stop_file = tmp_path / "logs" / "stop"
    ranks = (
        "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(.02)"
    )

    def mend() -> None:
        time.sleep(0.5)
        stop_file.parent.mkdir()

    thread = threading.Thread(target=mend)
    thread.start()
    code, said = wait_for(ranks, str(stop_file), folder=tmp_path, note=True)
    thread.join()
    assert code == 0
    assert stop_file.read_text() == WHY
    assert said.count("can't be written (No such file or directory) so far") == 1
    assert said.count("the ranks finish their step") == 1


def test_a_launcher_whose_ranks_are_gone_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no notice of TERM, as those that the driver starts."""
    for name in ("LOOK_S", "ASK_S", "_ASK_AT_FIRST_S", "OVERDUE_S", "_LET_GO_S"):
        monkeypatch.setattr(waiting, name, 0.1)
    (tmp_path / "outcome.json").touch()
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    code, said = wait_for(deaf, folder=tmp_path, steps=["7.1"])
    assert time.monotonic() - began < 30
    assert code in (128 + 9, 128 + 15)  # TERM, where it came before Python was up
    assert "the launcher does not end by itself (the ranks ended" in said


def test_a_step_that_was_there_for_seconds_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rank has said a word: the cut came before the first regular question."""
    for name in ("LOOK_S", "_ASK_AT_FIRST_S", "_LET_GO_S"):
        monkeypatch.setattr(waiting, name, 0.05)
    monkeypatch.setattr(waiting, "ASK_S", 0.2)
    monkeypatch.setattr(waiting, "GONE_S", 0.5)
    answers = [["7.1"]]
    said: list[str] = []
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as running:
        code = waiting.wait(
            running,
            notes=(tmp_path,),
            stop_file=tmp_path / "stop",
            outcome=tmp_path / "outcome.json",
            steps=lambda: answers.pop() if answers else [],
            say=said.append,
        )
    assert code == 128 + 15
    assert "Slurm has no longer had the ranks' step for" in said[0]


def ended_after(*looks: tuple[float, bool, list[str] | None]) -> float | None:
    overdue = Overdue()
    for now_s, spoken, steps in looks:
        if overdue.look(now_s, spoken=spoken, steps=steps) is not None:
            return now_s
    return None


def every(spoken_at: float, gone_at: float, end: float = 2000.0) -> float | None:
    times = [i * ASK_S for i in range(int(end / ASK_S))]
    return ended_after(
        *((t, t >= spoken_at, ["7.1"] if t < gone_at else []) for t in times)
    )  # fmt: skip


def test_when_a_launcher_is_overdue() -> None:
    never = float("inf")
    assert every(never, never) is None
    # the ranks have spoken, and srun still has its step: --wait comes first
    assert every(600, never) == 600 + OVERDUE_S
    # Slurm knows that it is over
    assert every(600, 600) == 600 + ASK_S
    assert every(never, 600) == 600 + GONE_S


def test_what_is_no_sign() -> None:
    quiet: list[str] = []
    # mpirun on one node has no step at all; Slurm that does not answer says nothing
    assert ended_after(*((t, False, quiet) for t in range(0, 4000, 30))) is None
    assert (
        ended_after((0, False, ["7.1"]), *((t, False, None) for t in range(30, 4000, 30))) is None
    )
    # a step that comes back, after slurmctld was restarted
    back = [(t, False, ["7.1"] if t % 200 < 90 else quiet) for t in range(0, 4000, 30)]
    assert ended_after(*back) is None


def test_exit_codes_are_those_of_a_shell() -> None:
    assert [exit_code(code) for code in (0, 5, 255, -9, -15)] == [0, 5, 255, 137, 143]
