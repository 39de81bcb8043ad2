"""A look, before training, whether pictures have the sizes that their annotations say.

Each picture's size is compared when it is decoded, which may be hours later. Sets in which width
and height are swapped, or those of other copies of the pictures, show it in the first few.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.picture_size import picture_sizes

LOOKS = 16
"""Pictures looked at, spread over the set; only the heads of their files are read."""
_THREADS = 8


def other_sizes(index: ImageIndex) -> str | None:
    """What to say of a set of which pictures have other sizes than annotated; None: none was seen.

    Raises:
        StorageError: a picture can't be read at the moment.
    """
    ends = np.linspace(0, len(index) - 1, min(LOOKS, len(index)))
    positions = [int(position) for position in ends]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda k: picture_sizes(index.file(k)), positions))
    others = [
        (position, sizes[0])
        for position, sizes in zip(positions, found, strict=True)
        if sizes is not None and _annotated(index, position) not in sizes
    ]
    if not others:
        return None
    position, (width, height) = others[0]
    annotated = _annotated(index, position)
    swapped = sum(_annotated(index, k) == size[::-1] for k, size in others) == len(others)
    guess = " (width and height are swapped)" if swapped else ""
    return (
        f"{len(others)} of {len(positions)} pictures looked at have another size than annotated"
        f"{guess}, the first: {index.file(position)}, image {index.original_id(position)!r}: it is "
        f"{width}×{height} pixels, but annotated as {annotated[0]}×{annotated[1]}"
    )


def _annotated(index: ImageIndex, position: int) -> tuple[int, int]:
    return int(index.widths[position]), int(index.heights[position])
