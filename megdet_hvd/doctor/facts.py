"""What is known of a machine, as plain values. A thing that could not be found out is None."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProbeAnswer:
    """What a question asked in a process of its own brought."""

    values: Mapping[str, object] = field(default_factory=dict)
    """The answers; empty where it failed."""
    error: str | None = None
    """The last line of its error, or how it ended."""

    @property
    def works(self) -> bool:
        """Whether it was answered."""
        return self.error is None

    def text(self, name: str) -> str:
        """An answer as text; empty where there is none."""
        value = self.values.get(name)
        return "" if value is None else str(value)


@dataclass(frozen=True)
class Gpu:
    """One GPU, as the driver's own tool tells."""

    name: str
    driver: str
    """Version of the driver."""
    capability: str
    """Compute capability, such as ``9.0``; empty where the tool is too old to say."""
    memory_mib: int


@dataclass(frozen=True)
class DataPath:
    """A file or folder that the configuration names."""

    key: str
    """The configuration's key."""
    path: str
    """The path, variables and ``~`` expanded."""
    kind: str
    """``file`` or ``folder``."""
    problem: str | None
    """None, or what is wrong with it."""


@dataclass(frozen=True)
class DoctorFacts:
    """Everything the verdict is made of."""

    python: tuple[int, int, int]
    executable: str
    package: str
    """Version of megdet_hvd."""
    versions: Mapping[str, str]
    """Installed packages by name; one that is missing is not in it."""
    torch: ProbeAnswer
    """cuda, architectures (of the wheel), nccl, available, devices."""
    torchvision: ProbeAnswer
    horovod: ProbeAnswer
    """version, mpi, gloo, nccl, libmpi (path)."""
    mpi4py: ProbeAnswer
    """library (its own version line), libmpi (path)."""
    launch: ProbeAnswer | None
    """sum, seconds: two processes started by horovodrun; None: not tried."""
    mpirun: str
    """Path; empty: none."""
    mpirun_version: str
    """Its version line."""
    horovodrun: str
    """Path; empty: none."""
    on_path: bool
    """Whether a plain ``horovodrun`` in the user's shell is this one."""
    gpus: tuple[Gpu, ...]
    gpu_tool_error: str | None
    """Where nvidia-smi is there and fails."""
    kernels: str
    """GPU architectures that Horovod was built for by set-up; empty: unknown."""
    cores: int
    memory_gib: float
    cache: str
    cache_problem: str | None
    config_problem: str | None
    """The configuration's error."""
    config_name: str
    data: tuple[DataPath, ...]
