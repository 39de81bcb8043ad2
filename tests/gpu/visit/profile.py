"""Where the time of a CGBN step in bfloat16 goes: kernels, launches, an idle GPU; new canvases."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from megdet_hvd.bench.step import pictures_of, waited_for
from megdet_hvd.bench.step_ours import build_ours, our_step
from megdet_hvd.job.world import World
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value
from tests.gpu.visit.step_sides import Side, alone, build, config_of

STEPS, ROWS = 3, 40
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel")
CANVASES = ((800, 1088), (736, 1344), (800, 1216), (640, 1344), (768, 1152))
"""As COCO's pictures have them."""
SMALL_CANVASES = ((64, 128),)


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Three steps in one trace, then the first and the second step on five new canvases."""
    device = torch.device(setting.device)
    precision = "float32" if setting.small else "bfloat16"
    side = Side("cgbn", precision, "cgbn")
    size = (64, 96) if setting.small else (800, 1344)
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with alone() as world:
        step = build(side, pictures_of(size, 2), world, device).step
        with profiler(activities=activities) as seen:
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            wall_s = time.perf_counter() - began
        own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        told = seen.key_averages().table(sort_by=own, row_limit=ROWS, max_name_column_width=90)
        (setting.folder / "operators.txt").write_text(told, encoding="utf-8")
        yield "a profiled step, ms", 1e3 * wall_s / STEPS
        yield from of_events(list(seen.events() or []), wall_s)
        yield from new_canvases(side, SMALL_CANVASES if setting.small else CANVASES, world, device)


def new_canvases(
    side: Side, canvases: Sequence[tuple[int, int]], world: World, device: torch.device
) -> Iterator[tuple[str, Value]]:
    """One detector, as in a run: the first step of a size, and its second."""
    config = config_of(side, 2)
    detector = build_ours(config, device)
    for canvas in canvases:
        step = our_step(detector, config, world, device, pictures_of(canvas, 2))
        whole = waited_for(step, device)
        for turn in ("first", "second"):
            began = time.perf_counter()
            whole()
            name = f"{turn} step at {canvas[0]}×{canvas[1]}, ms"
            yield name, 1e3 * (time.perf_counter() - began)


def of_events(events: Sequence[Any], wall_s: float) -> Iterator[tuple[str, Value]]:
    """Kernels and copies a step, how long they took, and the share of the time they cover."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    )
    launches = sum(event.name.startswith(LAUNCHES) for event in events)
    waits = sum("Synchronize" in event.name for event in events)
    yield "kernels and copies a step", len(spans) / STEPS
    yield "launches a step", launches / STEPS
    yield "waits of the host a step", waits / STEPS
    yield "kernels a step, ms", sum(end - start for start, end in spans) / 1e3 / STEPS
    yield "GPU busy, share", covered(spans) / 1e6 / wall_s


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals, which come sorted."""
    total, until = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
