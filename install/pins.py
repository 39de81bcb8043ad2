"""What ``versions.toml`` says, as requirement lists. Values in, values out."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from install.problem import SetupProblem

VERSIONS_FILE = Path(__file__).with_name("versions.toml")


@dataclass(frozen=True)
class TorchPair:
    """One PyTorch with the torchvision that fits it."""

    torch: str
    """Version of torch."""
    torchvision: str
    """Version of torchvision."""
    cuda: str
    """CUDA line of the wheels, such as ``13.0``."""
    cuda_compiler: str
    """Requirement that brings the CUDA compiler; empty where no package has one."""
    architectures: str
    """GPU architectures of Horovod's kernels, such as ``75,80``."""
    driver: str
    """Oldest NVIDIA driver that serves the CUDA line."""
    pins: Mapping[str, str]
    """Versions that hold for this pair only."""


@dataclass(frozen=True)
class Versions:
    """``versions.toml``, checked."""

    uv: str
    """Version of uv."""
    horovod: str
    """Version of Horovod."""
    horovod_sha256: str
    """SHA-256 of Horovod's source archive."""
    default_torch: str
    """The pair that set-up takes unless told otherwise."""
    pairs: Mapping[str, TorchPair]
    """The PyTorch pairs by torch version."""
    groups: Mapping[str, Mapping[str, str]]
    """Name to version, in the groups mpi, run, tools, build and under."""

    def pair(self, torch: str) -> TorchPair:
        """The pair of that torch version.

        Raises:
            SetupProblem: no such pair.
        """
        if torch not in self.pairs:
            known = ", ".join(sorted(self.pairs, reverse=True))
            raise SetupProblem(
                f"MEGDET_TORCH={torch} is not a pair in {VERSIONS_FILE.name}; "
                f"known: {known}, or site for the PyTorch that your Python already has"
            )
        return self.pairs[torch]


def read_versions(text: str) -> Versions:
    """Parse the text of ``versions.toml``."""
    data = tomllib.loads(text)
    pairs = {torch: TorchPair(torch=torch, **fields) for torch, fields in data["torch"].items()}
    return Versions(
        uv=data["uv"],
        horovod=data["horovod"]["version"],
        horovod_sha256=data["horovod"]["sha256"],
        default_torch=data["default_torch"],
        pairs=pairs,
        groups={name: data[name] for name in ("mpi", "run", "tools", "build", "under")},
    )


def _exact(versions: Mapping[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in versions.items()]


def run_requirements(versions: Versions, pair: TorchPair | None, *, site_mpi: bool) -> list[str]:
    """What the user's environment holds, Horovod excepted; ``pair`` None: the site's PyTorch.

    With a site's MPI, mpi4py is left out: it is built against that MPI.
    """
    run = {n: v for n, v in versions.groups["run"].items() if not (site_mpi and n == "mpi4py")}
    lines = _exact(run) + _exact(versions.groups["tools"])
    if not site_mpi:
        lines += _exact(versions.groups["mpi"])
    if pair is None:
        lines += [*_exact(versions.groups["under"]), "setuptools"]
    else:
        lines += [f"torch=={pair.torch}", f"torchvision=={pair.torchvision}"]
        lines.append(f"setuptools=={pair.pins['setuptools']}")
    return lines


def build_requirements(
    versions: Versions, pair: TorchPair | None, *, site_mpi: bool, packaged_cuda: bool
) -> list[str]:
    """What the environment holds in which Horovod is built."""
    wanted = ("cloudpickle", "cffi", "packaging", "psutil", "pyyaml")
    lines = _exact(versions.groups["build"])
    lines += _exact({name: versions.groups["run"][name] for name in wanted})
    lines += _exact({"pip": versions.groups["tools"]["pip"]})
    if not site_mpi:
        lines += _exact(versions.groups["mpi"])
    if pair is None:
        return [*lines, "setuptools"]
    lines += [f"torch=={pair.torch}", f"setuptools=={pair.pins['setuptools']}"]
    if packaged_cuda:
        lines.append(f"{pair.cuda_compiler}=={pair.pins['cuda-toolkit']}")
    return lines


def docs_requirements(text: str) -> list[str]:
    """What builds the pages, from the text of ``versions.toml``.

    Not part of :class:`Versions`, which an environment is made from: the pages have their own.
    """
    return _exact(tomllib.loads(text)["docs"])


def constraints(versions: Versions, pair: TorchPair | None) -> list[str]:
    """Every pin, as constraints for what comes in underneath."""
    pins = dict(pair.pins) if pair is not None else {}
    for group in versions.groups.values():
        pins.update(group)
    return sorted(_exact(pins))
