"""Finding the facts out: files, programs and probes."""

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import megdet_hvd
from megdet_hvd.cluster.wheels import built_kernels
from megdet_hvd.config.paths import expand_path
from megdet_hvd.doctor import probes
from megdet_hvd.doctor.facts import DataPath, DoctorFacts, Gpu, ProbeAnswer
from megdet_hvd.errors import UserError

PACKAGES = (
    "torch", "torchvision", "horovod", "mpi4py", "numpy", "pycocotools", "pydantic", "pyyaml",
    "pillow", "matplotlib", "tensorboard", "tqdm", "psutil", "faster-coco-eval",
    "msgspec", "simplejpeg",
)  # fmt: skip


def gather(config: Path | None, overrides: Sequence[str], *, launch: bool) -> DoctorFacts:
    """Look at this machine. ``launch``: also start two processes with horovodrun."""
    versions = installed(PACKAGES)
    horovodrun, mpirun = probes.find_program("horovodrun"), probes.find_program("mpirun")
    with ThreadPoolExecutor(max_workers=2) as pool:
        torch = pool.submit(probes.ask, probes.TORCH)
        torchvision = pool.submit(probes.ask, probes.TORCHVISION)
        horovod = pool.submit(probes.ask, probes.HOROVOD)
        mpi4py = pool.submit(probes.ask, probes.MPI4PY)
    tried: ProbeAnswer | None = None
    if launch and horovodrun and horovod.result().works:
        tried = probes.ask_launch(horovodrun)
    gpus, gpu_tool_error = look_for_gpus()
    cache, cache_problem = look_at_cache()
    config_name, config_problem, data = look_at_config(config, overrides)
    return DoctorFacts(
        python=sys.version_info[:3],
        executable=sys.executable,
        package=megdet_hvd.__version__,
        versions=versions,
        torch=torch.result(),
        torchvision=torchvision.result(),
        horovod=horovod.result(),
        mpi4py=mpi4py.result(),
        launch=tried,
        mpirun=mpirun,
        mpirun_version=_first_line([mpirun, "--version"]) if mpirun else "",
        horovodrun=horovodrun,
        on_path=bool(horovodrun) and _same(shutil.which("horovodrun"), horovodrun),
        gpus=gpus,
        gpu_tool_error=gpu_tool_error,
        kernels=built_kernels(Path(sys.prefix)),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=memory_gib(),
        cache=cache,
        cache_problem=cache_problem,
        config_problem=config_problem,
        config_name=config_name,
        data=data,
    )


def installed(names: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that are there."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _same(one: str | None, other: str) -> bool:
    return one is not None and os.path.realpath(one) == os.path.realpath(other)


def _first_line(command: Sequence[str]) -> str:
    status, output, _ = probes.run(command, 30)
    lines = output.strip().splitlines()
    return lines[0].strip() if status == 0 and lines else ""


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """GPUs from nvidia-smi's lines ``name, driver, capability, memory``."""
    gpus = []
    for line in text.strip().splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4:
            memory = int(parts[3]) if parts[3].isdigit() else 0
            capability = parts[2] if re.fullmatch(r"\d+\.\d+", parts[2]) else ""
            gpus.append(Gpu(parts[0], parts[1], capability, memory))
    return tuple(gpus)


def look_for_gpus() -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs, and what nvidia-smi says where it is there and fails."""
    tool = probes.find_program("nvidia-smi")
    if not tool:
        return (), None
    query = [tool, "--format=csv,noheader,nounits", "--query-gpu=name,driver_version"]
    status, output, errors = probes.run([*query[:2], query[2] + ",compute_cap,memory.total"], 30)
    if status != 0:
        return (), probes.last_words(errors or output)
    return parse_gpus(output), None


def memory_gib() -> float:
    """The machine's memory, or 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError):
        return 0.0


def folder_problem(folder: Path) -> str | None:
    """Why nothing can be written below ``folder``, or None. Leaves nothing behind."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{place} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return f"cannot write in {place}: {error.strerror}"


def look_at_cache() -> tuple[str, str | None]:
    """The cache folder, and what is wrong with it."""
    folder = Path(os.environ.get("MEGDET_CACHE") or "~/.cache/megdet_hvd").expanduser()
    return str(folder), folder_problem(folder)


def path_problem(path: Path, kind: str) -> str | None:
    """Why a file or folder cannot be read, or None."""
    if not path.exists():
        return "not there"
    if kind == "folder" and not path.is_dir():
        return "not a folder"
    if kind == "file" and not path.is_file():
        return "not a file"
    return None if os.access(path, os.R_OK) else "may not be read"


def look_at_config(
    file: Path | None, overrides: Sequence[str]
) -> tuple[str, str | None, tuple[DataPath, ...]]:
    """The configuration's name, its error, and the paths it names."""
    name = "the embedded default" if file is None else str(file)
    try:
        from megdet_hvd.config.load import load_config

        config = load_config(file, overrides)
    except UserError as error:
        return name, str(error), ()
    except ImportError as error:
        return name, f"cannot be read: {error}", ()
    entries: list[tuple[str, str, str]] = []
    if config.data.kind == "coco":
        for split, sources in (("train", config.data.train), ("val", config.data.val)):
            for number, source in enumerate(sources):
                key = f"data.{split}.{number}"
                entries.append((f"{key}.annotations", source.annotations, "file"))
                entries.append((f"{key}.images", source.images, "folder"))
    weights = config.model.backbone_weights
    if weights is not None and ("/" in weights or weights.endswith((".pt", ".pth"))):
        entries.append(("model.backbone_weights", weights, "file"))
    found = []
    for key, text, kind in entries:
        try:
            path = expand_path(text, key)
        except UserError as error:
            found.append(DataPath(key, text, kind, str(error).split(": ", 1)[-1]))
        else:
            found.append(DataPath(key, str(path), kind, path_problem(path, kind)))
    return name, None, tuple(found)
