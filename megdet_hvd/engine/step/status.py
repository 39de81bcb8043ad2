"""One small message per step: how all ranks fare.

It carries the loss parts (for the log), how positives and negatives are balanced over the images,
their number, and whether a rank cannot go on or wants the job to stop.
It is sent after the backward pass, behind the last BN message, and read before weights change. So a
rank that met an unreadable picture or a non-finite loss takes all of them out of the loop at the
same step, with weights untouched and none left waiting.

Sent earlier, it could stand in the way of BN messages on a GPU: each waits for the same on all
ranks, and a rank that loads a kernel meanwhile waits for all that its GPU has begun.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from megdet_hvd.comm import groups
from megdet_hvd.comm.peer.sums import PeerSums
from megdet_hvd.comm.position import waiting
from megdet_hvd.data.batch import fetched
from megdet_hvd.errors import RunError, StorageError
from megdet_hvd.job import stopping
from megdet_hvd.job.agree import mark_agreed
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.world import World
from megdet_hvd.model.balance import SampleBalance, foreground_shares
from megdet_hvd.model.detector import LOSSES

STAGES = ("rpn", "box")
"""Whose samples of positives and negatives are watched, as in SampleBalance."""


DEVICE = "megdet.device"
"""Name of the wait for a GPU's work of the step, its own and what it waits for of others."""


@dataclass(frozen=True)
class StepStatus:
    """A step as all ranks together saw it."""

    losses: dict[str, float]
    """Mean over the images of the global batch, per part."""
    images: int
    """Images that took part."""
    skipped: int
    """Unreadable pictures left out."""
    balance: dict[str, float]
    """``rpn_foreground`` and ``box_foreground``: share of positives among the samples of an image,
    mean over the images of the global batch; with ``_spread``: its standard deviation over them."""
    stop: bool = False
    """A rank wants the job to stop: all end after this step."""
    gradient_norm: float | None = None
    """Of the averaged gradient, before it is clipped; None: nobody asked."""

    @property
    def loss(self) -> float:
        """Eq. (1) without the regulariser."""
        return sum(self.losses.values())


