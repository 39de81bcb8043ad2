"""What must be the same on all ranks, and would spoil a run in silence where it is not.

A data set or a detector of the user's own is made on every rank anew: from a folder's listing, a
set of names, a file that each machine has for itself. What differs there hangs nothing and raises
nothing: each rank goes through other pictures, sums another loss under the same name.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from megdet_hvd.data.index import ImageIndex
from megdet_hvd.engine.fingerprints import boxes_digest, order_of_pictures
from megdet_hvd.errors import UserError
from megdet_hvd.job.agree import mark_agreed
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.world import World
from megdet_hvd.wording import ranks_in_words

_IN_ORDER = (
    "give it in an order of its own (sorted(…): folders are listed, and sets gone through, in "
    "another one by each process), from files that are the same on every machine"
)


def require_alike(facts: Mapping[str, str], world: World, name: str) -> None:
    """All ranks have the same under each name. All of them call it together.

    Args:
        facts: what it is in words, and what it is of this rank; the same words on all ranks.
        world: all processes.
        name: of the exchange.

    Raises:
        UserError: on all ranks: something differs.
    """
    found = gather_objects(dict(facts), world, f"alike.{name}")
    for what, first in found[0].items():
        others = [rank for rank, one in enumerate(found) if one[what] != first]
        if others:
            raise mark_agreed(
                UserError(
                    f"{what}: on {ranks_in_words(others)} of {world.size} they are other ones than "
                    f"on rank 0, or stand in another order; {_IN_ORDER}"
                )
            )


def pictures_fact(index: ImageIndex) -> str:
    """Of a set of pictures: names, ids, sizes, boxes and classes, in order; not their folders."""
    sizes = hashlib.sha256(index.widths.tobytes() + index.heights.tobytes()).hexdigest()
    names = [os.path.basename(name) for name in index.file_names]
    ids = [index.original_ids, index.categories, index.category_ids]
    return _digest(order_of_pictures(index), boxes_digest(index), sizes, names, ids)


def detector_fact(detector: nn.Module) -> str:
    """Of a detector: names and shapes of its weights, in order, and which of them are trained."""
    return _digest(
        [[name, list(one.shape), one.requires_grad] for name, one in detector.named_parameters()],
        [[name, list(one.shape)] for name, one in detector.named_buffers()],
    )


def optimizer_fact(groups: Sequence[Mapping[str, Any]], detector: nn.Module) -> str:
    """Of an optimizer: the names of the weights in each group, in order."""
    names = {id(one): name for name, one in detector.named_parameters()}
    return _digest([[names[id(one)] for one in group["params"]] for group in groups])


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
