"""The preflight of a running session: data, links, and what goes into the log."""

import os
import time
from dataclasses import dataclass

import torch

from megdet_hvd.cluster.driver_variables import NODES
from megdet_hvd.comm.position import go_outside
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError
from megdet_hvd.job.agree import mark_agreed, together
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.world import World, machine_names
from megdet_hvd.model.device import pick_device
from megdet_hvd.preflight.links import describe_links, links_of, warn_of_slow
from megdet_hvd.preflight.measure import measure
from megdet_hvd.preflight.readable import describe_unreadable, read_share
from megdet_hvd.wording import counted, ranks_in_words


@dataclass(frozen=True)
class PreflightReport:
    """What a preflight found; equal on all ranks."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...]


def wanted(config: Config, world: World) -> bool:
    """Whether a preflight runs before training. Equal on all ranks: rank 0's view counts."""
    if world.size == 1 or config.preflight == "never":
        return False
    if config.preflight == "always" or len(world.machines) > 1:
        return True
    return any(gather_objects(NODES in os.environ, world, "preflight.wanted"))


def run_preflight(config: Config, world: World) -> PreflightReport:
    """Read some data and measure the links. Every process calls it together.

    That code, settings, versions and GPUs fit was found before Horovod started, by
    :func:`megdet_hvd.preflight.compare.check_facts`.

    Raises:
        UserError: on all ranks alike: data that a machine can't read, or no device to compute on.
        StorageError: so, where a machine's storage fails at the moment.
    """
    go_outside("preflight")
    began = time.monotonic()
    names = machine_names(world.hosts)
    with together(world, "preflight.device"):
        device = pick_device(config.device, world.local_rank, world.local_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    read = _read_data(config, world, names)
    lines, warnings = [], []
    if world.size > 1:
        reduced, exchanges = measure(world, device)
        links = links_of(exchanges, world.machines)
        lines = [str(reduced), *describe_links(links, names)]
        warnings = warn_of_slow(links, names)
    machines = len(world.machines)
    first = (
        f"code, settings, versions and devices agree on {counted(world.size, 'rank')} of "
        f"{counted(machines, 'machine')}; {read}; {time.monotonic() - began:.1f} s"
    )
    return PreflightReport((first, *lines), tuple(warnings))


def _read_data(config: Config, world: World, names: tuple[str, ...]) -> str:
    if config.data.kind == "own":
        return "the data set is your own and was not read"
    if config.data.kind != "coco":
        return "scenes are rendered, no data to read"
    share: tuple[int, str | None] = (0, None)
    with together(world, "preflight.storage"):
        share = read_share(config.data, world.rank, world.size)
    found = gather_objects(share, world, "preflight.data")
    problems: dict[str, list[str]] = {}
    for name, ranks in zip(names, world.machines, strict=True):
        if unread := [problem for rank in ranks if (problem := found[rank][1]) is not None]:
            problems[name] = list(dict.fromkeys(unread))
    if problems:
        raise mark_agreed(UserError(describe_unreadable(problems)))
    return f"{sum(count for count, _ in found)} pictures read, some on every machine"


def machine_lines(world: World) -> list[str]:
    """Local and cross sizes of every machine, as Horovod says. Every process calls it together."""
    import horovod.torch as hvd

    sizes = gather_objects((hvd.local_size(), hvd.cross_size()), world, "preflight.sizes")
    lines = [
        f"{counted(world.size, 'rank')} on {counted(len(world.machines), 'machine')}, "
        f"started by {world.launcher}"
    ]
    for name, ranks in zip(machine_names(world.hosts), world.machines, strict=True):
        local, cross = sizes[ranks[0]]
        lines.append(f"{name}: {ranks_in_words(ranks)}, local size {local}, cross size {cross}")
    return lines
