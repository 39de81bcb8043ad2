"""Boxes written in another form than x y w h in pixels, told by what they would mean."""

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.data.annotations import AnnotationFile
from megdet_hvd.data.problems import Problem

FRACTIONS = "boxes look like fractions of the picture (0…1), not pixels"
CORNERS = "boxes look like x1 y1 x2 y2, not x y width height"
_MOST = 0.95
"""Share of the boxes that must agree."""
_FEWEST = 4
"""Boxes from which on their places alone are believed."""
_OUTSIDE = 0.1
"""Share of boxes far outside their pictures that no right file has."""


@np.errstate(over="ignore", invalid="ignore")  # 1e308 is finite, twice that is not
def suspicion(
    file: AnnotationFile, widths: NDArray[np.int32], heights: NDArray[np.int32]
) -> Problem | None:
    """Which other form the boxes of a file seem to have; None: nothing speaks against pixels.

    Args:
        file: n pictures and m boxes.
        widths: (n,) pixels.
        heights: (n,) pixels.
    """
    finite = np.isfinite(file.raw_boxes).all(axis=1)
    if not finite.any():
        return None
    raw = file.raw_boxes[finite]
    rows = np.flatnonzero(finite)
    owners = file.owners[finite]
    sizes = np.stack([widths[owners], heights[owners]], axis=1).astype(np.float64)
    small = (np.abs(raw) <= 1).all(axis=1) & (sizes > 2).all(axis=1)
    if small.mean() >= _MOST:
        return _problem(FRACTIONS, file, rows[small], len(rows))
    start, extent = raw[:, :2], raw[:, 2:]
    as_size, as_corners = extent.prod(axis=1), (extent - start).prod(axis=1)
    ordered = (extent > start).all(axis=1) & (start >= 0).all(axis=1)
    # By area: it is that of x1 y1 x2 y2, and not w·h, wherever the two differ.
    telling = file.with_area[finite] & (start.max(axis=1) > 0)
    telling &= ~_close(as_size, as_corners) & np.isfinite(file.areas[finite])
    areas = file.areas[finite]
    corners = telling & ordered & _close(areas, as_corners) & ~_close(areas, as_size)
    if telling.any() and corners.sum() >= _MOST * telling.sum():
        return _problem(CORNERS, file, rows[corners], len(rows))
    # By place: all ends lie beyond their starts, and many boxes reach far out of their pictures,
    # though as corners they would lie inside.
    inside = (extent <= sizes + 1).all(axis=1)
    far_out = ((start + extent) > sizes * 1.02 + 2).any(axis=1)
    if (
        len(rows) >= _FEWEST
        and (ordered & inside).mean() >= _MOST
        and (far_out & ordered & inside).mean() >= _OUTSIDE
    ):
        return _problem(CORNERS, file, rows[far_out & ordered & inside], len(rows))
    return None


def _close(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isclose(a, b, rtol=1e-3, atol=0.51)


def _problem(kind: str, file: AnnotationFile, rows: NDArray[np.int64], count: int) -> Problem:
    first = int(rows[0])
    shown = [float(value) for value in file.raw_boxes[first]]
    return Problem(
        kind, str(file.path), f"{len(rows)} of {count}", f"{file.place(first)} has bbox {shown}"
    )
