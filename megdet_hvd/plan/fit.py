"""The model on published runs: shared constants n₀ and σ, and each stack's own numbers.

What is fitted and what is predicted is :mod:`megdet_hvd.plan.split`'s rule.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.plan.collectives import Fabric
from megdet_hvd.plan.compute import Compute, TimedStep, from_one, from_two
from megdet_hvd.plan.horovod_costs import gradients_s
from megdet_hvd.plan.published import PublishedRun
from megdet_hvd.plan.split import Stack
from megdet_hvd.plan.stragglers import straggler_images
from megdet_hvd.plan.tensors import MASK_HEAD, count_tensors

NVLINK_GB_S = {"V100": 120.0, "A100": 231.0, "H100": 370.0}
"""Bus bandwidth of an all-reduce. V100: six links at NCCL's 20 GB/s (src/graph/topo.h, SM70). A100:
NVIDIA/nccl issue 527, 8 GPUs of a P4d. H100: NVIDIA/nccl-tests issue 212, ring."""
PCI_GB_S = 24.0
"""Twice NCCL's 12 GB/s for PCIe 3 ×16 (src/graph/topo.h), for PCIe 4."""
NETWORK_SHARE = 0.85
"""Of the adapters' bandwidth that an all-reduce gets: 84.8 of 100 GB/s on 24 A100 with 4 × HDR
(NVIDIA/nccl-tests issue 119)."""
UNKNOWN_NICS = (2, 200.0)
"""Adapters of a machine where the source names none: Dell's, the fewest of those that are named."""
HALF_BYTES = 2
"""MLPerf's runs send float16."""
_ROUNDS = 6


@dataclass(frozen=True)
class Shared:
    """Constants of all stacks."""

    overhead_images: float
    """n₀: a step costs so many images more than it has."""
    spread: float
    """σ: of the time of one image, in means."""


@dataclass(frozen=True)
class Variant:
    """Which terms a fit has."""

    communication: bool
    stragglers: bool


FULL = Variant(True, True)
LINE = Variant(False, False)
"""The baseline: a + b·n, or b·(n + n₀)."""


@cache
def mlperf_bytes() -> int:
    """Gradients of Mask R-CNN R50-FPN with frozen BN, its first two stages fixed, in float16."""
    model = ModelConfig(norm="frozen", frozen_stages=2)
    return HALF_BYTES * (count_tensors(model, 80).trained + MASK_HEAD)


def fabric_of(run: PublishedRun) -> Fabric:
    """What connects the GPUs of a published run."""
    number, gbit_s = run.nics or UNKNOWN_NICS
    between = number * gbit_s / 8 * NETWORK_SHARE
    family = run.gpu.split()[0]
    if "SXM" in run.gpu and family in NVLINK_GB_S:
        return Fabric("nvlink", NVLINK_GB_S[family], between)
    return Fabric("pci", PCI_GB_S, between)


def machines_of(run: PublishedRun) -> int:
    """As the source says; else machines of 8."""
    return run.machines or math.ceil(run.ranks / 8)


def communication_s(run: PublishedRun, compute_s: float, size_bytes: float) -> float:
    """Of a published run, whose gradients hide behind its backward pass; NCCL without Horovod."""
    return gradients_s(
        size_bytes,
        run.ranks,
        machines_of(run),
        fabric_of(run),
        compute_s=compute_s,
        waiting_s=0.0,
        held_back=False,
    )


def predicted_s(
    run: PublishedRun, compute: Compute, spread: float, variant: Variant = FULL
) -> float:
    """Seconds of a step of ``run``."""
    compute_s = compute.seconds(run.images)
    total = compute_s
    if variant.communication:
        total += communication_s(run, compute_s, mlperf_bytes())
    if variant.stragglers:
        total += compute.stragglers_s(run.images, run.ranks, spread)
    return total


def known_stack(fit: Sequence[PublishedRun], spread: float, variant: Variant = FULL) -> Compute:
    """A stack's two numbers, exactly, from its two rows."""

    def solve(points: list[TimedStep]) -> Compute:
        return from_two(points[0], points[1], spread if variant.stragglers else 0.0)

    return _less_communication(fit, solve, variant)


