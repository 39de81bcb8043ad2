"""A process's own images in groups of K: BN sizes smaller than a process holds.

The paper's ablation of the BN size (2, 4, 8, …) can so be made on any machine.
"""

from torch import Tensor

from megdet_hvd.image_rows import current_rows


def parts_of(x: Tensor, images: int | None) -> tuple[Tensor, ...]:
    """``x`` (N, C, …) split along dimension 0 into groups of ``images``; None: ``x`` itself.

    The last group is smaller where the images do not divide. Where rows are boxes, a group holds
    the boxes of its images, none at all perhaps.
    """
    if images is None or len(x) == 0:
        return (x,)
    rows = current_rows()
    if rows is None or sum(rows) != len(x):
        return tuple(x.split(images))
    counts = [sum(rows[i : i + images]) for i in range(0, len(rows), images)]
    return tuple(x.split(counts))
