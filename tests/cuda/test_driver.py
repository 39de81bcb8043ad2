"""The driver's calls as libcuda takes them, on one that is emulated."""

import ctypes
import multiprocessing
from collections.abc import Iterator

import numpy as np
import pytest

from megdet_hvd.cuda.driver import IPC_HANDLE_BYTES, CudaDriver
from megdet_hvd.cuda.error import CudaError, NoCudaLibrary
from megdet_hvd.cuda.launch import FLOAT64, INT32, POINTER, CudaKernel
from tests.cuda.emulation import emulated_cubin, emulated_driver
from tests.cuda.other_process import write_back

SCALE = """
extern "C" __global__ void scale(double* x, int n, double factor, long long* where) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    x[i] *= factor;
    where[i] = blockIdx.x * 100 + threadIdx.x;
  }
}
"""


@pytest.fixture
def driver() -> Iterator[CudaDriver]:
    driver = emulated_driver()
    with driver.in_primary_context(0):
        yield driver


def test_memory_is_zeroed_written_and_read(driver: CudaDriver) -> None:
    memory = driver.allocate(5000)
    assert driver.copy_from_device(memory, 5000) == bytes(5000)
    driver.copy_to_device(memory + 8, b"abc\0d")
    driver.fill(memory + 4999, 255, 1)
    found = driver.copy_from_device(memory, 5000)
    assert found[7:14] == b"\0abc\0d\0" and found[-2:] == b"\0\xff"
    driver.free(memory)
    with pytest.raises(CudaError, match=r"cuMemFree_v2 failed with CUDA_ERROR_INVALID_VALUE \(1\)"):
        driver.free(memory)


def test_a_kernel_is_launched_with_its_arguments_as_they_were(driver: CudaDriver) -> None:
    module = driver.load_module(emulated_cubin(SCALE, "scale"))
    types = (POINTER, INT32, FLOAT64, POINTER)
    kernel = CudaKernel(driver, driver.function(module, "scale"), types)
    x, where = np.arange(7.0), np.zeros(7, np.int64)
    for factor in (3.0, 0.5):  # the second may be launched before the first has run
        kernel(2, 3, x.ctypes.data, 7, factor, where.ctypes.data, stream=5)
    driver.synchronize()
    assert driver.is_idle(5)
    assert (x == np.arange(7.0) * 1.5).all()
    assert where.tolist() == [0, 1, 2, 100, 101, 102, 0]
    with pytest.raises(TypeError, match="takes 4 arguments, not 2"):
        kernel(1, 1, 0, 0, stream=5)
    with pytest.raises(CudaError, match="CUDA_ERROR_NOT_FOUND"):
        driver.function(module, "nothing")


def test_a_kernel_is_launched_from_a_thread_that_has_not_called_cuda_yet() -> None:
    driver = emulated_driver()
    with driver.in_primary_context(0):
        module = driver.load_module(emulated_cubin(SCALE, "scale"))
        kernel = CudaKernel(
            driver, driver.function(module, "scale"), (POINTER, INT32, FLOAT64, POINTER)
        )
    x, where = np.ones(3), np.zeros(3, np.int64)
    with pytest.raises(CudaError, match="CUDA_ERROR_INVALID_CONTEXT"):
        driver.synchronize()
    kernel(1, 3, x.ctypes.data, 3, 4.0, where.ctypes.data, stream=6)
    with driver.in_primary_context(0):
        driver.synchronize()
    assert x.tolist() == [4.0, 4.0, 4.0]


def test_a_kernel_is_launched_though_another_gpu_is_the_current_one() -> None:
    driver = emulated_driver()
    with driver.in_primary_context(0):
        function = driver.function(driver.load_module(emulated_cubin(SCALE, "scale")), "scale")
    kernel = CudaKernel(driver, function, (POINTER, INT32, FLOAT64, POINTER), 0)
    x, where = np.ones(3), np.zeros(3, np.int64)
    with driver.in_primary_context(1):
        kernel(1, 3, x.ctypes.data, 3, 4.0, where.ctypes.data, stream=6)
        assert driver.is_in_primary_context(1) and not driver.is_in_primary_context(0)
        driver.synchronize()
    assert x.tolist() == [4.0, 4.0, 4.0]


def test_a_launch_that_fails_where_it_belongs_is_an_error(
    driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = CudaKernel(driver, 1, (INT32,))
    monkeypatch.setenv("EMULATED_CUDA_FAIL", "cuLaunchKernel:701")
    with pytest.raises(CudaError, match=r"cuLaunchKernel failed with .*\(701\)"):
        kernel(1, 1, 5, stream=6)


def test_memory_outlives_the_block_that_it_was_made_in() -> None:
    """Whether or not somebody else, torch say, keeps the GPU's primary context."""
    driver = emulated_driver()
    with driver.in_primary_context(0):
        memory = driver.allocate(16)
    with driver.in_primary_context(0):
        assert driver.copy_from_device(memory, 16) == bytes(16)


def test_pinned_memory_is_zeroed(driver: CudaDriver) -> None:
    memory = driver.allocate_pinned(100)
    assert ctypes.string_at(memory.host, memory.size) == bytes(100)


def test_two_processes_share_memory(driver: CudaDriver) -> None:
    memory = driver.allocate(64)
    driver.copy_to_device(memory, b"here")
    handle = driver.ipc_handle(memory)
    assert len(handle) == IPC_HANDLE_BYTES
    own, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=write_back, args=(handle, theirs))
    process.start()
    theirs.close()
    assert own.recv() == b"here" and own.recv() == "closed"
    process.join()
    assert driver.copy_from_device(memory, 4) == b"back"
    with pytest.raises(ValueError, match="has 64 bytes, not 3"):
        driver.open_ipc(b"abc")


def test_a_failing_call_names_itself(driver: CudaDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATED_CUDA_FAIL", "cuIpcOpenMemHandle_v2:217")
    with pytest.raises(CudaError) as found:
        driver.open_ipc(bytes(IPC_HANDLE_BYTES))
    assert (found.value.call, found.value.number) == ("cuIpcOpenMemHandle_v2", 217)
    assert str(found.value) == (
        "cuIpcOpenMemHandle_v2 failed with CUDA_ERROR_PEER_ACCESS_UNSUPPORTED (217): peer access "
        "is not supported between these two devices"
    )
    monkeypatch.setenv("EMULATED_CUDA_FAIL", "cuMemAlloc_v2:999")
    with pytest.raises(CudaError, match=r"with an error without a name \(999\)$"):
        driver.allocate(8)


def test_a_driver_that_lacks_a_call() -> None:
    with pytest.raises(NoCudaLibrary, match=r"libm\.so\.6 has no cuInit: the CUDA driver is too"):
        CudaDriver(ctypes.CDLL("libm.so.6"))


def test_how_kernels_are_loaded(driver: CudaDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_MODULE_LOADING", raising=False)
    assert not driver.loads_eagerly()
    monkeypatch.setenv("CUDA_MODULE_LOADING", "EAGER")
    assert driver.loads_eagerly()


def test_without_a_context_nothing_is_allocated() -> None:
    with pytest.raises(CudaError, match="CUDA_ERROR_INVALID_CONTEXT"):
        emulated_driver().allocate(8)
