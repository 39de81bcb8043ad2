"""What one rank's sums ask of a kernel and a GPU, of which there is none here."""

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megdet_hvd.comm.peer import self_test
from megdet_hvd.comm.peer.layout import HOST_WORDS, LONGEST, STATE_WORDS, THREADS, inbox_bytes
from megdet_hvd.comm.peer.sums import PeerSums

HOST = (ctypes.c_uint32 * HOST_WORDS)()


def sums_of(kernel: Any) -> PeerSums:
    state = torch.zeros(STATE_WORDS, dtype=torch.int32)
    return PeerSums((0, 1), kernel, 0, state, ctypes.addressof(HOST))


def test_there_is_a_thread_for_each_slot() -> None:
    """That of the key, and one for each value; no more blocks than that takes."""
    launches: list[tuple[int, int, int]] = []

    def kernel(grid: int, block: int, address: int, length: int, *_: object, **__: object) -> None:
        launches.append((grid * block, length, address))

    sums = sums_of(kernel)
    for length in (1, THREADS - 1, THREADS, 4097, LONGEST, LONGEST + THREADS, 3 * LONGEST):
        vector = torch.zeros(length, dtype=torch.float64)
        launches.clear()
        sums.add_up(vector, "it")
        at = vector.data_ptr()
        for threads, values, address in launches:
            assert values < threads <= values + THREADS and values <= LONGEST
            assert address == at
            at += 8 * values
        assert at == vector.data_ptr() + 8 * length


def test_an_inbox_has_two_halves_of_a_row_a_rank() -> None:
    assert inbox_bytes(8) == 2 * 8 * 4104 * 16


def test_a_test_on_a_gpu_that_does_not_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "TEST_PATIENCE_S", 0.02)
    driver = SimpleNamespace(is_idle=lambda _: False)
    access: Any = SimpleNamespace(driver=driver, stream=lambda: 0, device=torch.device("cpu"))
    given_up: list[bool] = []
    sums = sums_of(lambda *_, **__: None)
    monkeypatch.setattr(sums, "give_up", lambda: given_up.append(True))
    told = self_test.self_test(sums, access, 0)
    assert told == "the test sums have not ended in 0 s" and given_up == [True]
