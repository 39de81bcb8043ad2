"""The changes to Horovod 0.28.1's sources, each with its reason, and their application."""

from dataclasses import dataclass
from pathlib import Path

from install.problem import SetupProblem


@dataclass(frozen=True)
class Edit:
    """One replacement in one file. ``old`` must occur exactly once."""

    file: str
    """Path inside the source tree."""
    old: str
    """Text that is there."""
    new: str
    """Text that takes its place."""
    why: str
    """The reason."""


HEADERS_NEED_CXX20 = "PyTorch's headers need C++17 since 2.1 and C++20 since 2.11 (horovod#3996)"
WAITS_SLEEP = (
    "a thread that waits for a collective spins, and takes a whole core from the data workers and "
    "from the ranks it waits for; woken by the result, it takes none"
)

AWAIT_HANDLE = """\
// Returns once the handle is done or gone, or after a second: the caller asks again. Looks for
// 50 us first, since waking up costs about as much as a collective inside one machine takes.
void HandleManager::AwaitHandle(int handle) {
  const auto asleep = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
  while (std::chrono::steady_clock::now() < asleep) {
    if (PollHandle(handle)) return;
    std::this_thread::yield();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait_for(lock, std::chrono::seconds(1), [&] {
    const auto result = results_.find(handle);
    return result == results_.end() || result->second != nullptr;
  });
}

"""

EDITS = (
    Edit(
        "CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)",
        "set(CMAKE_CXX_STANDARD 20)",
        HEADERS_NEED_CXX20,
    ),
    Edit(
        "horovod/torch/CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)",
        "set(CMAKE_CXX_STANDARD 20)",
        HEADERS_NEED_CXX20,
    ),
    Edit(
        "horovod/common/ops/cuda/CMakeLists.txt",
        "set(CMAKE_CUDA_STANDARD 11)",
        "set(CMAKE_CUDA_STANDARD 17)",
        "CUDA 13's headers need C++17",
    ),
    Edit(
        "horovod/torch/handle_manager.h",
        "#include <mutex>",
        "#include <condition_variable>\n#include <mutex>",
        WAITS_SLEEP,
    ),
    Edit(
        "horovod/torch/handle_manager.h",
        "  bool PollHandle(int handle);",
        "  bool PollHandle(int handle);\n  void AwaitHandle(int handle);",
        WAITS_SLEEP,
    ),
    Edit(
        "horovod/torch/handle_manager.h",
        "  std::mutex mutex_;",
        "  std::mutex mutex_;\n  std::condition_variable done_;",
        WAITS_SLEEP,
    ),
    Edit(
        "horovod/torch/handle_manager.cc",
        "  results_[handle] = std::make_shared<Status>(status);",
        "  results_[handle] = std::make_shared<Status>(status);\n  done_.notify_all();",
        WAITS_SLEEP,
    ),
    Edit(
        "horovod/torch/handle_manager.cc",
        '#include "handle_manager.h"',
        '#include "handle_manager.h"\n\n#include <chrono>\n#include <thread>',
        WAITS_SLEEP,
    ),
    Edit(
        "horovod/torch/handle_manager.cc",
        "void HandleManager::Reset() {",
        AWAIT_HANDLE + "void HandleManager::Reset() {",
        WAITS_SLEEP,
    ),
    Edit(
        "horovod/torch/mpi_ops_v2.cc",
        "      std::this_thread::yield();",
        "      handle_manager.AwaitHandle(handle);",
        WAITS_SLEEP,
    ),
)


def apply_edits(tree: Path, edits: tuple[Edit, ...] = EDITS) -> None:
    """Apply every edit to the source tree, or none.

    Raises:
        SetupProblem: an edit no longer fits; the text names it. Nothing was written.
    """
    texts: dict[Path, str] = {}
    for number, edit in enumerate(edits, start=1):
        path = tree / edit.file
        name = f"edit {number} of {len(edits)} in {Path(__file__).name}"
        if path not in texts:
            if not path.is_file():
                raise SetupProblem(
                    f"{name} does not fit: the sources have no file {edit.file}. Wanted there: "
                    f"{edit.new!r}, because {edit.why}. Adapt the edit to this Horovod version."
                )
            texts[path] = path.read_text(encoding="utf-8")
        count = texts[path].count(edit.old)
        if count != 1:
            raise SetupProblem(
                f"{name} does not fit: {edit.file} holds {edit.old!r} {count} times, not once. "
                f"Wanted there: {edit.new!r}, because {edit.why}. "
                "Adapt the edit to this Horovod version."
            )
        texts[path] = texts[path].replace(edit.old, edit.new)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
