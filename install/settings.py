"""What the user asks for: environment variables, and what an earlier set-up was told.

A setting that is not given keeps the value of the set-up before, so that a plain ``make train``
stays with the torch that ``make setup MEGDET_TORCH=2.11.0`` chose. ``default`` resets one.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from install.problem import SetupProblem

NAMES = {
    "torch": "MEGDET_TORCH",
    "mpi": "MEGDET_MPI",
    "architectures": "MEGDET_CUDA_ARCHS",
}
_CHOICES = {"mpi": ("package", "site")}


@dataclass(frozen=True)
class Settings:
    """What shapes the environment; kept in its stamp."""

    torch: str
    """A torch version of ``versions.toml``, or ``site``."""
    mpi: str = "package"
    """``package``: Open MPI from the package index. ``site``: the mpicc on PATH."""
    architectures: str = ""
    """GPU architectures such as ``80,90``; empty: the pair's own."""


@dataclass(frozen=True)
class Places:
    """Where things lie. None of it shapes the environment."""

    root: Path
    """The repository."""
    venv: Path
    """The environment (MEGDET_VENV)."""
    cache: Path
    """Kept per user: wheels, sources, logs (MEGDET_CACHE)."""
    uv_cache: Path
    """uv's cache, from which packages are hard-linked."""
    archives: Path | None
    """Folder of archives fetched beforehand (MEGDET_ARCHIVES); no network is used then."""

    @property
    def python(self) -> Path:
        """The environment's Python."""
        return self.venv / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """The file that says what the environment holds."""
        return self.venv / "megdet_hvd.json"


def wants_hashes(environ: Mapping[str, str]) -> bool:
    """Whether packages are compared with the lock files (MEGDET_HASHES).

    Raises:
        SetupProblem: neither yes nor no.
    """
    given = environ.get("MEGDET_HASHES", "").strip() or "yes"
    if given not in ("yes", "no"):
        raise SetupProblem(f"MEGDET_HASHES={given} is neither yes nor no")
    return given == "yes"


def read_settings(
    environ: Mapping[str, str], remembered: Mapping[str, str], default_torch: str
) -> Settings:
    """Settings from the environment, else from the set-up before, else the defaults.

    Raises:
        SetupProblem: a value that is none of the choices.
    """
    defaults = asdict(Settings(torch=default_torch))
    values = {}
    for field in fields(Settings):
        given = environ.get(NAMES[field.name], "").strip()
        if not given and field.name == "architectures":
            given = environ.get("HOROVOD_BUILD_CUDA_CC_LIST", "").strip()
        kept = str(remembered.get(field.name, defaults[field.name]))
        values[field.name] = defaults[field.name] if given == "default" else given or kept
        choices = _CHOICES.get(field.name)
        if choices and values[field.name] not in choices:
            raise SetupProblem(
                f"{NAMES[field.name]}={values[field.name]} is neither {' nor '.join(choices)}"
            )
    parts = values["architectures"].replace(";", ",").replace(".", "").split(",")
    parts = [part.strip() for part in parts if part.strip()]
    if not all(part.isdigit() and len(part) in (2, 3) for part in parts):
        raise SetupProblem(
            f"{NAMES['architectures']}={values['architectures']} is not a list of compute "
            "capabilities such as 80,90"
        )
    values["architectures"] = ",".join(sorted(set(parts), key=int))
    return Settings(**values)


def read_places(environ: Mapping[str, str], root: Path, home: Path) -> Places:
    """Folders from the environment; relative ones count from the repository.

    Where MEGDET_CACHE is given, uv's cache (5 GB) goes there too, unless UV_CACHE_DIR says
    otherwise: who moves the cache has a small home folder.
    """

    def folder(text: str) -> Path:
        return Path(
            os.path.normpath(
                root / Path(text.replace("~", str(home), 1) if text.startswith("~/") else text)
            )
        )

    shared = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    own = environ.get("MEGDET_CACHE", "")
    cache = folder(own) if own else shared / "megdet_hvd"
    uv_cache = cache / "uv" if own else shared / "uv"
    if environ.get("UV_CACHE_DIR"):
        uv_cache = folder(environ["UV_CACHE_DIR"])
    archives = environ.get("MEGDET_ARCHIVES", "")
    return Places(
        root=root,
        venv=folder(environ.get("MEGDET_VENV") or ".venv"),
        cache=cache,
        uv_cache=uv_cache,
        archives=folder(archives) if archives else None,
    )
