"""Detections of all ranks brought together over Horovod; no shared folder is needed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from megdet_hvd.data.batch import Detections
from megdet_hvd.job.exchange import LARGEST_MESSAGE, any_rank, gather_on_main
from megdet_hvd.job.world import World
from megdet_hvd.serialize import serializable

_PICTURE_BYTES = 8 + 8
_BOX_BYTES = 16 + 4 + 8


@serializable
@dataclass(frozen=True)
class Packed:
    """Detections of one rank's pictures in five arrays."""

    positions: NDArray[np.int64]
    counts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def pack(found: Mapping[int, Detections]) -> Packed:
    """Detections (tensors on the CPU) by position in the index."""
    items = list(found.values())
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return Packed(
        positions=np.asarray(list(found), np.int64),
        counts=np.asarray([len(item.scores) for item in items], np.int64),
        boxes=torch.cat([empty.boxes, *(item.boxes.float() for item in items)]).numpy(),
        scores=torch.cat([empty.scores, *(item.scores.float() for item in items)]).numpy(),
        labels=torch.cat([empty.labels, *(item.labels for item in items)]).numpy(),
    )


def unpack(packed: Packed) -> dict[int, Detections]:
    """The inverse of :func:`pack`."""
    counts = packed.counts.tolist()
    parts = zip(
        packed.positions.tolist(),
        torch.split(torch.from_numpy(packed.boxes), counts),
        torch.split(torch.from_numpy(packed.scores), counts),
        torch.split(torch.from_numpy(packed.labels), counts),
        strict=True,
    )
    return {
        position: Detections(boxes, scores, labels) for position, boxes, scores, labels in parts
    }


def gather_detections(
    found: Mapping[int, Detections], world: World, most_bytes: int = LARGEST_MESSAGE
) -> dict[int, Detections]:
    """Detections of all ranks by position in the index, ascending, on rank 0; none elsewhere.

    All ranks call it together. A picture that two ranks report is a fault of the share-out.
    ``most_bytes`` are taken in at once, by rank 0 from all together, and a picture of each more.
    """
    gathered: dict[int, Detections] = {}
    shares = list(_shares(found, most_bytes // world.size))
    more = True
    while more:
        share = shares.pop(0) if shares else {}
        for packed in gather_on_main(pack(share), world, "evaluation.detections") or ():
            part = unpack(packed)
            twice = gathered.keys() & part.keys()
            assert not twice, f"pictures {sorted(twice)[:5]} were evaluated twice"
            gathered.update(part)
        more = any_rank(bool(shares), world, "evaluation.detections")
    return dict(sorted(gathered.items()))


def _shares(found: Mapping[int, Detections], most_bytes: int) -> Iterator[dict[int, Detections]]:
    """Parts that have so many bytes each, packed, and the last picture of each more."""
    share: dict[int, Detections] = {}
    size = 0
    for position, one in found.items():
        share[position] = one
        size += _PICTURE_BYTES + _BOX_BYTES * len(one.scores)
        if size >= most_bytes:
            yield share
            share, size = {}, 0
    if share:
        yield share
