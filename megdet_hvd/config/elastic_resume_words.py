"""What is said of a run that is carried on with other processes, and the sums behind it."""

from megdet_hvd.config.layout import Layout
from megdet_hvd.config.saved_layout import SavedLayout
from megdet_hvd.config.schema import Config
from megdet_hvd.wording import counted


def batch(before: SavedLayout, now: Layout) -> tuple[str, ...]:
    """How the global batch lies on the processes, and a word on memory where it needs more."""
    processes = counted(now.processes, "process")
    other = (
        f"on {processes} instead of {before.processes}"
        if now.processes != before.processes
        else f"on {processes} that stand otherwise"
    )
    line = (
        f"resumed {other}: global batch {before.global_batch} = {now.processes} × "
        f"{counted(now.images, 'image')} × {counted(now.accumulation, 'pass')} "
        f"(was {before.processes} × {before.images} × {before.accumulation})"
    )
    if now.images <= before.images:
        return (line,)
    return (
        line,
        f"a process holds {counted(now.images, 'image')} in a pass, {before.images} before; "
        "memory.checkpoint=auto drops and recomputes what does not fit",
    )


def bn_kept(before: SavedLayout, now: Layout, config: Config) -> tuple[str, ...]:
    """That the BN size stays, with its sum; nothing where there is none to keep."""
    if not now.bn_images:
        return ()
    if before.bn_images is None:
        return (f"BN size {_sizes(now.bn_images)}; the checkpoint does not say what it was",)
    if before.norm != config.model.norm:
        return (f"BN size {_sizes(now.bn_images)}; model.norm was {before.norm}",)
    if len(now.bn_images) > 1:
        return (f"BN sizes kept: {_sizes(now.bn_images)}",)
    setting = "" if now.bn_size is None else f" (bn.size={now.bn_size})"
    return (f"BN size kept: {_sum(now.bn_images[0], now.images)}{setting}",)


def bn_changes(before: SavedLayout, now: Layout, config: Config, wider: str | None = None) -> str:
    """From what to what it changes, and what would keep it."""
    if len(now.bn_images) == 1:
        new = _sum(now.bn_images[0], now.images)
    else:
        new = f"{_sizes(now.bn_images)} on machines of {_sizes(_machine_sizes(now))} processes"
    scope = "" if config.model.norm == "bn" else f" (bn.scope={config.bn.scope})"
    old = _sizes(before.bn_images or ())
    text = f"BN size changes from {old} to {new}{scope}"
    return text if wider is None else f"{text}; bn.scope={wider} bn.size={old} would keep it"


def refusal(before: SavedLayout, now: Layout, change: str) -> str:
    """The message of a resume that is refused."""
    return (
        f"{batch(before, now)[0]}; {change}. A run whose BN size changes on the way is another "
        "experiment: resume.other_bn_size=continue goes on all the same, and "
        f"{counted(before.processes, 'process')} placed as before keep it"
    )


def does_not_divide(batch: int, processes: int, passes: int | None) -> str:
    """The message for a batch that does not divide, naming the numbers of processes that do."""
    unit = processes * (passes or 1)
    can = [n for n in range(1, batch + 1) if batch % (n * (passes or 1)) == 0]
    given = (
        "" if passes is None else f" × {counted(passes, 'pass')} (learning.accumulation as given)"
    )
    advice = (
        f"start it on {_sizes(can, 'or')} {'process' if can == [1] else 'processes'}"
        if can
        else "leave learning.accumulation out"
    )
    return (
        f"resume: global batch {batch} does not divide over {counted(processes, 'process')}{given} "
        f"({batch} % {unit} = {batch % unit}), and a resumed run keeps its batch: {advice}"
    )


def _sum(size: int, images: int) -> str:
    """A BN size as a sum over processes, or as a part of one's images."""
    if size == images:
        return f"{size}, each process its own {counted(images, 'image')}"
    if size < images:
        return f"{size} of the {counted(images, 'image')} of a process"
    return f"{size} = {counted(size // images, 'process')} × {counted(images, 'image')}"


def _machine_sizes(now: Layout) -> tuple[int, ...]:
    return tuple(sorted({len(ranks) for ranks in now.machines}))


def _sizes(numbers: tuple[int, ...] | list[int], last: str = "and") -> str:
    *first, end = map(str, numbers)
    return f"{', '.join(first)} {last} {end}" if first else end
