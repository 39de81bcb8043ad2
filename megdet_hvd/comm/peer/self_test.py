"""A few sums whose results are known, before any that count. Ends in any case."""

import time

import torch
from torch import Tensor

from megdet_hvd.comm.peer.layout import LONGEST
from megdet_hvd.comm.peer.memory import GpuAccess
from megdet_hvd.comm.peer.sums import PeerSums

TEST_PATIENCE_S = 20.0
"""For the others to come to a sum; kernels end by themselves then."""
_LENGTHS = (1, LONGEST, 7, LONGEST + 9, 129)
"""Both halves, all slots, and a vector in pieces."""
_POLL_S = 0.001


def known_vector(place: int, number: int, length: int) -> Tensor:
    """(length,) float64 of the rank at ``place``, of sizes that differ widely.

    So the order of adding up shows in the bits.
    """
    index = torch.arange(length, dtype=torch.float64)
    return (1 + index.mul(0.61803398875 * (1 + place)).frac()) * 2.0 ** (
        ((index + 7 * place + 3 * number) % 41) - 20
    )


def self_test(sums: PeerSums, access: GpuAccess, own: int) -> str | None:
    """What is wrong; None: all sums came, right to the bit. All ranks call it together.

    Their patience must be TEST_PATIENCE_S. Afterwards nothing is under way.
    """
    driver, stream = access.driver, access.stream()
    found = []
    for number, length in enumerate(_LENGTHS):
        vector = known_vector(own, number, length).to(access.device)
        sums.add_up(vector, f"self-test.{number}", stream)
        found.append(vector)
    end = time.monotonic() + 2 * TEST_PATIENCE_S
    while not driver.is_idle(stream):
        if time.monotonic() > end:
            sums.give_up()
            return f"the test sums have not ended in {2 * TEST_PATIENCE_S:.0f} s"
        time.sleep(_POLL_S)
    lost = sums.lost()
    if lost is not None:
        return lost
    for number, vector in enumerate(found):
        right = known_vector(0, number, len(vector))
        for place in range(1, len(sums.ranks)):
            right += known_vector(place, number, len(vector))
        wrong = int((vector.cpu() != right).sum())
        if wrong:
            return f"{wrong} of {len(vector)} values of test sum {number} are wrong"
    return None
