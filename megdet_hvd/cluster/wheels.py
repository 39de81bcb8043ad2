"""Whether the installed wheels serve the GPUs and the driver of a machine."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

OLDEST_DRIVER = {"13": (580, 65), "12": (525, 60), "11": (450, 80)}
"""Oldest NVIDIA driver of each CUDA line, by its major version (NVIDIA's release notes)."""


def numbers(text: str) -> tuple[int, ...]:
    """``580.95.05`` as (580, 95, 5)."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def driver_problem(driver: str, cuda: str) -> str | None:
    """Why a driver does not serve wheels of a CUDA line, or None."""
    oldest = OLDEST_DRIVER.get(cuda.split(".")[0])
    if oldest is None or not numbers(driver) or numbers(driver)[:2] >= oldest:
        return None
    return f"driver {driver} is older than CUDA {cuda} asks for (≥ {oldest[0]}.{oldest[1]})"


def architectures(flags: str) -> tuple[tuple[str, int], ...]:
    """``sm_80 compute_90`` as (("sm", 80), ("compute", 90)); suffixes such as 90a are kept out."""
    return tuple((kind, int(number)) for kind, number in re.findall(r"(sm|compute)_(\d+)\b", flags))


def capability_served(capability: str, built: Sequence[tuple[str, int]]) -> bool:
    """Whether code of these architectures runs on a GPU of that compute capability.

    Machine code (``sm``) runs on the same major version from its own minor version upwards;
    PTX (``compute``) on everything newer.
    """
    parts = numbers(capability)
    card = parts[0] * 10 + parts[1]
    return any(
        (kind == "sm" and number // 10 == card // 10 and number <= card)
        or (kind == "compute" and number <= card)
        for kind, number in built
    )


def kernel_architectures(listed: str) -> tuple[tuple[str, int], ...]:
    """What Horovod was built for: machine code for each, PTX for the newest."""
    found = sorted(int(part) for part in listed.split(",") if part.strip().isdigit())
    if not found:
        return ()
    return (*(("sm", number) for number in found), ("compute", found[-1]))


def built_kernels(prefix: Path) -> str:
    """What set-up wrote down about the GPU architectures of the Horovod that it installed."""
    try:
        stamp = json.loads((prefix / "megdet_hvd.json").read_text(encoding="utf-8"))
        return str(stamp.get("architectures", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def misfit(
    driver: str, capability: str, cuda: str, architecture_flags: str, kernels: str
) -> tuple[str, str] | None:
    """What of the wheels does not serve a GPU, and the command that mends it; None: all does.

    Args:
        driver: version of the NVIDIA driver.
        capability: the GPU's compute capability, such as ``9.0``; empty: unknown.
        cuda: CUDA version of torch's wheel.
        architecture_flags: what torch was built for, ``sm_80 sm_90 …``; empty: unknown.
        kernels: what Horovod was built for, ``80,90``; empty: unknown.
    """
    if problem := driver_problem(driver, cuda):
        return problem, "make setup MEGDET_TORCH=2.9.1 (CUDA 12)"
    built = architectures(architecture_flags)
    if capability and built and not capability_served(capability, built):
        return (
            f"this torch was not built for it ({architecture_flags})",
            "make setup MEGDET_TORCH=2.9.1 (CUDA 12, from V100 on)",
        )
    horovods = kernel_architectures(kernels)
    if capability and horovods and not capability_served(capability, horovods):
        digits = capability.replace(".", "")
        return (
            f"Horovod's kernels were not built for it ({kernels})",
            f"make setup MEGDET_CUDA_ARCHS={kernels},{digits}",
        )
    return None
