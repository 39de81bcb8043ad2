"""Which picture is processed when, and where: one stream of passes, by arithmetic alone.

The stream is pass 0, pass 1, … of the whole data set laid end to end. Step s takes the stream's
positions s·B … (s+1)·B - 1, B being the global batch; a batch may straddle two passes, and
nothing is dropped. Every rank can therefore compute any step, so all take equally many steps
and a resumed run needs to remember nothing but the iteration.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.draws import draw_key

Indices = NDArray[np.int64]


def order(
    epoch: int, n: int, seed: int, aspects: NDArray[np.float64] | None, chunk: int
) -> Indices:
    """The order of pass ``epoch``: a permutation of 0 … n-1, from (seed, epoch).

    With aspect grouping (``chunk`` > 1), the stream is cut at every multiple of ``chunk`` and
    each piece holds pictures of one orientation (aspect < 1, or ≥ 1), so that a batch isn't
    padded from tall and wide together. Pictures that do not fill a piece are put together in
    the remaining places; every picture still comes exactly once. The pieces lie the same
    however many processes there are.

    Args:
        epoch: the pass, from 0.
        n: pictures in the data set.
        seed: the run's seed.
        aspects: (n,) width over height; None: no grouping.
        chunk: pictures per piece; 0 or 1: no grouping.
    """
    shuffled = _shuffle(n, draw_key(seed, epoch, 0, 0, "order"))
    if aspects is None or chunk < 2:
        return shuffled
    # Pieces lie on multiples of chunk in the stream, not in this pass: the pass begins with
    # what is left of the piece in which the last one ended.
    head = min(-epoch * n % chunk, n)
    pieces = (n - head) // chunk
    wide = aspects[shuffled] >= 1.0
    groups = [shuffled[wide], shuffled[~wide]]
    filled = [len(group) // chunk * chunk for group in groups]
    uniform = np.concatenate(
        [g[:k].reshape(-1, chunk) for g, k in zip(groups, filled, strict=True)]
    )
    uniform = uniform[_shuffle(len(uniform), draw_key(seed, epoch, 0, 0, "pieces"))]
    # There may be one piece too many for the places, or places that only a mixed piece can fill.
    spare = uniform[pieces:].ravel()
    left = np.concatenate([*(g[k:] for g, k in zip(groups, filled, strict=True)), spare])
    uniform = uniform[:pieces]
    mixed = head + (pieces - len(uniform)) * chunk
    body = np.concatenate([uniform, left[head:mixed].reshape(-1, chunk)])
    body = body[_shuffle(len(body), draw_key(seed, epoch, 0, 0, "places"))]
    return np.concatenate([left[:head], body.ravel(), left[mixed:]])


def block(
    step: int, accumulated: int, rank: int, *, global_batch: int, accumulation: int, world_size: int
) -> range:
    """Stream positions of one rank in one accumulated pass of one step.

    The batch is cut into accumulation·world_size blocks, pass by pass, rank by rank; where it
    does not divide, blocks differ by at most one and may be empty.
    """
    place, places = accumulated * world_size + rank, accumulation * world_size
    start = step * global_batch
    return range(
        start + place * global_batch // places, start + (place + 1) * global_batch // places
    )


@dataclass(frozen=True, eq=False)
class Stream:
    """The stream of passes over one data set."""

    n: int
    """Pictures in the data set, at least 1."""
    seed: int
    """The run's seed."""
    aspects: NDArray[np.float64] | None = None
    """(n,) width over height, for aspect grouping."""
    chunk: int = 0
    """Pictures per piece of aspect grouping; 0 or 1: off."""

    def at(self, position: int) -> tuple[int, int]:
        """Picture and pass at a position of the stream."""
        epoch, place = divmod(position, self.n)
        return int(_cached_order(self, epoch)[place]), epoch


@lru_cache(maxsize=4)
def _cached_order(stream: Stream, epoch: int) -> Indices:
    return order(epoch, stream.n, stream.seed, stream.aspects, stream.chunk)


def _shuffle(n: int, key: int) -> Indices:
    """A permutation from raw generator bits, whose stream NumPy promises never to change."""
    raw = np.random.PCG64(key).random_raw(n) if n else np.zeros(0, np.uint64)
    return np.argsort(raw, kind="stable").astype(np.int64)
