"""CUDA C++ becomes machine code without a GPU, and errors name themselves."""

import os
from pathlib import Path

import pytest

from megdet_hvd.cuda import nvrtc
from megdet_hvd.cuda.error import NoCudaLibrary

SOURCE = 'extern "C" __global__ void twice(double* x) { x[threadIdx.x] *= 2; }'
ELF = b"\x7fELF"


@pytest.fixture(autouse=True)
def _library() -> None:
    try:
        nvrtc.version()
    except NoCudaLibrary as error:
        if os.environ.get("MEGDET_NEED_NVRTC"):
            raise
        pytest.skip(f"what NVRTC compiles was not checked: {error}")


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 0)])
def test_machine_code_for_a_capability(capability: tuple[int, int]) -> None:
    code = nvrtc.compile_cubin(SOURCE, capability)
    assert code.startswith(ELF) and b"twice" in code


def test_the_log_of_a_source_that_does_not_compile() -> None:
    with pytest.raises(nvrtc.CompileError, match=r"wrong\.cu\(1\): error: .*nothing") as found:
        nvrtc.compile_cubin("int f() { return nothing; }", (9, 0), name="wrong")
    assert (found.value.name, found.value.number) == ("NVRTC_ERROR_COMPILATION", 6)
    assert "nvrtcCompileProgram failed with NVRTC_ERROR_COMPILATION (6): " in str(found.value)


def test_an_unknown_capability() -> None:
    with pytest.raises(nvrtc.CompileError, match=r"kernel for compute capability 1\.1: .*arch"):
        nvrtc.compile_cubin(SOURCE, (1, 1))


def test_a_product_and_a_sum_are_two_roundings() -> None:
    source = 'extern "C" __global__ void f(double* x) { x[0] = x[1] * x[2] + x[3]; }'
    fused = nvrtc.compile_cubin(source, (9, 0), options=["--fmad=true"])
    assert fused != nvrtc.compile_cubin(source, (9, 0))


def test_where_it_is_looked_for(tmp_path: Path) -> None:
    newest = tmp_path / "nvidia/cu13/lib/libnvrtc.so.13"
    older = tmp_path / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
    for file in (newest, older, newest.with_name("libnvrtc-builtins.so.13.0")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    by_name = ["libnvrtc.so.13", "libnvrtc.so.12"]
    assert nvrtc.candidates([str(tmp_path)], None) == [str(newest), str(older), *by_name]
    assert nvrtc.candidates([str(tmp_path)], "/own/libnvrtc.so") == ["/own/libnvrtc.so"]


def test_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nvrtc.LIBRARY_VARIABLE, "libm.so.6")
    nvrtc._library.cache_clear()
    try:
        with pytest.raises(NoCudaLibrary, match=r"among libm\.so\.6 \(no nvrtcGetCUBIN: "):
            nvrtc.compile_cubin(SOURCE, (9, 0))
    finally:
        nvrtc._library.cache_clear()


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(nvrtc.LIBRARY_VARIABLE, str(tmp_path / "none.so"))
    nvrtc._library.cache_clear()
    try:
        with pytest.raises(NoCudaLibrary, match=r"none\.so .*name the file in MEGDET_NVRTC"):
            nvrtc.version()
    finally:
        nvrtc._library.cache_clear()
