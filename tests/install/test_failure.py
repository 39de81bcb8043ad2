"""A failed build's reason in a few lines."""

from install.failure import failure_text, remedy, telling_lines

NOISE = [
    f"[ {n:2d}%] Building CXX object horovod/torch/CMakeFiles/x.dir/{n}.cc.o" for n in range(99)
]

CXX = "\n".join(
    [
        *NOISE,
        "/env/torch/include/c10/util/C++17.h:27:2: error: #error You need C++17 to compile PyTorch",
        "   27 | #error You need C++17 to compile PyTorch",
        "/env/torch/include/c10/util/C++17.h:27:2: error: #error You need C++17 to compile PyTorch",
        *NOISE,
        "make[2]: *** [horovod/torch/CMakeFiles/pytorch.dir/build.make:76] Error 1",
        "subprocess.CalledProcessError: Command '['cmake']' returned non-zero exit status 2.",
        "  ERROR: Failed building wheel for horovod",
    ]
)


def test_the_compilers_own_line_is_picked_once() -> None:
    assert telling_lines(CXX) == [
        "/env/torch/include/c10/util/C++17.h:27:2: error: #error You need C++17 to compile PyTorch"
    ]


def test_a_thousand_errors_stay_few_lines() -> None:
    log = "\n".join(f"a.cc:{n}: error: no such thing" for n in range(1000))
    assert telling_lines(log) == [f"a.cc:{n}: error: no such thing" for n in range(8)]


def test_without_a_telling_line_the_end_is_shown() -> None:
    log = "\n".join([f"step {n}" for n in range(100)] + ["", "gave up", ""])
    assert telling_lines(log, limit=3) == ["step 98", "step 99", "gave up"]


def test_known_causes_carry_their_fix() -> None:
    assert "python3-dev" in str(
        remedy("x.c:1:10: fatal error: Python.h: No such file or directory")
    )
    assert "MEGDET_JOBS=1" in str(
        remedy("c++: fatal error: Killed signal terminated program cc1plus")
    )
    assert "MEGDET_ARCHIVES" in str(remedy("Caused by: dns error"))
    assert "MEGDET_CUDA_ARCHS" in str(
        remedy("nvcc fatal : Unsupported gpu architecture 'compute_70'")
    )
    assert remedy(CXX) is None


def test_the_message_is_short_and_names_log_and_step() -> None:
    text = failure_text(
        "building Horovod", 1, CXX, "/c/logs/x.log", ["/env/bin/python", "-m", "pip"]
    )
    assert text.startswith("building Horovod failed (exit code 1):\n    /env/torch")
    assert "Whole log: /c/logs/x.log" in text
    assert len(text.splitlines()) <= 12


def test_cmakes_reason_stands_below_its_place() -> None:
    log = """-- Could not find CCache. Consider installing CCache to speed up compilation.
CMake Error at Modules/FindMPI.cmake:1283 (try_compile):
  Failed to generate test project build system.
Call Stack (most recent call first):
"""
    assert telling_lines(log) == [
        "CMake Error at Modules/FindMPI.cmake:1283 (try_compile): "
        "Failed to generate test project build system."
    ]


def test_a_long_line_loses_folders_before_words() -> None:
    place = "/home/u/" + "deep/" * 50
    assert telling_lines(f"CMake Error at {place}FindMPI.cmake:12 (try):\n  no such thing") == [
        "CMake Error at …/FindMPI.cmake:12 (try): no such thing"
    ]