class StatusMessage:
    """Collects a step's facts on this rank, and sums them over all."""

    def __init__(self, world: World, device: torch.device, parts: Sequence[str] = LOSSES) -> None:
        """``parts``: names of the losses, the same on all ranks."""
        self.world = world
        self.parts = tuple(parts)
        self.sums = torch.zeros(len(self.parts), dtype=torch.float64, device=device)
        self.shares: dict[str, float | Tensor] = dict.fromkeys(STAGES, 0.0)
        self.squared_shares: dict[str, float | Tensor] = dict.fromkeys(STAGES, 0.0)
        self.balanced = False
        """Whether samples are counted; the same on all ranks."""
        self.images = 0
        self.skipped = 0
        self.problem: str | None = None
        """Why this rank can't go on."""
        self.storage: str | None = None
        """Why its storage does not let it go on at the moment."""
        self._flat: Tensor | None = None
        self._handle: Any = None

    def add(
        self, losses: dict[str, Tensor], balance: SampleBalance | None, images: int, skipped: int
    ) -> None:
        """One backward pass of this rank: per-image losses (B,) for each part, and samples."""
        parts = [losses[part].detach().double().sum() for part in self.parts]
        self.sums += torch.stack(parts)
        self.balanced = balance is not None
        for stage in STAGES if balance is not None else ():
            shares = foreground_shares(getattr(balance, stage))
            self.shares[stage] += sum(shares)
            self.squared_shares[stage] += sum(share * share for share in shares)
        self.images += images
        self.skipped += skipped

    def send(self) -> None:
        """Start the sum."""
        shares = [*self.shares.values(), *self.squared_shares.values()]
        known = [0.0 if isinstance(share, Tensor) else share for share in shares]
        facts = [
            self.images,
            self.skipped,
            self.problem is not None or self.storage is not None,
            stopping.wanted() is not None,
        ]
        host = torch.tensor([*facts, *known], dtype=torch.float64)
        counted = fetched(host, self.sums.device)
        for place, share in enumerate(shares, len(facts)):
            if isinstance(share, Tensor):
                counted[place] = share
        bad = (~torch.isfinite(self.sums)).any()
        peer = _peer_sums()
        if peer is not None:
            bad |= peer.is_lost()
        bad = bad.double().view(1)
        self._flat = torch.cat([counted, bad, self.sums])
        if self.world.size > 1:
            import horovod.torch as hvd

            self._handle = hvd.allreduce_async(self._flat, name="megdet.status", op=hvd.Sum)

    def read(self, iteration: int, images: str, norm: Tensor | None = None) -> StepStatus:
        """Wait for the sum, and for ``norm`` (), that of the averaged gradient, at the same time.

        Args:
            iteration: number of the step, for messages.
            images: names this rank's pictures, should its loss be non-finite.
            norm: () of any type, on the device of the losses; equal on all ranks.

        Raises:
            RunError: on every rank, when any cannot go on, or its GPU has lost a BN sum; names
                iteration, ranks and reasons.
            StorageError: so, where storage is all that keeps them from it.
        """
        assert self._flat is not None, "send() comes first"
        summed = self._flat
        if self._handle is not None:
            import horovod.torch as hvd

            with waiting("megdet.status", range(self.world.size), self._flat.numel()):
                summed = hvd.synchronize(self._handle)
        asked = [] if norm is None else [norm.detach().double().view(1)]
        total = self._values(torch.cat([summed, *asked]))
        found_norm = None if norm is None else total.pop()
        count, skipped, failed, stops, *rest = total
        shares, squares = rest[: len(STAGES)], rest[len(STAGES) : 2 * len(STAGES)]
        bad, *sums = rest[2 * len(STAGES) :]
        if failed or bad:
            raise mark_agreed(self._reasons(iteration, images))
        mean = {part: value / max(count, 1.0) for part, value in zip(self.parts, sums, strict=True)}
        balance: dict[str, float] = {}
        counted = STAGES if self.balanced else ()
        for stage, share, square in zip(counted, shares, squares, strict=False):
            balance |= _mean_and_spread(f"{stage}_foreground", share, square, count)
        return StepStatus(mean, int(count), int(skipped), balance, stops > 0, found_norm)

    def _values(self, vector: Tensor) -> list[float]:
        """``vector`` on the host.

        With sums that the host does not wait for, a GPU comes to them all before it: here a hang
        of one shows.
        """
        values: list[float]
        if vector.is_cpu:
            values = vector.tolist()
        else:
            with waiting(DEVICE, range(self.world.size)):
                values = vector.tolist()
        return values

    def _reasons(self, iteration: int, images: str) -> RunError | StorageError:
        peer = _peer_sums()
        own = self.problem or (None if peer is None else peer.lost())
        parts = dict(zip(self.parts, self.sums.tolist(), strict=True))
        if own is None and not torch.isfinite(self.sums).all():
            shown = ", ".join(f"{part} {value:g}" for part, value in parts.items())
            own = f"the loss is not finite ({shown}, summed over its images) on {images}"
        found = gather_objects((own, self.storage), self.world, "reasons")
        lasting = [f"rank {rank}: {text}" for rank, (text, _) in enumerate(found) if text]
        passing = [f"rank {rank}: {text}" for rank, (_, text) in enumerate(found) if text]
        told = f"iteration {iteration}: {'; '.join(lasting + passing)}"
        # What would come again is not to be tried again.
        return RunError(told) if lasting else StorageError(told)


def _peer_sums() -> PeerSums | None:
    """BN sums that the host does not wait for: whether one was lost shows here."""
    group = groups.bn_group_of_session()
    return None if group is None else group.peer


def _mean_and_spread(name: str, total: float, squares: float, count: float) -> dict[str, float]:
    """Of ``count`` shares between 0 and 1, from float64 sums; good to 1e-8."""
    mean = total / max(count, 1.0)
    variance = max(squares / max(count, 1.0) - mean * mean, 0.0)
    return {name: mean, f"{name}_spread": math.sqrt(variance)}
