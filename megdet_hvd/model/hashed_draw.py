"""Draw version 2: each candidate has a hash of (seed, index), and the highest hashes are drawn.

That is a uniform draw without replacement where hashes are uniform and independent; it needs no
generator, looks at each candidate by itself, and comes out the same on any device, since it is all
in integers. The hash is the generator SplitMix64 (Steele, Lea, Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014): its output number ``index`` from the state ``seed``,
by Stafford's mixing function number 13.

A key of 64 bits is, from the top: a zero; one bit for positives that are drawn, which therefore
come first; 36 bits of the hash; 26 bits of the index. So no two keys are equal, and ``topk`` has
no ties that devices could break in their own ways.
"""

import torch
from torch import Tensor

from megdet_hvd.model.sampling import Sample

INDEX_BITS = 26
"""67 million candidates: a pyramid of 800×1344 has 0.27 million."""
HASH_BITS = 36
_DRAWN_POSITIVE = 1 << (INDEX_BITS + HASH_BITS)
_NONE = -1
"""Key of what can't be drawn."""


def _signed(bits: int) -> int:
    """64 bits as torch's int64 has them."""
    return bits - (1 << 64) if bits >> 63 else bits


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def sample_by_hash(
    labels: Tensor, number: int, positive_fraction: float, seed: int, *, exact: bool = False
) -> Sample:
    """As :class:`megdet_hvd.model.sampling.Sampler`."""
    keys = hash_keys(len(labels), seed, labels)
    places = min(number, len(labels))
    most = min(int(number * positive_fraction), len(labels))
    positive = labels > 0
    ranked = torch.where(labels == 0, keys, _NONE)
    if most:
        own = torch.where(positive, keys, _NONE)
        last = own.topk(most).values[-1]  # _NONE where there are fewer: all of them are drawn
        ranked = torch.where(positive & (own >= last), own + _DRAWN_POSITIVE, ranked)
    best = ranked.topk(places)
    taken = best.values != _NONE
    first = best.values[:most] >= _DRAWN_POSITIVE
    if not exact:
        return Sample(best.indices, most, taken, first)
    return Sample(best.indices[taken], int(first.sum()))


def hash_keys(count: int, seed: int, like: Tensor) -> Tensor:
    """(count,) int64 on the device of ``like``, none negative, all different.

    ``seed`` is one of 64 bits; the hash of the candidate ``index`` is in the bits above
    INDEX_BITS, HASH_BITS of them.
    """
    assert count <= 1 << INDEX_BITS, f"{count} candidates need more than {INDEX_BITS} bits"
    index = torch.arange(count, dtype=torch.int64, device=like.device)
    state = index.mul(_GAMMA).add_(_signed((seed + _GAMMA) % (1 << 64)))
    hashed = _mix(_mix(state, 30).mul_(_FIRST), 27).mul_(_SECOND)
    hashed = _mix(hashed, 31)
    kept = hashed.bitwise_right_shift_(64 - HASH_BITS - INDEX_BITS)
    top = ((1 << HASH_BITS) - 1) << INDEX_BITS
    return kept.bitwise_and_(top).bitwise_or_(index)


def _mix(state: Tensor, shift: int) -> Tensor:
    """``state`` xor itself shifted right, zeros coming in (torch's shift brings the sign)."""
    shifted = (state >> shift).bitwise_and_((1 << (64 - shift)) - 1)
    return state.bitwise_xor_(shifted)
