"""What one rank knows of itself that must fit the others. Takes well under a second."""

import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import megdet_hvd
from megdet_hvd.cluster.driver import driver_version
from megdet_hvd.cluster.driver_variables import NODES, TASKS_PER_NODE
from megdet_hvd.cluster.launch import Launch, read_launch
from megdet_hvd.cluster.network_card import missing_card
from megdet_hvd.cluster.wheels import built_kernels, driver_problem, misfit
from megdet_hvd.config.load import config_to_dict
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError
from megdet_hvd.serialize import serializable
from megdet_hvd.storage import retried

PACKAGES = ("torch", "torchvision", "horovod", "mpi4py", "numpy", "pillow")
"""Whose versions must be equal on all ranks."""


@serializable
@dataclass(frozen=True)
class RankFacts:
    """One rank, as plain values; they travel to all others."""

    host: str
    code: Mapping[str, str]
    """Digest of each part of the package: ``engine``, ``train``, …"""
    settings: Mapping[str, str]
    """Digest of each top-level key of the configuration."""
    versions: Mapping[str, str]
    """Python, MPI and packages by name."""
    driver: str = ""
    """Version of the NVIDIA driver; empty: none."""
    gpu: str = ""
    """Name and compute capability of the GPU that this rank takes; empty: it takes none."""
    gpu_uuid: str = ""
    problem: str | None = None
    """Why this rank can't compute where it should, with the fix."""
    nodes: int | None = None
    """Machines that were asked for; None: nobody says."""
    tasks_per_node: int | None = None
    """Processes on each that were asked for; None: nobody says."""


def gather_facts(config: Config) -> RankFacts:
    """Look at this process. Never raises UserError: what is wrong is one of the facts.

    A process that was started alone has no digests: there are none to hold them against.
    """
    launch = read_launch(os.environ)
    driver = driver_version()
    gpu, uuid, problem = _gpu(config, launch, driver)
    alone = launch.controller == "single"
    return RankFacts(
        host=platform.node(),
        code={} if alone else code_digests(Path(megdet_hvd.__file__).parent),
        settings={} if alone else setting_digests(config),
        versions=_versions(),
        driver=driver,
        gpu=gpu,
        gpu_uuid=uuid,
        problem=problem or missing_card(launch, os.environ),
        nodes=_number(NODES),
        tasks_per_node=_number(TASKS_PER_NODE),
    )


def code_digests(package: Path) -> dict[str, str]:
    """A digest of the sources of each file and folder right below ``package``."""
    digests: dict[str, hashlib._Hash] = {}
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        digest = digests.setdefault(name.parts[0].removesuffix(".py"), hashlib.sha256())
        digest.update(f"{name}\0".encode())
        digest.update(retried(file.read_bytes))
    return {part: digest.hexdigest()[:8] for part, digest in digests.items()}


def setting_digests(config: Config) -> dict[str, str]:
    """A digest of each top-level key's value."""
    return {
        key: hashlib.sha256(repr(value).encode()).hexdigest()[:8]
        for key, value in config_to_dict(config).items()
    }


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    if "mpi4py.MPI" in sys.modules:  # under horovodrun --gloo MPI must not start
        from mpi4py import MPI

        versions["MPI"] = MPI.Get_library_version().split(",")[0].strip(" \0\n")
    return versions


def _number(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdigit() else None


def _gpu(config: Config, launch: Launch, driver: str) -> tuple[str, str, str | None]:
    """Name and UUID of the GPU of this rank, and what is wrong with it."""
    if config.device == "cpu":
        return "", "", None
    import torch

    from megdet_hvd.model.device import pick_device

    cuda = torch.version.cuda or ""
    if driver and (problem := driver_problem(driver, cuda)):
        fix = "make setup MEGDET_TORCH=2.9.1 (CUDA 12), or pass device=cpu"
        return "", "", f"{problem}; {fix}"
    if launch.local_rank is None:
        return "", "", None
    try:
        device = pick_device(config.device, launch.local_rank, launch.local_size or 1)
    except UserError as error:
        return "", "", str(error)
    if device.type != "cuda":
        return "", "", None
    found = torch.cuda.get_device_properties(device)
    capability = f"{found.major}.{found.minor}"
    flags = " ".join(torch.cuda.get_arch_list())
    wrong = misfit(driver, capability, cuda, flags, built_kernels(Path(sys.prefix)))
    name = f"{found.name} (capability {capability})"
    problem = None if wrong is None else f"{name}: {wrong[0]}; {wrong[1]}"
    return name, str(getattr(found, "uuid", "")), problem
