"""CUDA C++ of CGBN's own kernels: the sums over a process's values, and a layer's statistics.

``moments`` and ``backward`` are one pass over x, or x and ∂L/∂y, that leaves two sums a channel.
Values are centred, on a pivot or on μ, and added up in float64. A block adds up a piece of the
values of its channels; the block that ends last adds up the pieces, always in the same order, so
that the bits do not depend on which it was. Two layouts: ``planes`` (N, C, H, W contiguous: a block
has one channel) and ``rows`` (channels last: it has neighbouring ones). Each for 1, 2 or as many
values a load as 16 bytes hold.

``statistics`` takes the group's sums to what normalises, and moves the running statistics.
"""

import torch

BLOCK = 256
"""Threads of a block; a power of two, and as many as 32 of the widest loads have values."""

_STORED = {
    torch.float64: ("double", "double", "return value;"),
    torch.float32: ("float", "float", "return value;"),
    torch.bfloat16: ("unsigned short", "float", "return __uint_as_float((u32)value << 16);"),
    torch.float16: ("unsigned short", "float", "return from_half(value);"),
}
"""By type of the input: what lies in memory, what statistics are kept in, and how it is read."""


def most_values(dtype: torch.dtype) -> int:
    """Of a load of 16 bytes."""
    return 16 // dtype.itemsize


def widths(dtype: torch.dtype) -> tuple[int, ...]:
    """Values of a load for which there are kernels, the widest first."""
    return tuple(sorted({1, 2, most_values(dtype)}, reverse=True))


def kernel_names(dtype: torch.dtype) -> tuple[str, ...]:
    """Of :func:`source`."""
    sums = [
        f"{what}_{layout}_{width}"
        for what in ("moments", "backward")
        for layout in ("planes", "rows")
        for width in widths(dtype)
    ]
    return (*sums, "statistics")


def source(dtype: torch.dtype, block: int = BLOCK) -> str:
    """For inputs of ``dtype``: float64, float32, bfloat16 or float16; ``block`` threads a block."""
    stored, kept, read = _STORED[dtype]
    types = f"""
#define BLOCK {block}
typedef unsigned int u32;
typedef long long i64;
typedef {stored} Stored;
typedef {kept} Kept;
{_FROM_HALF if dtype == torch.float16 else ""}
__device__ __forceinline__ double wide(Stored value) {{ {read} }}
"""
    kernels = "".join(f"KERNELS({width})\n" for width in widths(dtype))
    return types + _KERNELS + kernels


_FROM_HALF = r"""
// The exponent's bias differs by 112; what was infinite or no number stays so.
__device__ __forceinline__ float from_half(unsigned short half) {
  float size = __uint_as_float((half & 0x7fffu) << 13) * __uint_as_float(0x77800000u);
  u32 bits = __float_as_uint(size);
  if ((half & 0x7c00u) == 0x7c00u) bits |= 0x7f800000u;
  return __uint_as_float(bits | (half & 0x8000u) << 16);
}
"""

