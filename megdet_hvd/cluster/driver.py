"""The NVIDIA driver of this machine, without asking CUDA."""

from pathlib import Path

VERSION_FILE = Path("/sys/module/nvidia/version")


def driver_version() -> str:
    """Version of the NVIDIA driver that the kernel has loaded; empty: none."""
    try:
        return VERSION_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return ""
