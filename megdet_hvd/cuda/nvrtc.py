"""CUDA C++ to machine code, by NVRTC. Needs neither a GPU nor a driver.

Machine code (CUBIN) rather than PTX: no driver compiles it once more when it is loaded.
"""

import ctypes
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.cuda.error import CudaError, NoCudaLibrary

LIBRARY_VARIABLE = "MEGDET_NVRTC"
"""Path of the library, in place of the one that is found."""

_ALWAYS = ("--std=c++17", "--fmad=false")
"""A product and a sum are two roundings, as on a CPU: a kernel that wants fma() says so."""


_NEWEST_CALL = "nvrtcGetCUBIN"
"""Since CUDA 11.1; all others are older."""


class CompileError(CudaError):
    """NVRTC refuses a source; the text has its log."""


def compile_cubin(
    source: str, capability: tuple[int, int], *, name: str = "kernel", options: Sequence[str] = ()
) -> bytes:
    """The machine code of ``source`` for GPUs of a compute capability, ``(9, 0)``.

    ``name`` is what the log calls the source; ``options`` are NVRTC's own. Kernels are found by
    their names in the code if they are ``extern "C"``.

    Raises:
        CompileError: the source does not compile, or NVRTC does not know the capability.
        CudaError: NVRTC fails otherwise.
        NoCudaLibrary: there is no NVRTC.
    """
    library = _library()
    program = ctypes.c_void_p()
    _check(
        library,
        "nvrtcCreateProgram",
        ctypes.byref(program),
        source.encode("utf-8"),
        f"{name}.cu".encode(),
        0,
        None,
        None,
    )
    try:
        words = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}", *_ALWAYS, *options]
        array = (ctypes.c_char_p * len(words))(*(word.encode("utf-8") for word in words))
        number = library.nvrtcCompileProgram(program, len(words), array)
        if number:
            log = _text(library, "nvrtcGetProgramLog", program)
            told = f"{name} for compute capability {capability[0]}.{capability[1]}: {log}"
            raise CompileError("nvrtcCompileProgram", number, _name_of(library, number), told)
        return _bytes(library, "nvrtcGetCUBIN", program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def version() -> tuple[int, int]:
    """NVRTC's own, ``(13, 0)``.

    Raises:
        NoCudaLibrary: there is none.
    """
    library = _library()
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library, "nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def candidates(path: Sequence[str], given: str | None) -> list[str]:
    """Where to look for the library, in this order. Pure but for the listing of folders.

    ``given`` alone where there is one. Otherwise as torch does: in NVIDIA's packages below the
    entries of ``path`` (Python's), the newest first, then by name, which finds what is loaded
    already and what the system's loader knows.
    """
    if given:
        return [given]
    found: list[Path] = []
    for entry in path:
        for pattern in ("nvidia/cu[0-9]*/lib", "nvidia/cuda_nvrtc/lib"):
            for folder in Path(entry or ".").glob(pattern):
                found += [file for file in folder.glob("libnvrtc.so.*[0-9]") if file.is_file()]
    newest_first = sorted(found, key=lambda file: _numbers(file.name), reverse=True)
    return [*map(str, newest_first), "libnvrtc.so.13", "libnvrtc.so.12"]


def _numbers(name: str) -> tuple[int, ...]:
    """Of ``libnvrtc.so.11.2``, (11, 2)."""
    return tuple(int(word) for word in name.removeprefix("libnvrtc.so.").split(".") if word)


@functools.cache
def _library() -> ctypes.CDLL:
    wanted = candidates(sys.path, os.environ.get(LIBRARY_VARIABLE))
    problems = []
    for name in wanted:
        try:
            # NVRTC opens its companion by name only, which the loader knows once it is loaded.
            for companion in (
                Path(name).parent.glob("libnvrtc-builtins.so.*") if "/" in name else ()
            ):
                ctypes.CDLL(str(companion))
            library = ctypes.CDLL(name)
        except OSError as error:
            problems.append(f"{name} ({error})")
            continue
        if hasattr(library, _NEWEST_CALL):
            return library
        problems.append(f"{name} (no {_NEWEST_CALL}: it is another library, or of CUDA 11.0)")
    raise NoCudaLibrary(
        f"no NVRTC, which compiles CUDA kernels, among {'; '.join(problems)}: it comes with torch "
        "for CUDA (pip install nvidia-cuda-nvrtc elsewhere), or name the file in "
        f"{LIBRARY_VARIABLE}"
    )


def _check(library: ctypes.CDLL, call: str, *arguments: object) -> None:
    number = getattr(library, call)(*arguments)
    if number:
        raise CudaError(call, number, _name_of(library, number))


def _name_of(library: ctypes.CDLL, number: int) -> str:
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    found: bytes | None = library.nvrtcGetErrorString(number)
    return found.decode("ascii", "replace") if found else "an error without a name"


def _bytes(library: ctypes.CDLL, call: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(library, f"{call}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, call, program, buffer)
    return buffer.raw


def _text(library: ctypes.CDLL, call: str, program: ctypes.c_void_p) -> str:
    return _bytes(library, call, program).rstrip(b"\0").decode("utf-8", "replace").strip()
