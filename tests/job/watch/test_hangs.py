"""Whole jobs that hang, under every launcher: they end, say why, and leave nothing behind."""

import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from megdet_hvd.cluster.outcome import read_outcome
from tests.pool import on_ranks
from tests.ranks import Launcher, run_ranks

CHECK = Path(__file__).with_name("check_hang.py")


MARKER = "MEGDET_TEST_JOB"


def of_the_job(marker: str) -> list[psutil.Process]:
    """Processes started by the job or by its processes: stopped ones, loader workers, launchers."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARKER) == marker
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def marker() -> Iterator[str]:
    """A value that no other job's environment has; whatever is left of this job is killed."""
    word = uuid.uuid4().hex
    yield word
    for process in of_the_job(word):
        process.kill()


def run_to_its_end(np: int, launcher: Launcher, marker: str, *arguments: object) -> str:
    """The output of a job that must end by itself, with an error, and leave no process."""
    done = run_ranks(CHECK, np, *arguments, launcher=launcher, timeout_s=150, env={MARKER: marker})
    assert done.returncode != 0, done.stdout
    end = time.monotonic() + 15
    while (left := of_the_job(marker)) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == [], f"left behind: {left}\n{done.stdout}"
    return done.stdout


def test_processes_of_a_job_are_found(marker: str) -> None:
    with subprocess.Popen(["sleep", "600"], env={MARKER: marker}) as process:
        process.send_signal(signal.SIGSTOP)
        assert [found.pid for found in of_the_job(marker)] == [process.pid]
        process.kill()


def test_a_rank_of_the_second_machine_skips_a_layer(marker: str) -> None:
    text = run_to_its_end(4, "mpirun", marker, "skip", "--four")
    assert text.count("error: the job hangs and is ended by its watchdog, exit code 4") == 1
    assert "rank 2 (" in text and "waits in cgbn.layer1.forward.0 with 8 values for rank 3" in text
    assert "waits in cgbn.layer2.forward.0 with 8 values for rank 2, which is elsewhere" in text
    assert "cgbn.layer1.forward.0 needs ranks 2-3; waited in for" in text
    assert "): step 3, computing, for" in text, "machine 0 is busy"
    assert "stack of rank 3 (" in text and "in layer\n" in text


@pytest.mark.tail  # the verdict: test_judge.py
def test_a_tensor_of_another_shape(marker: str) -> None:
    text = run_to_its_end(4, "horovodrun", marker, "shape", "--four")
    assert "Mismatched ALLREDUCE tensor shapes" in text
    assert "in the collective cgbn.layer1.forward.0 with" in text
    assert "rank 2 failed" in text or "rank 3 failed" in text
    assert "the job hangs" not in text


@pytest.mark.tail  # under Horovod: above
def test_a_skipped_layer_where_mpi_sums(marker: str) -> None:
    """MPI's messages have no names, so each carries a checksum of its own."""
    text = run_to_its_end(4, "mpirun", marker, "skip", "--four", "--mpi")
    assert "do not sum the same thing: this one sums cgbn.layer" in text
    assert "rank 2 failed" in text or "rank 3 failed" in text


@pytest.mark.tail
def test_another_shape_where_mpi_sums(marker: str) -> None:
    text = run_to_its_end(4, "mpirun", marker, "shape", "--four", "--mpi")
    assert "in the collective cgbn.layer1.forward.0 with" in text or "the job hangs" in text


@pytest.mark.tail  # in training: below
def test_a_stopped_rank(marker: str) -> None:
    text = run_to_its_end(3, "gloo", marker, "stop")
    assert text.count("error: the job hangs and is ended by its watchdog") == 1
    assert "rank 2 (" in text and "no sign of life for" in text
    assert "cgbn.layer1.forward.0 needs ranks 0-2; waited in for" in text
    assert "by 0-1; missing: 2" in text
    assert "Fatal Python error" not in text, "the report is the last word"


@pytest.mark.tail  # what the watchdog sees of a GPU: tests/job/test_peer.py
def test_a_stopped_rank_where_the_gpus_sum(marker: str) -> None:
    """The others' hosts are further, in the gradients; the report names the layer all the same."""
    text = run_to_its_end(3, "gloo", marker, "stop", "--peer")
    assert text.count("error: the job hangs and is ended by its watchdog") == 1
    assert "rank 2 (" in text and "no sign of life for" in text
    assert "cgbn.layer1.forward.0 needs ranks 0-2; waited in for" in text
    assert "by 0-1; missing: 2" in text


@pytest.mark.tail  # a rank stopped in training: above; whose verdict counts: test_judge.py
def test_a_stopped_rank_0(marker: str) -> None:
    text = run_to_its_end(2, "mpirun", marker, "stop0")
    assert text.count("error: the job hangs and is ended by its watchdog") == 1
    assert "rank 0 (" in text and "no sign of life for" in text
    assert "cgbn.layer1.forward.0 needs ranks 0-1; waited in for" in text


def test_a_rank_stopped_in_training(
    marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEGDET_OUTCOME", str(tmp_path / "outcome.json"))
    text = run_to_its_end(2, "horovodrun", marker, "train", tmp_path)
    log = (tmp_path / "runs" / "hangs" / "log.txt").read_text()
    for said in (text, log):
        assert said.count("error: the job hangs and is ended by its watchdog, exit code 4") == 1
        assert "rank 1 (" in said and "no sign of life for" in said
        assert "): step 3, " in said, "rank 0 is in its third step"
    outcome = read_outcome(tmp_path / "outcome.json")
    assert outcome is not None and (outcome.code, outcome.iteration) == (4, 2)
    assert "no sign of life for" in outcome.message
    assert "where the ranks stand" not in outcome.message


def test_a_rank_that_raises(marker: str) -> None:
    text = run_to_its_end(2, "gloo", marker, "raise")
    assert "ZeroDivisionError: a fault of one rank" in text
    ranks_words = [line for line in text.splitlines() if line.startswith("[")]
    traces = [line for line in ranks_words if line.endswith("Traceback (most recent call last):")]
    assert len(traces) == 1 and traces[0].startswith("[1]"), "rank 0 has nothing to say of it"
    assert "the job hangs" not in text and "without a word" not in text


def test_slow_ranks_and_orderly_leaving_are_no_hang() -> None:
    done = on_ranks("tests.job.watch.check_hang:slow_but_well", 2)
    assert "the job hangs" not in done.stdout
    assert "warning" not in done.stdout
