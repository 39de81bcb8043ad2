"""Horovod, built on the visited machine from the carried sources, with Gloo and NCCL.

Set-up's own plan and variables, with what the machine has: its torch, CUDA toolkit and NCCL. The
build looks for libraries by names that packages lack, and nothing of the machine is changed; so
folders of links stand in for its own. Where Horovod is there already, nothing is built.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from install.build_horovod import Plan, build_environ
from install.machine import cuda_toolkit, require_compilers
from install.problem import SetupProblem
from install.sources import unpack_source
from tests.gpu.visit.carried import read_carried
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value

ASK = """
import json, horovod, horovod.torch as hvd
print(json.dumps(dict(version=horovod.__version__, Gloo=bool(hvd.gloo_built()),
                      MPI=bool(hvd.mpi_built()), NCCL=int(hvd.nccl_built()))))
"""


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Seconds, and what it was built with."""
    began = time.monotonic()
    found = there()
    yield "there already", bool(found)
    if not found:
        if setting.carried is None:
            raise SetupProblem(
                "this environment has no Horovod, and no folder was named that holds its sources: "
                "--carried FOLDER"
            )
        wheel = next(setting.folder.glob("horovod-*.whl"), None)
        if wheel is None:
            wheel = build(setting.carried, setting.folder)
            yield "built in, s", time.monotonic() - began
        install(wheel)
        yield "wheel, MiB", wheel.stat().st_size / 2**20
        found = there()
        if not found:
            raise SetupProblem("what was built can't be imported; the reason stands above")
    yield from found.items()


def there() -> dict[str, Value]:
    """What the environment's Horovod is; empty: there is none that works."""
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr.strip()[-2000:], flush=True)
        return {}
    found: dict[str, Value] = json.loads(done.stdout.splitlines()[-1])
    return found


def build(carried: Path, keep: Path) -> Path:
    """The wheel, in ``keep``.

    Raises:
        SetupProblem: compilers are missing, or this torch's CUDA has no toolkit here.
        CalledProcessError: the build's reason is in the output.
    """
    require_compilers(os.environ)
    os.nice(5)  # measurements run beside it
    scratch = Path(tempfile.mkdtemp(prefix="megdet_hvd-horovod-"))
    tree = unpack_source(carried / read_carried(carried).horovod, scratch / "source")
    plan = plan_here(scratch)
    cores = len(os.sched_getaffinity(0))
    site_packages = Path(sys.prefix)  # the plan names every folder itself
    variables = build_environ(
        plan, Path(sys.prefix), site_packages, os.environ, max(1, cores * 3 // 4)
    )
    variables.pop("CMAKE_GENERATOR", None)  # setup.py gives make's own arguments
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-build-isolation", "--no-deps"]
    command += ["--no-index", "--wheel-dir", str(scratch), str(tree)]
    subprocess.run(command, check=True, env=variables)
    built = next(scratch.glob("horovod-*.whl"))
    shutil.copy2(built, keep / built.name)
    return keep / built.name


def plan_here(scratch: Path) -> Plan:
    """For the torch of this environment, without MPI, for the cards that are here."""
    import torch

    cuda = torch.version.cuda  # a Horovod without CUDA can't be built for a torch with it
    toolkit = None if cuda is None else cuda_toolkit(os.environ, cuda)
    if cuda is not None and toolkit is None:
        raise SetupProblem(
            f"torch {torch.__version__} has CUDA {cuda}, and there is no toolkit of that line: "
            "set CUDA_HOME"
        )
    cards = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    cards = cards or {(9, 0)}  # without a GPU, to try the build
    packages = Path(torch.__file__).parents[1]
    nccl = os.environ.get("HOROVOD_NCCL_HOME") or packages / "nvidia" / "nccl"
    return Plan(
        pair=None,
        torch=torch.__version__,
        cuda=cuda or "",
        architectures=",".join(f"{major}{minor}" for major, minor in sorted(cards)),
        mpi="",
        mpicc=None,
        toolkit=None if toolkit is None else linked_toolkit(toolkit[0], scratch / "cuda"),
        toolkit_release="" if toolkit is None else toolkit[1],
        nccl=None if cuda is None else linked_nccl(Path(nccl), scratch / "nccl"),
    )


def linked_toolkit(home: Path, folder: Path) -> Path:
    """``home``, or a folder of links to what is in it with the names that CMake looks for."""
    if (home / "lib64").exists():
        return home
    folder.mkdir()
    for one in home.iterdir():
        if one.name != "lib":
            (folder / one.name).symlink_to(one)
    libraries = folder / "lib64"
    link_libraries(home / "lib", libraries)
    (libraries / "stubs").mkdir(exist_ok=True)
    (folder / "lib").symlink_to("lib64")
    return folder


def linked_nccl(home: Path, folder: Path) -> Path:
    """So, for NCCL.

    Raises:
        SetupProblem: its header is not there.
    """
    if not (home / "include" / "nccl.h").is_file():
        raise SetupProblem(f"no NCCL at {home} (include/nccl.h): set HOROVOD_NCCL_HOME")
    folder.mkdir()
    (folder / "include").symlink_to(home / "include")
    link_libraries(home / "lib", folder / "lib")
    return folder


def link_libraries(source: Path, folder: Path) -> None:
    """Links to all in ``source``, and ``libx.so`` for a ``libx.so.2`` that has none."""
    folder.mkdir()
    for one in sorted(source.iterdir()):
        (folder / one.name).symlink_to(one)
    for one in sorted(source.glob("lib*.so.*")):
        plain = folder / f"{one.name.partition('.so.')[0]}.so"
        if not plain.exists():
            plain.symlink_to(one)


def install(wheel: Path) -> None:
    """Into the environment that runs this."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*command, "--force-reinstall", str(wheel)], check=True)
