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