def known_point(run: PublishedRun, shared: Shared, variant: Variant = FULL) -> Compute:
    """A stack's one number from one row, and the shared constants."""

    def solve(points: list[TimedStep]) -> Compute:
        spread = shared.spread if variant.stragglers else 0.0
        return from_one(points[0], shared.overhead_images, spread)

    return _less_communication([run], solve, variant)


def _less_communication(
    runs: Sequence[PublishedRun], solve: Callable[[list[TimedStep]], Compute], variant: Variant
) -> Compute:
    """Solve, and again with the communication that the solution leaves showing."""
    shown = [0.0] * len(runs)
    for _ in range(_ROUNDS):
        points = [
            TimedStep(run.images, run.ranks, run.step_s - less)
            for run, less in zip(runs, shown, strict=True)
        ]
        compute = solve(points)
        if not variant.communication:
            return compute
        shown = [communication_s(r, compute.seconds(r.images), mlperf_bytes()) for r in runs]
    return compute


class SharedFit:
    """Fits of n₀ and σ; what a pair of rows says at a point is worked out once for all of them."""

    def __init__(self, variant: Variant = FULL) -> None:
        self.variant = variant
        self._known: dict[tuple[tuple[str, str, str], float, float], float] = {}

    def fit(self, stacks: Sequence[Stack]) -> Shared:
        """From the two known rows of each stack: least squares of relative errors.

        With one number b a stack, chosen best for each pair, so that the pairs speak of n₀ and σ.
        First on a grid, then from its best point in ever smaller steps.
        """
        pairs = [stack for stack in stacks if stack.fit]
        spreads = [k / 25 for k in range(26)] if self.variant.stragglers else [0.0]
        best = min(
            ((k / 5, spread) for k in range(41) for spread in spreads),
            key=lambda point: self._loss(pairs, point),
        )
        step = 0.1
        while step > 1e-4:
            around = [
                (max(best[0] + i * step, 0.0), max(best[1] + j * step / 5, 0.0))
                for i in (-1, 0, 1)
                for j in ((-1, 0, 1) if self.variant.stragglers else (0,))
            ]
            nearer = min(around, key=lambda point: self._loss(pairs, point))
            if self._loss(pairs, nearer) >= self._loss(pairs, best):
                step /= 2
            else:
                best = nearer
        return Shared(round(best[0], 3), round(best[1], 3))

    def _loss(self, stacks: Sequence[Stack], point: tuple[float, float]) -> float:
        return math.fsum(self._of_stack(stack, *point) for stack in stacks)

    def _of_stack(self, stack: Stack, overhead: float, spread: float) -> float:
        key = (stack.key, overhead, spread)
        if key not in self._known:
            self._known[key] = _pair_loss(stack.fit, Shared(overhead, spread), self.variant)
        return self._known[key]


def _pair_loss(pair: Sequence[PublishedRun], shared: Shared, variant: Variant) -> float:
    """Squared relative errors of two rows under the b that makes them least."""
    spread = shared.spread if variant.stragglers else 0.0
    units = [
        run.images + shared.overhead_images + spread * straggler_images(run.images, run.ranks)
        for run in pair
    ]
    shown = [0.0] * len(pair)
    for _ in range(3 if variant.communication else 1):
        rows = list(zip(pair, units, shown, strict=True))
        upper = math.fsum(u * (r.step_s - c) / r.step_s**2 for r, u, c in rows)
        image_s = upper / math.fsum(u * u / r.step_s**2 for r, u, c in rows)
        if variant.communication:
            computes = [image_s * (r.images + shared.overhead_images) for r in pair]
            shown = [
                communication_s(r, c, mlperf_bytes()) for r, c in zip(pair, computes, strict=True)
            ]
    rows = list(zip(pair, units, shown, strict=True))
    return math.fsum(((image_s * u + c) / r.step_s - 1) ** 2 for r, u, c in rows)
