"""How Horovod's own thread is set up, through the variables that it reads when it starts.

What the user set in the environment stands. Fusion is off for a deterministic run, since what
Horovod fuses depends on timing, and with it the order of sums.

Horovod 0.28.1 keeps a value that it was given as long as the process lives, and crashes when it is
started once more in a process where it was given both variables (``BayesianParameter::SetValue``
in parameter_manager.cc writes into a vector that has no elements any more). So a value that was
given once is always given again, and a start that would crash is refused.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

FUSION_THRESHOLD = "HOROVOD_FUSION_THRESHOLD"
"""Bytes that are sent together at most."""
CYCLE_TIME = "HOROVOD_CYCLE_TIME"
"""Milliseconds between two looks for messages."""

ASYNC_COMPLETION = "HOROVOD_ENABLE_ASYNC_COMPLETION"
"""1: the device, not the host, waits for a sum on a GPU.

Horovod then tells the default stream to wait, whichever is current (mpi_ops_v2.cc): so training
runs on that one, see :func:`megdet_hvd.engine.device.prepare_device`. It has no effect while
Horovod writes a timeline (gpu_operations.cc). Once on, it stays so for the life of the process: no
value turns it off (``SetBoolFromEnv`` in operations.cc).
"""
TIMELINE = "HOROVOD_TIMELINE"
"""File for the timeline."""

HOROVODS_OWN = {FUSION_THRESHOLD: str(128 * 2**20), CYCLE_TIME: "1"}
"""What Horovod takes where a variable is not set."""

BLOCKING_CYCLE_MS = 0.1
"""Cycle for a process that waits for many small sums.

A blocking sum takes at least a cycle. *Measured* on a CPU: 1.1 ms at Horovod's own cycle of 1 ms,
0.45 ms at 0.1 ms. ResNet-50 waits for 106 sums a step, so that 0.1 ms saves some 70 ms of it. The
price, *measured* too, is about a quarter of a core for Horovod's thread: a process that computes
on a GPU has one to spare, a process that computes on all its cores has not.
"""


@dataclass(frozen=True)
class HorovodSettings:
    """What to start Horovod with; None leaves Horovod's own value."""

    fusion_threshold_mib: int | None = None
    """Messages are fused up to so many MiB; 0: never."""
    cycle_time_ms: float | None = None
    """Pause between two looks for messages."""
    deterministic: bool = False
    """No fusion, whatever ``fusion_threshold_mib`` says."""
    async_completion: bool = False
    """Sums on a GPU keep its stream waiting, not the host."""


def settings_for(config: Config) -> HorovodSettings:
    """The settings of a training run."""
    horovod = config.horovod
    cycle = None if horovod.cycle_time_ms == "auto" else horovod.cycle_time_ms
    fusion = None if horovod.fusion_threshold_mib == "auto" else horovod.fusion_threshold_mib
    on_gpu = _computes_on_gpu(config)
    if horovod.cycle_time_ms == "auto" and _waits_for_sums(config) and on_gpu:
        cycle = BLOCKING_CYCLE_MS
    return HorovodSettings(fusion, cycle, config.deterministic, on_gpu)


def settings_on(*, gpu: bool) -> HorovodSettings:
    """Those of a run that waits for BN sums, for whoever measures such sums."""
    return HorovodSettings(cycle_time_ms=BLOCKING_CYCLE_MS if gpu else None, async_completion=gpu)


def light_cycle(settings: HorovodSettings, config: Config) -> HorovodSettings:
    """Settings for a program that starts Horovod several times, if they can be had.

    Both variables together can be given once in a process. So the cycle time, where we chose it
    and it only saves time, gives way to the fusion threshold, now or in an earlier session.
    """
    fusion = settings.deterministic or settings.fusion_threshold_mib is not None
    if config.horovod.cycle_time_ms == "auto" and (fusion or FUSION_THRESHOLD in _given):
        return replace(settings, cycle_time_ms=None)
    return settings


def _waits_for_sums(config: Config) -> bool:
    shared = config.model.norm == "cgbn" and config.bn.scope != "process"
    return shared and config.bn.carrier != "peer"


def _computes_on_gpu(config: Config) -> bool:
    if config.device != "auto":
        return config.device == "cuda"
    from megdet_hvd.job.visible import shown_gpus

    return shown_gpus() > 0


def horovod_variables(
    settings: HorovodSettings, environ: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables to add to ``environ``, and what is worth a line in the log."""
    fusion = 0 if settings.deterministic else settings.fusion_threshold_mib
    reason = "deterministic" if settings.deterministic else "horovod.fusion_threshold_mib"
    wanted = (
        (FUSION_THRESHOLD, None if fusion is None else str(fusion * 2**20), reason),
        (
            CYCLE_TIME,
            None if settings.cycle_time_ms is None else f"{settings.cycle_time_ms:g}",
            "horovod.cycle_time_ms",
        ),
        (ASYNC_COMPLETION, "1" if settings.async_completion else None, "sums on a GPU"),
    )
    added, notes = {}, []
    for name, value, reason in wanted:
        found = environ.get(name)
        if value is None:
            continue
        if found is None:
            added[name] = value
            notes.append(f"{name}={value} ({reason})")
        elif not _same(found, value):
            notes.append(f"{name}={found}, as the environment says ({reason} would set {value})")
    if settings.async_completion and environ.get(TIMELINE):
        notes.append(f"{TIMELINE} is set: while it is written, the host waits for each sum")
    return added, tuple(notes)


def _same(found: str, value: str) -> bool:
    try:
        return float(found) == float(value)
    except ValueError:
        return False


_given: set[str] = set()
"""Variables that Horovod has read in this process, in any session."""


def initialise(init: Callable[[], None], variables: Mapping[str, str]) -> None:
    """Call ``init``, which starts Horovod, with ``variables`` added to the environment meanwhile.

    Raises:
        UserError: Horovod would crash, since it was given both of its variables before.
    """
    problem = refusal()
    if problem is not None:
        raise UserError(problem)
    again = {name: HOROVODS_OWN[name] for name in _given if name not in os.environ}
    with changed_environment({**again, **variables}):
        _given.update(name for name in HOROVODS_OWN if name in os.environ)
        init()


def refusal() -> str | None:
    """Why Horovod can't be started in this process any more; None where it can."""
    if len(_given) < len(HOROVODS_OWN):
        return None
    names = " and ".join(HOROVODS_OWN)
    return (
        f"Horovod 0.28.1 can't be started twice in a process where {names} were both set: it "
        "would crash. Start a new process, or leave one of them (and "
        "horovod.fusion_threshold_mib, horovod.cycle_time_ms, deterministic) at its default"
    )


@contextmanager
def changed_environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Within it, the process's environment has these values; None: the variable is not there."""
    before = {name: os.environ.get(name) for name in changes}
    _change(changes)
    try:
        yield
    finally:
        _change(before)


def _change(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
