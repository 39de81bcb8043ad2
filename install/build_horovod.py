"""Horovod's wheel: from the cache, or built from the published sources with our edits."""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from install.console import run_logged, step
from install.files import only_one, own_folder, put_folder, write_json
from install.horovod_edits import EDITS, apply_edits
from install.keys import fingerprint, wheel_key
from install.lock import constraints_of, hashed
from install.machine import SiteTorch, cuda_toolkit, require_compilers
from install.packages import Installer
from install.pins import TorchPair, Versions, build_requirements
from install.problem import SetupProblem
from install.runpath import make_movable
from install.settings import Places, Settings
from install.sources import get_source, unpack_source


@dataclass(frozen=True)
class Plan:
    """What is to be built, and against what."""

    pair: TorchPair | None
    """The PyTorch pair; None: the site's."""
    torch: str
    """Version of torch."""
    cuda: str
    """CUDA line of torch; empty: no GPU support."""
    architectures: str
    """GPU architectures, such as ``80,90``."""
    mpi: str
    """Name and version of MPI; empty: without, Gloo alone carries Horovod's messages."""
    mpicc: Path | None
    """The site's mpicc; None: the package's."""
    toolkit: Path | None
    """The machine's CUDA toolkit; None: the compiler package."""
    toolkit_release: str
    """Its release, such as ``12.4``."""
    nccl: Path | None
    """The site's NCCL; None: the one that torch brings."""

    def key(self, horovod: str) -> str:
        """The wheel's name in the cache."""
        return wheel_key(
            {
                "horovod": horovod,
                "torch": self.torch,
                "python": f"{sys.version_info.major}.{sys.version_info.minor}",
                "mpi": self.mpi,
                "mpicc": str(self.mpicc or ""),
                "cuda": self.cuda,
                "toolkit": self.toolkit_release,
                "nccl": str(self.nccl or ""),
                "architectures": self.architectures,
                "machine": platform.machine(),
                "edits": fingerprint([asdict(edit) for edit in EDITS]),
            }
        )


def make_plan(
    settings: Settings,
    versions: Versions,
    pair: TorchPair | None,
    site: SiteTorch | None,
    mpi: tuple[str, Path | None],
    environ: Mapping[str, str],
) -> Plan:
    """Decide what Horovod is built against.

    Raises:
        SetupProblem: GPU support is wanted and there is no CUDA compiler for this torch.
    """
    torch = pair.torch if pair is not None else site.version if site is not None else ""
    cuda = pair.cuda if pair is not None else site.cuda if site is not None else ""
    packaged = pair is not None and bool(pair.cuda_compiler)
    asked = bool(environ.get("HOROVOD_CUDA_HOME") or environ.get("CUDA_HOME"))
    toolkit = cuda_toolkit(environ, cuda) if cuda and (asked or not packaged) else None
    if cuda and not packaged and toolkit is None:
        raise SetupProblem(
            f"torch {torch} was built with CUDA {cuda}, and no package index has that line's "
            f"compiler: install or load a CUDA {cuda.split('.')[0]} toolkit (module load cuda, or "
            "CUDA_HOME=/path/to/cuda), or take the default torch (MEGDET_TORCH=default)"
        )
    nccl = environ.get("HOROVOD_NCCL_HOME") if cuda else None
    default_archs = pair.architectures if pair is not None else "80,90"
    return Plan(
        pair=pair,
        torch=torch,
        cuda=cuda,
        architectures=(settings.architectures or default_archs) if cuda else "",
        mpi=mpi[0],
        mpicc=mpi[1],
        toolkit=toolkit[0] if toolkit else None,
        toolkit_release=toolkit[1] if toolkit else "",
        nccl=Path(nccl) if nccl else None,
    )


