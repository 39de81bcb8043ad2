import re
from pathlib import Path
from typing import NoReturn
from unittest import mock

import pytest

from megdet_hvd.errors import RunError
from megdet_hvd.job.life import Life, Program, run_program
from tests.engine.tale import ALONE
from tests.pool import on_ranks
from tests.ranks import Launcher, run_ranks

EXPECTED = {
    "typo": (2, r"learning\.wieght_decay.*learning\.weight_decay"),
    "batch": (2, r"global_batch=13 does not divide.*13 % 2 = 1.*try 1[24]"),
    "nofile": (2, r"/no\.json"),
    "config": (2, r"absent\.yaml: no such configuration file"),
    "no module model.detector": (2, r"detector=no_such_module:build: there is no module no_such"),
    "no module learning.optimizer": (2, r"optimizer=no_such_module:build: there is no module no_s"),
    "no module data.dataset": (2, r"dataset=no_such_module:build: there is no module no_such_modu"),
    "nothing 0": (2, r"parts:nothing gives a NoneType; return a torch\.nn\.Module"),
    "nothing 1": (2, r"parts:nothing gives a NoneType; return a torch\.optim\.Optimizer"),
    "nothing 2": (2, r"log\.loggers: .*parts:nothing gives a NoneType, which has no method write"),
    "good": (0, ""),
    "taken": (2, r"taken already holds a run.*--resume"),
    "unwritable": (2, r"/proc/nowhere/x: the run folder can't be written"),
    "missing": (2, r"norun holds no run"),
    "damaged": (0, ""),
    "none sound": (2, r"iteration_00000002\.pt is damaged.*no other good checkpoint beside it"),
    "nonfinite": (
        3,
        r"iteration 1: rank 1: the loss is not finite \(rpn_class .*class nan.*images",
    ),
    "annotations": (6, r"error: rank 1: annotation file .*train\.json.*Stale file handle"),
    "picture0": (6, r"error: .*p3\.png: cannot be read \(Input/output error\)"),
    "picture1": (6, r"error: .*p3\.png: cannot be read \(Input/output error\)"),
    "unreadable": (3, r"iteration 1: .*p3\.png can't be read"),
    "skipped": (0, ""),
}


def test_bad_input_ends_every_rank_with_one_message(tmp_path: Path) -> None:
    done = on_ranks("tests.engine.check_bad_input:cases", 2, tmp_path, timeout_s=400)
    for name, (code, message) in EXPECTED.items():
        found = re.findall(rf"CASE {name} exit (\d+) said (.*)", done.stdout)
        assert [int(c) for c, _ in found] == [code] * 2, f"{name}: {found}\n{done.stdout}"
        spoken = [said for _, said in found if said.strip() not in ("''", '""')]
        if message:
            assert len(spoken) == 1, f"{name}: said {len(spoken)} times: {found}"
            assert re.search(message, spoken[0]), f"{name}: {spoken[0]}"
            assert "Traceback" not in spoken[0]
    log = (tmp_path / "runs" / "taken" / "log.txt").read_text()
    assert "warning: the run carries on from iteration_00000002.pt" in log


RAISES = """
import os, sys
from megdet_hvd.job.life import Program, run_program
def work(value, life):
    world = life.world
    if world.rank == world.size - 1:
        raise ZeroDivisionError("a fault of one rank")
    from megdet_hvd.job.exchange import gather_objects
    gather_objects(None, world, "never")
    return 0
sys.exit(run_program(Program(lambda: 1, work)))
"""


@pytest.mark.parametrize(
    "launcher",
    [
        "mpirun",
        pytest.param("horovodrun", marks=pytest.mark.tail),
        pytest.param("gloo", marks=pytest.mark.tail),  # with a watchdog: tests/job/watch
    ],
)
def test_one_rank_that_raises_ends_the_job(launcher: Launcher, tmp_path: Path) -> None:
    script = tmp_path / "raises.py"
    script.write_text(RAISES)
    done = run_ranks(script, 2, launcher=launcher, timeout_s=120)
    assert done.returncode != 0
    assert "rank 1 failed" in done.stdout and "a fault of one rank" in done.stdout


def test_an_error_of_one_rank_alone_is_its_last_word(capsys: pytest.CaptureFixture[str]) -> None:
    watchdog = mock.Mock(watches=True)

    def work(value: int, life: Life[int]) -> int:
        raise RunError("another process has taken over this run")

    def end(code: int) -> NoReturn:
        watchdog.fail.assert_called_once_with("another process has taken over this run")
        assert "taken over" in capsys.readouterr().err
        raise SystemExit(code)

    with (
        mock.patch("megdet_hvd.job.session.start", return_value=ALONE),
        mock.patch("megdet_hvd.job.watch.start_watchdog", return_value=watchdog),
        mock.patch("megdet_hvd.job.abort.end_job", end),
        pytest.raises(SystemExit, match="3"),
    ):
        run_program(Program(lambda: 1, work))


CONTRADICTS = """
import os, sys
os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"] = "8"
from megdet_hvd.job.life import Program, run_program
sys.exit(run_program(Program(lambda: 1, lambda value, life: 0)))
"""


def test_a_local_size_that_contradicts_the_launcher_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "contradicts.py"
    script.write_text(CONTRADICTS)
    done = run_ranks(script, 2, launcher="mpirun", timeout_s=120)
    assert done.returncode != 0
    assert done.stdout.count("is contradictory") == 1, done.stdout
    assert "mpirun says 8" in done.stdout and "Traceback" not in done.stdout
