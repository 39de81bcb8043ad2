"""What a GPU is to show of two processes, shown on one that is emulated."""

import pytest
import torch

from megdet_hvd.comm.peer.self_test import known_vector
from tests.comm.peer.emulated import not_waiting_access
from tests.comm.peer.two_processes import check_two_processes
from tests.cuda.emulation import compiler, emulated_driver
from tests.gpu.peer_sums import CHANNELS, LENGTHS, _wrong, check_queues, time_streams


def test_two_processes() -> None:
    compiler()
    first, second = check_two_processes(emulated=True)
    cases = ("self-test", "exact", "late", "wrong name")
    assert first == dict.fromkeys((*cases, "killed"), "right")
    assert second == dict.fromkeys(cases, "right")


def test_what_times_a_gpu_counts_wrong_sums() -> None:
    """The functions of tests/gpu that a CPU can run."""
    driver = emulated_driver()
    access = not_waiting_access(torch.device("cpu"))
    times = time_streams(access, [201, 202, 203], lengths=(3, 129), rounds=2)
    assert (times.ranks, times.sums, times.wrong, times.lost) == (3, 2, 0, ())
    assert 0 < times.host_us < times.eager_us
    with driver.in_primary_context(0):
        kept = known_vector(0, 0, 3)
        assert _wrong([[kept, kept + 1e-9]]) == 2, "neither is the sum of both"


def test_streams_without_a_queue_of_their_own_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_MAX_CONNECTIONS", raising=False)
    check_queues(7)
    with pytest.raises(ValueError, match="8 ranks as streams, and the default one, share 8"):
        check_queues(8)


def test_a_step_of_resnet50_has_106_sums() -> None:
    assert len(LENGTHS) == 106 and max(LENGTHS) == 4097
    assert len(CHANNELS) == 53 and sum(CHANNELS) == 26_560