def build_environ(
    plan: Plan, environment: Path, site_packages: Path, environ: Mapping[str, str], jobs: int
) -> dict[str, str]:
    """The variables that Horovod's build reads."""
    bins = [environment / "bin"]
    result = {
        **environ,
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITH_MPI" if plan.mpi else "HOROVOD_WITHOUT_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
        "MAKEFLAGS": f"-j{jobs}",
    }
    result.pop("PYTHONHOME", None)
    if plan.mpicc is not None:
        bins.append(plan.mpicc.parent)
    if plan.cuda:
        line = plan.cuda.split(".")[0]
        home = plan.toolkit or site_packages / "nvidia" / f"cu{line}"
        bins.insert(0, home / "bin")
        nccl = plan.nccl or site_packages / "nvidia" / "nccl"
        result.update(
            CUDA_HOME=str(home),
            HOROVOD_CUDA_HOME=str(home),
            HOROVOD_NCCL_HOME=str(nccl),
            HOROVOD_NCCL_LINK="SHARED",
            HOROVOD_GPU_OPERATIONS="NCCL",
            HOROVOD_BUILD_CUDA_CC_LIST=plan.architectures,
        )
    else:
        for name in [name for name in result if name.startswith(("HOROVOD_GPU", "HOROVOD_CUDA"))]:
            del result[name]
        result["HOROVOD_WITHOUT_CUDA"] = "1"
    result["PATH"] = os.pathsep.join([*map(str, bins), environ.get("PATH", "")])
    return result


def lay_links(nvidia: Path, line: str) -> None:
    """Names that CMake looks for and the packages lack; only inside the build's environment."""

    def link(place: Path, target: str) -> None:
        if place.parent.is_dir() and not place.exists():
            place.symlink_to(target)

    cuda = nvidia / f"cu{line}"
    if cuda.is_dir():
        link(cuda / "lib64", "lib")
        (cuda / "lib" / "stubs").mkdir(exist_ok=True)
        link(cuda / "lib" / "libcudart.so", f"libcudart.so.{line}")
    link(nvidia / "nccl" / "lib" / "libnccl.so", "libnccl.so.2")


def build_folder(cache: Path, scratch: Path, user: int) -> Path:
    """Where builds take place: in the cache, or where its path would break them, in ``scratch``.

    Horovod's CMake files use their own path as a regular expression: a ``+`` in it, and the
    library silently lands in a wrong folder of the wheel. make breaks on blanks.

    Raises:
        SetupProblem: neither path is plain.
    """

    def plain(path: Path) -> bool:
        return re.fullmatch(r"[\w./@-]+", str(path), re.ASCII) is not None

    if plain(cache):
        return cache / "build"
    if plain(scratch):
        return scratch / f"megdet_hvd-build-{user}"
    raise SetupProblem(
        f"Horovod cannot be built below a path with blanks or special characters, and both "
        f"{cache} and {scratch} have some: set TMPDIR or MEGDET_CACHE to a plain path"
    )


def get_wheel(
    plan: Plan, versions: Versions, places: Places, installer: Installer, environ: Mapping[str, str]
) -> Path:
    """The folder that holds Horovod's wheel, and mpi4py's where the MPI is the site's."""
    key = plan.key(versions.horovod)
    place = places.cache / "wheels" / key
    with only_one(places.cache / "locks" / f"{key}.lock", f"Horovod ({key})"):
        if not any(place.glob("horovod-*.whl")):
            require_compilers(environ)
            _build(plan, versions, places, installer, environ, key)
    return place


