"""CGBN's arithmetic on CUDA with kernels of our own: 3 launches a layer forward and 3 backward.

What goes over all values but does not add them up stays with torch's fused kernels, as in
:mod:`megdet_hvd.bn.cuda_kernels`, which computes the same without kernels of ours, in 14 and 5. The
differences, in the last bits: sums over values are float64's here, and the unbiased variance enters
the running statistics from float64. No messages here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from megdet_hvd.bn import cuda_kernels
from megdet_hvd.bn.cuda_kernels import BackwardSums, kept_type
from megdet_hvd.bn.fused_source import BLOCK, kernel_names, source, widths
from megdet_hvd.bn.later_updates import RunningStatistics
from megdet_hvd.cuda.launch import FLOAT64, INT32, INT64, POINTER, load_kernel

_SUMS = (POINTER, INT32, INT64, INT64, INT32, POINTER, POINTER, INT32, POINTER)
_ARGUMENTS: Mapping[str, tuple[type[Any], ...]] = {
    "moments": _SUMS,
    "backward": (*_SUMS, POINTER, POINTER, POINTER, POINTER, POINTER),
    "statistics": (*[POINTER, INT32, FLOAT64], *[POINTER] * 5, FLOAT64),
}
"""Of the kernels, by the first word of their names."""
BLOCKS_A_PROCESSOR = 4
"""That a pass over values is cut into, for each multiprocessor of the GPU."""
MOST_PIECES = 256
MOST_CHANNELS = 4096
"""For which there are tickets from the beginning; more are made where they are needed."""
LOADS_A_THREAD = 4
"""A piece is not cut so small that a thread has fewer."""


class KernelLaunch(Protocol):
    """Starts a kernel and returns at once; :class:`megdet_hvd.cuda.launch.CudaKernel` is one."""

    def __call__(
        self, grid: int, block: int, *values: Tensor | int | float | None, stream: int | None
    ) -> None:
        """Start ``grid`` blocks of ``block`` threads."""


class Moving(NamedTuple):
    """Running statistics that a layer's statistics move."""

    running: RunningStatistics
    factor: float
    """They become (1 − factor)·running + factor·found."""


class GroupStatistics(NamedTuple):
    """What normalises, and what it was made from."""

    n: Tensor
    """() float64."""
    mean: Tensor
    """(C,) float64."""
    variance: Tensor
    """(C,) float64, biased."""
    rounded: Tensor
    """(C,) the mean, of the kept type."""
    inverse: Tensor
    """(C,) 1/√(σ² + ε), of the kept type."""


class _Layout(NamedTuple):
    """How the values of an input lie."""

    name: str
    """``planes`` or ``rows``."""
    images: int
    channels: int
    spatial: int
    width: int
    """Values of a load."""


class Cut(NamedTuple):
    """A pass over values, cut into blocks."""

    grid: int
    pieces: int
    """Of each channel's values."""
    lanes: int
    """Threads side by side on neighbouring channels."""
    tickets: int
    """Blocks of one piece."""


class FusedKernels:
    """Loaded for one GPU and some types of input."""

    def __init__(
        self,
        device: torch.device,
        kernels: Mapping[tuple[torch.dtype, str], KernelLaunch],
        processors: int,
        stream: Callable[[], int],
        block: int = BLOCK,
        captured: Callable[[], bool] = lambda: False,
    ) -> None:
        """``kernels`` by type of the input and name, for a GPU of so many ``processors``.

        ``stream`` tells the one that torch works on, ``captured`` whether a CUDA graph is being
        made there; ``block`` is that of the kernels' source.
        """
        self.device = device
        self.dtypes = frozenset(dtype for dtype, _ in kernels)
        self._kernels = kernels
        self._processors = processors
        self._stream = stream
        self._block = block
        self._captured = captured
        self._tickets: dict[int, Tensor] = {}

    def serve(self, x: Tensor) -> bool:
        """Whether these kernels are for inputs like ``x``."""
        return x.device == self.device and x.dtype in self.dtypes

    def local_moments(self, x: Tensor) -> Tensor:
        """[n, n·m, M2 + n·m²] as :func:`megdet_hvd.bn.statistics.local_moments`; 1 launch."""
        if not x.numel():
            return x.new_zeros(1 + 2 * x.shape[1], dtype=torch.float64)
        x = dense(x)
        vector = x.new_empty(1 + 2 * x.shape[1], dtype=torch.float64)
        self._add_up("moments", x, None, vector)
        return vector

    def statistics(
        self, total: Tensor, x: Tensor, eps: float, moving: Moving | None = None
    ) -> GroupStatistics:
        """From the group's vectors, added up; ``moving`` is moved too. 1 launch.

        With n = 0 mean and variance are 0; with n = 0 or 1 nothing is moved.
        """
        channels = len(total) // 2
        moments = total.new_empty((2, channels))
        ready = total.new_empty((2, channels), dtype=kept_type(x))
        kept: tuple[Tensor | None, ...] = (None, None, None)
        if moving is not None:
            kept = moving.running
        factor = 0.0 if moving is None else moving.factor
        kernel = self._kernels[x.dtype, "statistics"]
        grid, stream = -(-channels // self._block), self._stream()
        outputs = (moments, ready, *kept)
        kernel(grid, self._block, total, channels, eps, *outputs, factor, stream=stream)
        return GroupStatistics(total[0], *moments.unbind(), *ready.unbind())

    def backward_sums(
        self, grad_y: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor | None
    ) -> BackwardSums:
        """As :func:`megdet_hvd.bn.cuda_kernels.backward_sums`; 1 launch.

        ``mean`` and ``inverse`` are of the kept type.
        """
        if not x.numel():
            return cuda_kernels.backward_sums(
                grad_y, x, cuda_kernels.CudaNormaliser(mean, inverse), weight
            )
        x = dense(x)
        grad_y = _lying_as(x, grad_y)
        vector = x.new_empty(2 * x.shape[1], dtype=torch.float64)
        if weight is None:
            self._add_up("backward", x, grad_y, vector, mean, inverse, None, None)
            return BackwardSums(vector, None, None)
        made = mean.new_empty((2, len(mean)))
        grad_weight, grad_bias = made.unbind()
        self._add_up("backward", x, grad_y, vector, mean, inverse, grad_weight, grad_bias)
        return BackwardSums(vector, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype))

    def _add_up(
        self, what: str, x: Tensor, g: Tensor | None, vector: Tensor, *more: Tensor | None
    ) -> None:
        layout = layout_of(x if g is None else (x, g))
        cut = cut_of(layout, self._processors, self._block)
        partial = None
        if cut.pieces > 1:
            partial = vector.new_empty(cut.pieces * layout.channels * 2)
        kernel = self._kernels[x.dtype, f"{what}_{layout.name}_{layout.width}"]
        stream = self._stream()
        tickets = self._tickets_of(stream, cut.tickets, x)
        sizes = (layout.channels, layout.spatial, layout.images, cut.pieces)
        others = () if g is None else (g, *more)
        values = (x, *sizes, partial, tickets, cut.lanes, vector, *others)
        kernel(cut.grid, self._block, *values, stream=stream)

    def _tickets_of(self, stream: int, number: int, x: Tensor) -> Tensor:
        """Noughts, which every launch leaves as noughts; launches of one stream don't meet."""
        if self._captured():
            # The graph's memory, and set to nought when the graph runs, not now: for it alone.
            return x.new_zeros(number, dtype=torch.int32)
        found = self._tickets.get(stream)
        if found is None or len(found) < number:
            found = x.new_zeros(max(number, MOST_CHANNELS), dtype=torch.int32)
            self._tickets[stream] = found
        return found


