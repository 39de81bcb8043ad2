"""From facts to lines on one screen, and to whether training can run. No look at the machine."""

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from megdet_hvd.cluster.threads import BUSY_BESIDE_A_GPU
from megdet_hvd.cluster.wheels import misfit
from megdet_hvd.doctor.facts import DoctorFacts, Gpu

WIDTH = 100
SCREEN_LINES = 40

SET_UP = "make setup"
ON_PATH = "source .venv/bin/activate   (make train does this by itself)"
REBUILD = "rm -r ~/.cache/megdet_hvd/wheels && make setup   (builds Horovod anew)"
REPAIR = "rm -r .venv && make setup   (keeps the built Horovod)"

SPARED = (
    ("faster-coco-eval", "pycocotools computes AP, in ten times as long"),
    ("msgspec", "large annotation files take four times as long to read"),
    ("simplejpeg", "Pillow decodes JPEG files, in a third more time"),
    ("tensorboard", "metrics go to metrics.jsonl alone"),
)
"""What training can do without, and what it does then."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: str
    """``ok``; ``note``: worth knowing, training runs; ``NO``: training cannot run."""
    subject: str
    text: str
    fix: str = ""
    """The command that mends it."""


def judge(facts: DoctorFacts) -> list[Finding]:
    """All findings, in the order in which they depend on each other."""
    parts: tuple[Callable[[DoctorFacts], Iterator[Finding]], ...] = (
        _python,
        _torch,
        _horovod,
        _mpi,
        _launch,
        _gpus,
        _packages,
        _machine,
        _data,
    )
    return [finding for part in parts for finding in part(facts)]


def can_run(findings: list[Finding]) -> bool:
    """Whether training can run."""
    return all(finding.state != "NO" for finding in findings)


def report(findings: list[Finding], *, installed: bool = False) -> list[str]:
    """The lines to print, at most one screen of 40 lines of 100 characters.

    Where there is more, faults come before notes, and notes before what is in order.
    ``installed``: this is no checkout, which is where ``make setup`` can be said.
    """
    blocks = [_block(finding) for finding in findings]
    faults = sum(finding.state == "NO" for finding in findings)
    last = "Training can run."
    if faults:
        last = f"Training cannot run: {faults} thing{'s' * (faults > 1)} to mend (→)."
        if installed and any(SET_UP in finding.fix for finding in findings):
            last += f" {SET_UP}: in a checkout."
    room = SCREEN_LINES - 1
    if sum(map(len, blocks)) <= room:
        return [*(line for block in blocks for line in block), last]
    order = sorted(range(len(blocks)), key=lambda i: ("NO", "note", "ok").index(findings[i].state))
    shown: set[int] = set()
    left = room - 1
    for i in order:
        if len(blocks[i]) <= left:
            shown.add(i)
            left -= len(blocks[i])
    more = f"      … and {len(blocks) - len(shown)} more that this screen has no room for"
    return [*(line for i in sorted(shown) for line in blocks[i]), more, last]


def _block(finding: Finding) -> list[str]:
    head = f"{finding.state:>4}  {finding.subject:<12} "
    lines = textwrap.wrap(
        finding.text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head)
    ) or [head.rstrip()]
    if finding.fix:
        start = " " * len(head) + "→ "
        lines += textwrap.wrap(
            finding.fix,
            WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_on_hyphens=False,
        )
    return lines


def _python(facts: DoctorFacts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.python))
    text = f"{version} ({facts.executable}), megdet_hvd {facts.package}"
    if facts.python < (3, 11):
        yield Finding("NO", "Python", f"{text}: older than 3.11", "make setup PYTHON=python3.11")
    else:
        yield Finding("ok", "Python", text)


def _torch(facts: DoctorFacts) -> Iterator[Finding]:
    torch, vision = facts.versions.get("torch"), facts.versions.get("torchvision")
    if torch is None:
        yield Finding("NO", "torch", "not installed", SET_UP)
    elif not facts.torch.works:
        yield Finding("NO", "torch", f"{torch} does not load: {facts.torch.error}", REPAIR)
    else:
        cuda = facts.torch.text("cuda")
        line = f"CUDA {cuda}, for {facts.torch.text('architectures')}" if cuda else "without CUDA"
        yield Finding("ok", "torch", f"{facts.torch.text('version')} ({line})")
    if vision is None:
        yield Finding("NO", "torchvision", "not installed", SET_UP)
        return
    wanted = fitting_torchvision(torch or "")
    if wanted and not vision.startswith(f"{wanted}."):
        text = f"{vision} does not fit torch {torch}, which goes with torchvision {wanted}"
        yield Finding("NO", "torchvision", text, REPAIR)
    elif not facts.torchvision.works:
        text = f"{vision} does not work with torch {torch}: {facts.torchvision.error}"
        yield Finding("NO", "torchvision", text, REPAIR)
    else:
        pair = f", which fits torch {torch}" if wanted else ""
        yield Finding("ok", "torchvision", f"{vision}{pair}")


def fitting_torchvision(torch: str) -> str:
    """``0.29`` for torch 2.14.1: the minor versions have run 15 apart since torch 2.0."""
    parts = torch.split("+")[0].split(".")
    if len(parts) < 2 or parts[0] != "2" or not parts[1].isdigit():
        return ""
    return f"0.{int(parts[1]) + 15}"


def _horovod(facts: DoctorFacts) -> Iterator[Finding]:
    version = facts.versions.get("horovod")
    if version is None:
        yield Finding("NO", "Horovod", "not installed", SET_UP)
        return
    if not facts.horovod.works:
        text = f"{version} does not load: {facts.horovod.error}"
        yield Finding("NO", "Horovod", text, SET_UP if "torch" not in facts.versions else REBUILD)
        return
    named = {"MPI": "mpi", "Gloo": "gloo", "NCCL": "nccl"}
    has = [name for name, key in named.items() if facts.horovod.values.get(key)]
    text = f"{version} with PyTorch, {', '.join(has)}"
    if "MPI" not in has and "Gloo" not in has:
        yield Finding("NO", "Horovod", f"{text}: neither MPI nor Gloo", REBUILD)
        return
    gpus = bool(facts.gpus) and bool(facts.torch.text("cuda"))
    if "NCCL" not in has and gpus:
        text += "; without NCCL, sums between GPUs go through the host's memory, slowly"
        yield Finding("note", "Horovod", text, REBUILD)
    elif "MPI" not in has:
        yield Finding("note", "Horovod", f"{text}: only horovodrun --gloo starts it", REBUILD)
    else:
        yield Finding("ok", "Horovod", text)


def _mpi(facts: DoctorFacts) -> Iterator[Finding]:
    over_gloo = facts.horovod.works and not facts.horovod.values.get("mpi")
    state = "note" if over_gloo else "NO"
    needless = "; this Horovod runs over Gloo, without it" if over_gloo else ""
    if "mpi4py" not in facts.versions:
        yield Finding(state, "MPI", f"mpi4py is not installed{needless}", SET_UP)
        return
    if not facts.mpi4py.works:
        text = f"mpi4py {facts.versions['mpi4py']} finds no MPI: {facts.mpi4py.error}{needless}"
        yield Finding(state, "MPI", text, "make setup, or load the site's MPI module and try again")
        return
    library = facts.mpi4py.text("library")
    mine, theirs = facts.mpi4py.text("libmpi"), facts.horovod.text("libmpi")
    if mine and theirs and mine != theirs:
        text = f"mpi4py loads {mine}, but Horovod was linked to {theirs}"
        yield Finding("NO", "MPI", text, REBUILD)
        return
    text = f"{library} ({mine or 'place unknown'}), mpi4py {facts.versions['mpi4py']}"
    if mine and theirs:
        text += ", the one Horovod was linked to"
    yield Finding("ok", "MPI", text)
    yield from _launchers(facts, library)


def _launchers(facts: DoctorFacts, library: str) -> Iterator[Finding]:
    if not facts.horovodrun and not facts.mpirun:
        text = "neither horovodrun nor mpirun on PATH: only one process can be started"
        yield Finding("note", "launcher", text, ON_PATH)
        return
    wanted, has = _version_number(library), _version_number(facts.mpirun_version)
    if facts.mpirun and wanted and has and wanted != has:
        text = (
            f"{facts.mpirun} is of MPI {has}, the library {wanted}: ranks would not find each other"
        )
        yield Finding("NO", "launcher", text, ON_PATH)
        return
    if "Open MPI" in facts.mpirun_version and has.split(".")[0] not in ("", "3", "4"):
        text = f"Open MPI {has}: horovodrun --mpi passes options that Open MPI 5 removed"
        yield Finding("note", "launcher", text, "use mpirun or srun, or horovodrun --gloo")
        return
    if not facts.on_path:
        text = f"{facts.horovodrun or facts.mpirun} is not what this shell would start"
        yield Finding("note", "launcher", text, ON_PATH)
        return
    names = [path for path in (facts.horovodrun, facts.mpirun) if path]
    yield Finding("ok", "launcher", f"{' and '.join(names)}{f' ({has})' if has else ''}")


def _version_number(text: str) -> str:
    """The first dotted number in a version line, such as 4.1.8."""
    for word in text.replace(",", " ").split():
        bare = word.lstrip("v").strip("()")
        if bare[:1].isdigit() and "." in bare:
            return bare
    return ""


def _launch(facts: DoctorFacts) -> Iterator[Finding]:
    if facts.launch is None:
        return
    if facts.launch.works:
        seconds = facts.launch.text("seconds")
        count = facts.launch.text("processes")
        text = f"{count} processes started by horovodrun added up in {seconds} s, imports included"
        yield Finding("ok", "a real sum", text)
    else:
        text = f"horovodrun could not run two processes: {facts.launch.error}"
        fix = "see it whole: horovodrun -np 2 python -c 'import horovod.torch as h; h.init()'"
        yield Finding("NO", "a real sum", text, fix)


def _gpus(facts: DoctorFacts) -> Iterator[Finding]:
    cuda = facts.torch.text("cuda")
    if facts.gpu_tool_error:
        text = f"nvidia-smi is there and fails: {facts.gpu_tool_error}"
        yield Finding(
            "note", "GPU", text, "ask who looks after the machine: the driver is not loaded"
        )
        return
    if not facts.gpus:
        yield Finding("ok", "GPU", "none: training runs on the CPU")
        return
    kinds: dict[Gpu, int] = {}
    for gpu in facts.gpus:
        kinds[gpu] = kinds.get(gpu, 0) + 1
    for gpu, count in kinds.items():
        name = f"{count} × {gpu.name}, {gpu.memory_mib / 1024:.0f} GiB"
        name += f", capability {gpu.capability or 'unknown'}, driver {gpu.driver}"
        yield from _gpu(facts, gpu, name, cuda)
    if facts.torch.works and cuda and not facts.torch.values.get("available"):
        text = "torch sees no GPU, though the driver does"
        yield Finding("note", "GPU", text, "look at CUDA_VISIBLE_DEVICES; see the lines above")
    if nccl := facts.torch.text("nccl"):
        yield Finding("ok", "NCCL", f"{nccl}, brought by torch")
    if cuda:
        yield _cores_beside_gpus(facts.cores, len(facts.gpus))


def _cores_beside_gpus(cores: int, gpus: int) -> Finding:
    """What is left for loader processes where each GPU has a training process."""
    share = cores // gpus
    kept, left = min(share, BUSY_BESIDE_A_GPU), max(share - BUSY_BESIDE_A_GPU, 0)
    text = f"{share} for each GPU's process: {kept} kept for its own threads, {left} left to load "
    text += "pictures (data.workers=auto)"
    if left:
        return Finding("ok", "cores", text)
    fix = f"ask for more than {BUSY_BESIDE_A_GPU} a GPU (--cpus-per-task), or it may wait for them"
    return Finding("note", "cores", f"{text}: training loads them itself", fix)


def _gpu(facts: DoctorFacts, gpu: Gpu, name: str, cuda: str) -> Iterator[Finding]:
    if facts.torch.works and not cuda:
        text = f"{name}: this torch was built without CUDA and leaves it idle"
        yield Finding("note", "GPU", text, "make setup MEGDET_TORCH=default")
        return
    flags = facts.torch.text("architectures")
    if problem := misfit(gpu.driver, gpu.capability, cuda, flags, facts.kernels):
        yield Finding("NO", "GPU", f"{name}: {problem[0]}", problem[1])
        return
    yield Finding("ok", "GPU", f"{name}: served by these wheels")


def _packages(facts: DoctorFacts) -> Iterator[Finding]:
    needed = (
        "numpy",
        "pycocotools",
        "pydantic",
        "pyyaml",
        "pillow",
        "matplotlib",
        "tqdm",
        "psutil",
    )
    missing = [name for name in needed if name not in facts.versions]
    if missing:
        yield Finding("NO", "packages", f"not installed: {', '.join(missing)}", SET_UP)
    listed = (*needed, *(name for name, _ in SPARED))
    there = [f"{name} {facts.versions[name]}" for name in listed if name in facts.versions]
    if there:
        yield Finding("ok", "packages", ", ".join(there))
    for name, without in SPARED:
        if name not in facts.versions:
            yield Finding("note", "packages", f"{name} is not installed: {without}", SET_UP)


def _machine(facts: DoctorFacts) -> Iterator[Finding]:
    text = f"{facts.cores} cores for this process, {facts.memory_gib:.0f} GiB of memory"
    yield Finding("ok", "machine", text)
    if facts.cache_problem:
        fix = "export MEGDET_CACHE=/a/folder/you/may/write"
        yield Finding("NO", "cache", f"{facts.cache}: {facts.cache_problem}", fix)
    else:
        yield Finding("ok", "cache", f"{facts.cache} can be written")


def _data(facts: DoctorFacts) -> Iterator[Finding]:
    if facts.config_problem:
        fix = "mend the configuration: python -m megdet_hvd.train --help lists the settings"
        if "No module named" in facts.config_problem:  # nothing is wrong with the file
            fix = SET_UP
        yield Finding("NO", "settings", f"{facts.config_name}: {facts.config_problem}", fix)
        return
    if not facts.data:
        yield Finding("ok", "data", f"{facts.config_name} reads no files: scenes are rendered")
        return
    for entry in facts.data:
        if entry.problem is None:
            yield Finding("ok", "data", f"{entry.key}: {entry.path}")
        else:
            text = f"{entry.key}: {entry.path}: {entry.problem}"
            yield Finding("NO", "data", text, _data_fix(entry.key))


def _data_fix(key: str) -> str:
    if key.startswith("model."):
        return f"python -m megdet_hvd.data fetch backbone, or give another path: {key}=…"
    return f"give the right path, {key}=…, or python -m megdet_hvd.data fetch coco2017"