def _build(
    plan: Plan,
    versions: Versions,
    places: Places,
    installer: Installer,
    environ: Mapping[str, str],
    key: str,
) -> None:
    builds = build_folder(places.cache, Path(tempfile.gettempdir()), os.getuid())
    logs = places.cache / "logs"
    builds.parent.mkdir(parents=True, exist_ok=True)
    own_folder(builds)
    for left in builds.glob(f"{key}-*"):  # by a build that was killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=builds))
    environment = scratch / "env"
    python = environment / "bin" / "python"
    packaged_cuda = bool(plan.cuda) and plan.toolkit is None and plan.pair is not None
    with step("making the environment in which Horovod is built"):
        installer.make_environment(
            environment, logs / "build-env.log", system_packages=plan.pair is None
        )
        installer.install(
            python,
            build_requirements(
                versions,
                plan.pair,
                site_mpi=plan.mpicc is not None,
                packaged_cuda=packaged_cuda,
            ),
            constraints_of(versions, plan.pair, environ),
            logs / "build-env.log",
        )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    inside = PurePosixPath("lib", version, "site-packages")
    site_packages = environment / inside
    if plan.cuda:
        lay_links(site_packages / "nvidia", plan.cuda.split(".")[0])
        _check_nccl(plan, site_packages)
    archive = get_source(versions, places, python)
    jobs = int(environ.get("MEGDET_JOBS") or len(os.sched_getaffinity(0)))
    variables = build_environ(plan, environment, site_packages, environ, jobs)
    made = scratch / "made"
    log = logs / f"{key}.log"
    made.mkdir()
    if plan.mpicc is not None:
        with step(f"building mpi4py for {plan.mpi}, about 3 minutes on 2 cores"):
            mpi4py = f"mpi4py=={versions.groups['run']['mpi4py']}"
            wanted = scratch / "mpi4py.txt"
            wanted.write_text("\n".join(hashed(mpi4py, environ)) + "\n", encoding="utf-8")
            _build_mpi4py(python, wanted, made, places, variables)
    pip: list[str | Path] = [python, "-m", "pip", "wheel", "--no-build-isolation"]
    pip += ["--no-deps", "--wheel-dir"]
    gpu = f"CUDA {plan.cuda} for {plan.architectures}" if plan.cuda else "no GPU support"
    with step(
        f"building Horovod {versions.horovod} for torch {plan.torch}, {plan.mpi}, {gpu}: once "
        f"per user, about 4 minutes on 2 cores ({jobs} here); log: {log}"
    ):
        tree = unpack_source(archive, scratch / "source")
        apply_edits(tree)
        run_logged("building Horovod", [*pip, scratch / "raw", "-v", tree], log, environ=variables)
        _repack(python, scratch, environment, inside, made, logs)
    write_json(
        made / "built.json", {"key": key, "plan": {k: str(v) for k, v in asdict(plan).items()}}
    )
    put_folder(made, places.cache / "wheels" / key)
    shutil.rmtree(scratch, ignore_errors=True)


def _check_nccl(plan: Plan, site_packages: Path) -> None:
    nccl = plan.nccl or site_packages / "nvidia" / "nccl"
    if not (nccl / "include" / "nccl.h").is_file():
        raise SetupProblem(
            f"no NCCL at {nccl} (include/nccl.h): set HOROVOD_NCCL_HOME to the folder that holds "
            "its include and lib"
        )


def _repack(
    python: Path, scratch: Path, environment: Path, inside: PurePosixPath, made: Path, logs: Path
) -> None:
    wheel = next((scratch / "raw").glob("horovod-*.whl"))
    unpacked = scratch / "unpacked"
    command: list[str | Path] = [python, "-m", "wheel", "unpack", "--dest", unpacked, wheel]
    run_logged("unpacking the wheel", command, logs / "repack.log")
    tree = next(unpacked.iterdir())
    make_movable(tree, environment, inside)
    command = [python, "-m", "wheel", "pack", "--dest-dir", made, tree]
    run_logged("packing the wheel", command, logs / "repack.log")


def _build_mpi4py(
    python: Path,
    wanted: Path,
    made: Path,
    places: Places,
    variables: Mapping[str, str],
) -> None:
    source = ["--no-index", "--find-links", str(places.archives)] if places.archives else []
    command: list[str | Path] = [python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["-v", "--no-binary", "mpi4py", "--wheel-dir", made, *source]
    command += ["--requirement", wanted]
    run_logged("building mpi4py", command, places.cache / "logs" / "mpi4py.log", environ=variables)
