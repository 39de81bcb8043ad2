"""Loader processes under signals meant for the training process, and after its death."""

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.ranks import ROOT

from .made import box, image, write_set

PROGRAM = """
    import sys, time
    from pathlib import Path
    from megdet_hvd.config.schema import DataConfig
    from megdet_hvd.data import loader as module
    from megdet_hvd.data.source import PictureSource
    from megdet_hvd.data.coco import read_sources

    def main():
        folder = Path(sys.argv[1])
        index = read_sources([PictureSource(folder / "set.json", folder / "pictures")],
                             keep_empty=True, invalid_boxes="stop")
        config = DataConfig(min_sizes=(32,), max_size=70, workers=2)
        steps = iter(module.TrainLoader(index, config, seed=0, global_batch=2, accumulation=1,
            rank=0, world_size=1, start_iteration=0, end_iteration=100))
        for line in sys.stdin:
            if line == "end\\n":
                break
            [batch] = next(steps)
            print(len(batch), flush=True)
        before = time.monotonic()
        del steps
        print(f"{time.monotonic() - before:.3f}", flush=True)

    main()
"""


@contextmanager
def loading(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A program that takes a step at each line it gets, and its descendants."""
    write_set(folder, [image(1), image(2)], [box(1, 1, [1, 2, 10, 8])])
    script = folder / "loads.py"
    script.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, str(script), str(folder)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        text=True,
        env=environment,
        bufsize=1,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        family: list[psutil.Process] = []
        try:
            assert step(running, "next") == "2"
            family = psutil.Process(running.pid).children(recursive=True)
            yield running, family
        finally:
            for process in family:
                if process.is_running():
                    process.kill()
            running.kill()


def step(running: "subprocess.Popen[str]", word: str) -> str:
    assert running.stdin is not None and running.stdout is not None
    running.stdin.write(f"{word}\n")
    running.stdin.flush()
    return running.stdout.readline().strip()


@pytest.mark.alone
def test_signals_to_every_process_of_a_step_leave_the_workers_alone(tmp_path: Path) -> None:
    with loading(tmp_path) as (running, family):
        assert len(family) == 4, "two workers, their server, the resource tracker"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            for process in family:
                if "resource_tracker" not in " ".join(process.cmdline()):
                    process.send_signal(number)
        assert [step(running, "next") for _ in range(12)] == ["2"] * 12
        assert all(process.is_running() for process in family)
        assert float(step(running, "end")) < 4.0, "no worker had to be waited for"
        assert running.wait(15) == 0
        assert psutil.wait_procs(family, timeout=10)[1] == []


def test_a_worker_that_hangs_does_not_keep_the_training_process(tmp_path: Path) -> None:
    with loading(tmp_path) as (running, family):
        workers = [p for p in family if p.ppid() != running.pid]
        assert len(workers) == 2
        workers[0].send_signal(signal.SIGSTOP)
        assert float(step(running, "end")) < 15.0
        assert running.wait(15) == 0
        assert psutil.wait_procs(family, timeout=10)[1] == []


def test_nothing_is_left_of_a_training_process_that_was_killed(tmp_path: Path) -> None:
    with loading(tmp_path) as (running, family):
        began = time.monotonic()
        running.kill()
        assert psutil.wait_procs(family, timeout=20)[1] == []
        assert time.monotonic() - began < 15