_KERNELS = r"""
template <int V> struct alignas(V * sizeof(Stored)) Pack { Stored at[V]; };

struct Work {               // of one launch
  int channels;
  i64 spatial, images;
  int pieces;               // that a channel's values are cut into
  double* partial;          // (pieces, channels, 2), unless there is one piece
  u32* tickets;             // one for each block of a piece; 0 before and after
};

struct Moments {            // Σ(x - pivot), Σ(x - pivot)²; the pivot is a channel's first value
  const Stored* x;
  i64 stride;               // from the first value of a channel to that of the next
  double count;
  double* vector;           // [n, n·m, M2 + n·m²]
  __device__ double centre(int c) const { return wide(x[c * stride]); }
  __device__ void add(double& a, double& b, double d, double) const { a += d; b = fma(d, d, b); }
  __device__ void finish(int c, int channels, double a, double b) const {
    double residual = a / count, mean = centre(c) + residual, m2 = b - a * residual;
    if (m2 < 0) m2 = 0;
    if (c == 0) vector[0] = count;
    vector[1 + c] = count * mean;
    vector[1 + channels + c] = m2 + count * mean * mean;
  }
};

struct Backward {           // Σ g, Σ g·(x - μ), and the gradients of γ and β
  const Kept *mean, *inverse;
  double* vector;
  Kept *grad_weight, *grad_bias;
  __device__ double centre(int c) const { return mean[c]; }
  __device__ void add(double& a, double& b, double d, double g) const { a += g; b = fma(g, d, b); }
  __device__ void finish(int c, int channels, double a, double b) const {
    vector[c] = a;
    vector[channels + c] = b;
    if (grad_weight) {
      grad_weight[c] = (Kept)(b * inverse[c]);
      grad_bias[c] = (Kept)a;
    }
  }
};

// (rows, width) to (1, width), by halves; rows is a power of two. Ends with a barrier.
__device__ void fold(double* a, double* b, int rows, int width) {
  for (int half = rows / 2; half; half /= 2) {
    __syncthreads();
    for (int t = threadIdx.x; t < half * width; t += BLOCK) {
      a[t] += a[t + half * width];
      b[t] += b[t + half * width];
    }
  }
  __syncthreads();
}

// From a block's sums (rows, width) of the channels from first on to what is asked for.
template <class Sums>
__device__ void gather(const Work& work, const Sums& sums, double* a, double* b, int rows,
                       int width, int first, int piece, u32* ticket) {
  __shared__ bool last;
  fold(a, b, rows, width);
  if (work.pieces > 1) {
    for (int t = threadIdx.x; t < width; t += BLOCK) {
      if (first + t < work.channels) {
        double* own = work.partial + ((i64)piece * work.channels + first + t) * 2;
        own[0] = a[t];
        own[1] = b[t];
      }
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      last = atomicAdd(ticket, 1u) == (u32)work.pieces - 1;
      if (last) *ticket = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    int groups = 1;
    while (groups * 2 * width <= BLOCK) groups *= 2;
    int t = threadIdx.x % width, group = threadIdx.x / width;
    if (group < groups) {
      double one = 0, other = 0;
      for (int p = group; p < work.pieces && first + t < work.channels; p += groups) {
        const volatile double* own =
            work.partial + ((i64)p * work.channels + first + t) * 2;
        one += own[0];
        other += own[1];
      }
      a[group * width + t] = one;
      b[group * width + t] = other;
    }
    fold(a, b, groups, width);
  }
  for (int t = threadIdx.x; t < width; t += BLOCK)
    if (first + t < work.channels) sums.finish(first + t, work.channels, a[t], b[t]);
}

template <int V, class Sums>
__device__ void over_planes(const Stored* x, const Stored* g, const Work& work, const Sums& sums) {
  __shared__ double a[BLOCK], b[BLOCK];
  const Pack<V>* values = (const Pack<V>*)x;
  const Pack<V>* others = (const Pack<V>*)g;
  const int c = blockIdx.x % work.channels, piece = blockIdx.x / work.channels;
  const i64 plane = work.spatial / V, all = plane * work.images;
  const i64 begin = all * piece / work.pieces, end = all * (piece + 1) / work.pieces;
  const double centre = sums.centre(c);
  double one = 0, other = 0;
  i64 at = begin + threadIdx.x, image = at / plane, within = at % plane;
  for (; at < end; at += BLOCK) {
    const i64 where = (image * work.channels + c) * plane + within;
    const Pack<V> value = values[where];
    Pack<V> grad = value;
    if (g) grad = others[where];
    for (int v = 0; v < V; ++v) sums.add(one, other, wide(value.at[v]) - centre, wide(grad.at[v]));
    within += BLOCK;
    while (within >= plane) {
      within -= plane;
      ++image;
    }
  }
  a[threadIdx.x] = one;
  b[threadIdx.x] = other;
  gather(work, sums, a, b, BLOCK, 1, c, piece, work.tickets + c);
}

// lanes, a power of two, threads lie side by side, each on V channels; below them more rows.
template <int V, class Sums>
__device__ void over_rows(const Stored* x, const Stored* g, const Work& work, const Sums& sums,
                          int lanes) {
  __shared__ double a[BLOCK * V], b[BLOCK * V];
  const Pack<V>* values = (const Pack<V>*)x;
  const Pack<V>* others = (const Pack<V>*)g;
  const int packs = work.channels / V, tiles = (packs + lanes - 1) / lanes;
  const int tile = blockIdx.x % tiles, piece = blockIdx.x / tiles;
  const int lane = threadIdx.x % lanes, column = tile * lanes + lane;
  const int step = BLOCK / lanes;
  const i64 all = work.spatial * work.images;
  const i64 begin = all * piece / work.pieces, end = all * (piece + 1) / work.pieces;
  double one[V], other[V], centre[V];
  for (int v = 0; v < V; ++v) {
    one[v] = other[v] = 0;
    centre[v] = column < packs ? sums.centre(column * V + v) : 0;
  }
  for (i64 row = begin + threadIdx.x / lanes; row < end && column < packs; row += step) {
    const Pack<V> value = values[row * packs + column];
    Pack<V> grad = value;
    if (g) grad = others[row * packs + column];
    for (int v = 0; v < V; ++v)
      sums.add(one[v], other[v], wide(value.at[v]) - centre[v], wide(grad.at[v]));
  }
  for (int v = 0; v < V; ++v) {
    a[threadIdx.x * V + v] = one[v];
    b[threadIdx.x * V + v] = other[v];
  }
  gather(work, sums, a, b, step, lanes * V, tile * lanes * V, piece, work.tickets + tile);
}

#define KERNELS(V)                                                                               \
  extern "C" __global__ void __launch_bounds__(BLOCK) moments_planes_##V(                        \
      const Stored* x, int channels, i64 spatial, i64 images, int pieces, double* partial,       \
      u32* tickets, int, double* vector) {                                                       \
    over_planes<V>(x, nullptr, Work{channels, spatial, images, pieces, partial, tickets},        \
                   Moments{x, spatial, (double)(spatial * images), vector});                     \
  }                                                                                              \
  extern "C" __global__ void __launch_bounds__(BLOCK) moments_rows_##V(                          \
      const Stored* x, int channels, i64 spatial, i64 images, int pieces, double* partial,       \
      u32* tickets, int lanes, double* vector) {                                                 \
    over_rows<V>(x, nullptr, Work{channels, spatial, images, pieces, partial, tickets},          \
                 Moments{x, 1, (double)(spatial * images), vector}, lanes);                      \
  }                                                                                              \
  extern "C" __global__ void __launch_bounds__(BLOCK) backward_planes_##V(                       \
      const Stored* x, int channels, i64 spatial, i64 images, int pieces, double* partial,       \
      u32* tickets, int, double* vector, const Stored* g, const Kept* mean, const Kept* inverse, \
      Kept* grad_weight, Kept* grad_bias) {                                                      \
    over_planes<V>(x, g, Work{channels, spatial, images, pieces, partial, tickets},              \
                   Backward{mean, inverse, vector, grad_weight, grad_bias});                     \
  }                                                                                              \
  extern "C" __global__ void __launch_bounds__(BLOCK) backward_rows_##V(                         \
      const Stored* x, int channels, i64 spatial, i64 images, int pieces, double* partial,       \
      u32* tickets, int lanes, double* vector, const Stored* g, const Kept* mean,                \
      const Kept* inverse, Kept* grad_weight, Kept* grad_bias) {                                 \
    over_rows<V>(x, g, Work{channels, spatial, images, pieces, partial, tickets},                \
                 Backward{mean, inverse, vector, grad_weight, grad_bias}, lanes);                \
  }

// total: the group's [n, Σ n·m, Σ M2 + n·m²]. moments: (2, C), mean and biased variance.
// ready: (2, C), the rounded mean and 1/√(σ² + ε). A group of fewer than two values moves nothing.
extern "C" __global__ void __launch_bounds__(BLOCK) statistics(
    const double* total, int channels, double eps, double* moments, Kept* ready,
    Kept* running_mean, Kept* running_variance, i64* batches, double factor) {
  const int c = blockIdx.x * BLOCK + threadIdx.x;
  if (c >= channels) return;
  const double n = total[0], safe = n < 1 ? 1 : n;
  const double mean = total[1 + c] / safe;
  double variance = total[1 + channels + c] / safe - mean * mean;
  if (variance < 0) variance = 0;
  moments[c] = mean;
  moments[channels + c] = variance;
  ready[c] = (Kept)mean;
  ready[channels + c] = (Kept)(1 / sqrt(variance + eps));
  if (!running_mean || n < 2) return;
  const double unbiased = variance * (n / (n - 1));
  const double old_mean = running_mean[c], old_variance = running_variance[c];
  running_mean[c] = (Kept)(old_mean + factor * (mean - old_mean));
  running_variance[c] = (Kept)(old_variance + factor * (unbiased - old_variance));
  if (batches && c == 0) ++*batches;
}
"""
