"""What one rank's sums stand in is given back, or kept for the next, however far it came."""

from collections.abc import Callable

import pytest
import torch

from megdet_hvd.comm.peer import memory
from megdet_hvd.comm.peer.memory import PeerMemory
from megdet_hvd.cuda.driver import CudaDriver
from megdet_hvd.cuda.error import CudaError
from tests.comm.peer.emulated import emulated_access


@pytest.mark.parametrize("call", ["cuMemHostAlloc", "cuIpcGetMemHandle"])
def test_nothing_is_lost_where_it_fails(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[int] = []
    allocate, free = CudaDriver.allocate, CudaDriver.free

    def noted(driver: CudaDriver, size: int) -> int:
        there.append(allocate(driver, size))
        return there[-1]

    def given_back(driver: CudaDriver, address: int) -> None:
        free(driver, address)
        there.remove(address)

    access = emulated_access(torch.device("cuda", 0))
    changed: list[tuple[str, Callable[..., object]]] = [("allocate", noted), ("free", given_back)]
    monkeypatch.setattr(memory, "_kept", {})
    for name, function in changed:
        monkeypatch.setattr(CudaDriver, name, function)
    monkeypatch.setenv("EMULATED_CUDA_FAIL", f"{call}:2")
    for _ in range(3):
        with pytest.raises(CudaError, match=call):
            PeerMemory(access, 2)
    assert len(there) == (0 if call == "cuMemHostAlloc" else 1), "one serves all tries"
