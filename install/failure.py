"""A failed command's reason in a few lines, out of a log of thousands."""

import re
from collections.abc import Sequence

_TELLING = re.compile(
    r"(\berror\s*:|\bfatal\b|CMake Error|undefined reference|cannot find -l|No space left"
    r"|Killed signal|^Killed|\bERROR\b|×|ModuleNotFoundError|command not found"
    r"|Could not find|No matching distribution|No solution found|Permission denied)"
)
_NOISE = re.compile(
    r"(Failed building wheel|subprocess-exited|metadata-generation|CalledProcessError"
    r"|find CCache|exited with|did not run successfully|Failed to build|collect2: error"
    r"|^\s*error: command)"
)

CAUSES = (
    (
        r"Python\.h: No such file",
        "Python's headers are missing: install them (Debian: apt-get install python3-dev), or "
        "name a Python that has them: make setup PYTHON=/path/to/python3",
    ),
    (
        r"Killed signal|^Killed|out of memory allocating",
        "the compiler ran out of memory: make setup MEGDET_JOBS=1",
    ),
    (
        r"Hash mismatch for|DO NOT MATCH THE HASHES|all requirements must have a hash",
        "the package index serves other files than this project was made with. Where it builds its "
        "packages itself, set MEGDET_HASHES=no; anywhere else, find out who changed them",
    ),
    (
        r"No space left on device",
        "a disk is full: free some, or put the caches elsewhere with MEGDET_CACHE=/path and the "
        "build's scratch files with TMPDIR=/path",
    ),
    (
        r"unsupported GNU version|unsupported clang version",
        "this CUDA compiler refuses the C++ compiler, which is too new for it: name an older one, "
        "make setup CC=gcc-13 CXX=g++-13",
    ),
    (
        r"Unsupported gpu architecture|is not defined for option 'gpu-architecture'",
        "this CUDA compiler does not know one of the architectures: set MEGDET_CUDA_ARCHS, "
        "for example 80,90",
    ),
    (
        r"Could NOT find MPI|mpicc: (command )?not found",
        "no MPI was found: load the site's MPI module, or leave MEGDET_MPI at package",
    ),
    (
        r"Could NOT find NCCL",
        "NCCL was not found: set HOROVOD_NCCL_HOME to the folder that holds its include and lib",
    ),
    (
        r"Temporary failure in name resolution|dns error|Network is unreachable"
        r"|Failed to establish a new connection|Connection refused|tcp connect error",
        "the package index cannot be reached: on a machine without network use archives fetched "
        "beforehand (make archives on one that has it, then make setup MEGDET_ARCHIVES=FOLDER)",
    ),
)


def telling_lines(log: str, limit: int = 8) -> list[str]:
    """The lines that say why, first ones first, each once, at most ``limit``.

    Falls back on the log's last lines where none is telling.
    """
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in log.splitlines()]
    texts = [line.strip() for line in lines if line.strip()]
    picked: list[str] = []
    for number, text in enumerate(texts):
        if _TELLING.search(text) and not _NOISE.search(text):
            if text.startswith("CMake Error") and number + 1 < len(texts):
                text += " " + texts[number + 1]  # the reason stands below the place
            if (short := _shortened(text)) not in picked:
                picked.append(short)
    if not picked:
        picked = [_shortened(text) for text in texts[-limit:]]
    return picked[:limit]


def _shortened(text: str) -> str:
    """At most 300 characters; deep paths of a long line lose their folders first."""
    if len(text) > 200:
        text = re.sub(r"(?:/[^\s:/]+){4,}(/[^\s:/]+)", r"…\1", text)
    return text[:300]


def remedy(log: str) -> str | None:
    """What to do, where the cause is a known one."""
    for pattern, text in CAUSES:
        if re.search(pattern, log, re.MULTILINE):
            return text
    return None


def failure_text(what: str, code: int, log: str, log_path: object, command: Sequence[str]) -> str:
    """The whole message for a failed step."""
    lines = [f"{what} failed (exit code {code}):"]
    lines += [f"    {line}" for line in telling_lines(log)]
    if (advice := remedy(log)) is not None:
        lines.append(f"To do: {advice}")
    lines.append(f"Whole log: {log_path} (command: {' '.join(command[:4])} …)")
    return "\n".join(lines)
