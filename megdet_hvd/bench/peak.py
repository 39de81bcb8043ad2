"""The most memory that this process has had."""

from contextlib import suppress
from pathlib import Path

from megdet_hvd.errors import RunError


def peak_bytes() -> int:
    """Of this program; what getrusage says is at least that of whoever started it.

    Raises:
        RunError: the kernel doesn't say it.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RunError("/proc/self/status has no VmHWM, the peak of a process's memory")


def forget_peak() -> int:
    """From now on the peak is that of what follows; returns what this process has now.

    Where the kernel does not let it be set back, it is the peak so far.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_bytes()
