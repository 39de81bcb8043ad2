"""Which GPU a process takes: its local rank among those that it may see.

Launchers show a task all GPUs of its machine, one of them, or an empty list. CUDA reads the list,
CUDA_VISIBLE_DEVICES, once, when it starts: a list that has to be put right is set before.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from megdet_hvd.errors import UserError
from megdet_hvd.wording import counted

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA shows this process: numbers, or UUIDs such as GPU-… and MIG-…."""
_GIVEN = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
"""Numbers of the GPUs on this node that belong to the step, and to the job."""
_COUNT = "SLURM_GPUS_ON_NODE"
_EMPTY = ("", "NoDevFiles")
"""Lists that a launcher sets where it gave a task nothing. A user who wants none writes -1."""


@dataclass(frozen=True)
class GpuChoice:
    """One process's GPU."""

    visible: str | None
    """The list to set before CUDA starts; None: leave it as it is."""
    index: int | None
    """Its number in torch; None: there is no GPU."""
    name: str
    """Its entry in the list: a number of the machine's, or a UUID; empty: there is no GPU."""
    reason: str
    """Why this one, in words."""


def listed_gpus(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """Entries of CUDA_VISIBLE_DEVICES that CUDA takes; None: it is not set, so all are shown."""
    text = environ.get(VISIBLE)
    if text is None:
        return None
    entries: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        if entry in (*_EMPTY, "-1"):  # CUDA stops reading here
            break
        entries.append(entry)
    return tuple(entries)


def given_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs of this node that Slurm gave the job; empty: none, or this is no Slurm job."""
    for name in _GIVEN:
        if text := environ.get(name, "").strip():
            return tuple(number for part in text.split(",") for number in _range(part.strip()))
    count = environ.get(_COUNT, "").strip()
    return tuple(map(str, range(int(count)))) if count.isdigit() else ()


def _range(text: str) -> list[str]:
    match = re.fullmatch(r"(\d+)-(\d+)", text)
    return [text] if match is None else list(map(str, range(int(match[1]), int(match[2]) + 1)))


def list_to_set(environ: Mapping[str, str], openable: int | None) -> str | None:
    """CUDA_VISIBLE_DEVICES as it should be before CUDA starts; None: leave it as it is.

    Args:
        environ: the environment.
        openable: GPUs that CUDA would show without a list; None: unknown.
    """
    given, text = given_gpus(environ), environ.get(VISIBLE)
    if not given or (text is not None and text.strip() not in _EMPTY):
        return None
    if openable is None or openable > len(given):
        return ",".join(given)  # more than ours can be opened, so numbers are the machine's
    # A cgroup hides the others, and CUDA counts what is left from 0.
    return None if text is None else ",".join(map(str, range(openable)))


def choose_gpu(
    environ: Mapping[str, str], local_rank: int, local_size: int, shown: int | None
) -> GpuChoice:
    """The GPU of one process.

    Args:
        environ: the environment, with the launcher's and Slurm's variables.
        local_rank: this process among those of its machine.
        local_size: processes on its machine.
        shown: GPUs that torch shows; where the list is empty, those it would show without one.
            None: unknown, and the environment is believed.

    Raises:
        UserError: there are GPUs, and not one for each process of the machine.
    """
    visible = list_to_set(environ, shown)
    listed = listed_gpus(environ) if visible is None else tuple(filter(None, visible.split(",")))
    if listed is None:
        names = tuple(map(str, range(shown or 0)))
    else:
        names = listed if shown is None else listed[:shown]
    if not names:
        return GpuChoice(None, None, "", _why_none(environ, shown))
    if len(names) >= local_size:
        source = "the list set from what the job was given" if visible else "all are shown"
        return GpuChoice(visible, local_rank, names[local_rank], f"by local rank; {source}")
    if len(names) == 1 and (len(listed or ()) == 1 or len(given_gpus(environ)) >= local_size):
        return GpuChoice(visible, 0, names[0], "the one that this task is shown")
    raise UserError(_too_few(environ, len(names), local_rank, local_size))


def _why_none(environ: Mapping[str, str], shown: int | None) -> str:
    if given := given_gpus(environ):
        text = environ.get(VISIBLE)
        listed = "" if text is None else f" ({VISIBLE}={text})"
        return f"the job was given {len(given)} on this machine, and torch shows none{listed}"
    return "the environment names none" if shown is None else "torch shows none"


def _too_few(environ: Mapping[str, str], there: int, local_rank: int, local_size: int) -> str:
    text = f"{VISIBLE}={environ[VISIBLE]}" if VISIBLE in environ else "no list is set"
    given = given_gpus(environ)
    if len(given) > there:
        text += f"; the job was given {len(given)}, so a cgroup or container hides the rest"
    return (
        f"local rank {local_rank} of {local_size}: {local_size} processes on this machine, which "
        f"shows {counted(there, 'GPU')} ({text}); start at most one process per "
        f"GPU (--ntasks-per-node={there}), ask for more GPUs (--gpus-per-node={local_size}), or "
        "pass device=cpu"
    )