def load(device: torch.device, dtypes: Sequence[torch.dtype]) -> FusedKernels:
    """The kernels for inputs of ``dtypes`` on a GPU, compiled: 2 s a type.

    Raises:
        CudaError, NoCudaLibrary: they can't be compiled or loaded.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    kernels: dict[tuple[torch.dtype, str], KernelLaunch] = {}
    for dtype in dtypes:
        for name in kernel_names(dtype):
            kernels[dtype, name] = load_kernel(source(dtype), name, arguments_of(name), index)
    found = torch.cuda.get_device_properties(index)
    where = torch.device("cuda", index)
    return FusedKernels(
        where,
        kernels,
        found.multi_processor_count,
        lambda: torch.cuda.current_stream(where).cuda_stream,
        captured=torch.cuda.is_current_stream_capturing,
    )


def arguments_of(name: str) -> tuple[type[Any], ...]:
    """The types of a kernel's arguments."""
    return _ARGUMENTS[name.partition("_")[0]]


def dense(x: Tensor) -> Tensor:
    """``x`` without gaps, channels last if it lies so."""
    if x.is_contiguous() or _is_rows(x):
        return x
    return x.contiguous()


def _is_rows(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _lying_as(x: Tensor, other: Tensor) -> Tensor:
    """``other`` with the strides of ``x``."""
    if other.stride() == x.stride():
        return other
    if _is_rows(x) and not x.is_contiguous():
        return other.contiguous(memory_format=torch.channels_last)
    return other.contiguous()


def layout_of(tensors: Tensor | tuple[Tensor, Tensor]) -> _Layout:
    """How values lie that are without gaps, in both of two tensors alike; and the widest load."""
    both = (tensors,) if isinstance(tensors, Tensor) else tensors
    x = both[0]
    images, channels = x.shape[:2]
    spatial = x.numel() // (images * channels)
    rows = spatial == 1 or not x.is_contiguous()
    run = channels if rows else spatial
    addresses = [one.data_ptr() for one in both]
    width = next(
        width
        for width in widths(x.dtype)
        if run % width == 0 and all(a % (width * x.dtype.itemsize) == 0 for a in addresses)
    )
    return _Layout("rows" if rows else "planes", images, channels, spatial, width)


def cut_of(layout: _Layout, processors: int, block: int = BLOCK) -> Cut:
    """Blocks enough for ``processors``, and none with next to nothing to do."""
    loads = layout.images * layout.spatial
    lanes = 1
    if layout.name == "rows":
        packs = layout.channels // layout.width
        while lanes < min(packs, 32, block // layout.width):
            lanes *= 2
        side_by_side = -(-packs // lanes)
    else:
        loads //= layout.width
        side_by_side = layout.channels
    wanted = -(-BLOCKS_A_PROCESSOR * processors // side_by_side)
    most = loads * lanes // (block * LOADS_A_THREAD)
    pieces = max(1, min(wanted, most, MOST_PIECES))
    return Cut(side_by_side * pieces, pieces, lanes, side_by_side)
