"""How anchors and boxes were and are drawn: a run keeps the way that it began with."""

from collections.abc import Mapping
from typing import NamedTuple

from megdet_hvd.errors import UserError
from megdet_hvd.model.hashed_draw import sample_by_hash
from megdet_hvd.model.permuted_draw import sample_by_permutation
from megdet_hvd.model.sampling import Sampler

FIRST_DRAW = 1
"""Of runs whose checkpoints do not say."""
NEWEST_DRAW = 2
"""Of new runs."""


class Draw(NamedTuple):
    """A way to draw."""

    sampler: Sampler
    truth_first: bool
    """Whether ground-truth boxes stand before the proposals among the second stage's candidates:
    then nobody's place depends on how many proposals there are, which a GPU keeps to itself."""


DRAWS: Mapping[int, Draw] = {
    FIRST_DRAW: Draw(sample_by_permutation, truth_first=False),
    NEWEST_DRAW: Draw(sample_by_hash, truth_first=True),
}
"""By version."""


def draw_of(version: int) -> Draw:
    """How ``version`` draws.

    Raises:
        UserError: there is no such version here.
    """
    if version not in DRAWS:
        raise UserError(
            f"this run draws its anchors and boxes by version {version}, and this megdet_hvd has "
            f"versions {' and '.join(map(str, DRAWS))}: go on with the megdet_hvd that wrote the "
            "checkpoint, or start a new run from these weights with model.init_from=CHECKPOINT"
        )
    return DRAWS[version]
