"""The kernel that adds up a vector over a group's GPUs; megdet_hvd.comm.peer has the protocol.

Thread i of the grid writes slot i of its row in every other inbox, then waits for slot i of every
row of its own. Blocks do not wait for one another: none need be resident for another to end.
All that differs from sum to sum is in memory of the device: launches can be captured in a CUDA
graph, and replayed where all ranks replay the same.

A sum that is lost is nan, and so are all later ones, at once: a rank never goes on with a guess.
Threads that had their parts before one found out keep them, so it is the state's third word, not
the vector, that says whether a sum was lost.
"""

from megdet_hvd.comm.peer.layout import FIRST_NUMBER, GIVE_UP, LAST_NUMBER, THREADS

NAME = "megdet_peer_sum"

PRIMITIVES = r"""
struct __align__(16) Slot { u32 low, low_number, high, high_number; };

// One access of 16 bytes: each of its halves is written, and read, whole.
__device__ __forceinline__ void store_slot(Slot* slot, u64 value, u32 number) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(slot), "r"((u32)value),
               "r"(number), "r"((u32)(value >> 32)), "r"(number)
               : "memory");
}
__device__ __forceinline__ bool load_slot(const Slot* slot, u32 number, u64* value) {
  u32 low, low_number, high, high_number;
  asm volatile("ld.volatile.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(low), "=r"(low_number), "=r"(high), "=r"(high_number)
               : "l"(slot)
               : "memory");
  *value = (u64)high << 32 | low;
  return low_number == number && high_number == number;
}
__device__ __forceinline__ u64 nanoseconds() {
  u64 time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}
"""
"""What a GPU has instructions of its own for."""

TYPES = """
typedef unsigned int u32;
typedef unsigned long long u64;
"""

PROTOCOL = r"""
#ifndef LOOK_EVERY
#define LOOK_EVERY 0x4000u  // reads of a slot between two looks at the clock and at the host's word
#endif

enum { LATE = 1, ANOTHER = 2, GIVEN_UP = 3 };

struct Group {
  u64 rank, ranks, row, patience, notice, state, host, inboxes[1];  // as layout.setup_words
};

// Only the first thread that finds a sum lost reports it.
__device__ void lose(volatile u32* state, volatile u32* host, u32 fate, u32 peer, u64 label,
                     u64 peer_label) {
  if (atomicExch((u32*)state + 2, 1u)) return;
  host[1] = peer;
  host[2] = (u32)label;
  host[3] = (u32)(label >> 32);
  host[4] = (u32)peer_label;
  host[5] = (u32)(peer_label >> 32);
  __threadfence_system();
  host[0] = fate;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    megdet_peer_sum(double* vector, int length, u32 key, const Group* group) {
  const int rank = (int)group->rank, ranks = (int)group->ranks;
  const u64 began = nanoseconds();
  const u64 label = (u64)(u32)length << 32 | key;  // what slot 0 says
  volatile u32* state = (volatile u32*)group->state;
  volatile u32* host = (volatile u32*)group->host;
  const u32 number = state[0];
  const size_t row = group->row, half = (size_t)(number & 1) * ranks * row;
  const int stride = gridDim.x * blockDim.x, first = blockIdx.x * blockDim.x + threadIdx.x;
  bool lost = state[2] != 0, noted = false;

  for (int i = first; i <= length && !lost; i += stride) {
    const u64 own = i == 0 ? label : (u64)__double_as_longlong(vector[i - 1]);
    for (int k = 1; k < ranks; ++k) {  // each rank begins with its neighbour: links share the load
      const int peer = rank + k < ranks ? rank + k : rank + k - ranks;
      store_slot((Slot*)group->inboxes[peer] + half + rank * row + i, own, number);
    }
  }
  const Slot* mine = (const Slot*)group->inboxes[rank] + half;
  for (int i = first; i <= length && !lost; i += stride) {
    double sum = 0;
    for (int peer = 0; peer < ranks && !lost; ++peer) {
      u64 part = i == 0 ? label : (u64)__double_as_longlong(vector[i - 1]);
      u32 reads = 0;
      while (peer != rank && !load_slot(mine + peer * row + i, number, &part)) {
        ++reads;
        if (reads % 256 == 0 && state[2]) {
          lost = true;
          break;
        }
        if (reads % LOOK_EVERY) continue;
        const u64 waited = nanoseconds() - began;
        if (host[GIVE_UP]) {
          lose(state, host, GIVEN_UP, peer, label, 0);
        } else if (waited > group->patience) {
          lose(state, host, LATE, peer, label, 0);
        } else if (i == 0 && !noted && waited > group->notice) {
          host[13] = peer;
          host[14] = key;
          host[15] = length;
          __threadfence_system();
          host[12] = number;
          noted = true;
        }
      }
      if (lost) break;
      if (i == 0 && part != label) {
        lose(state, host, ANOTHER, peer, label, part);
        lost = true;
      }
      sum = peer == 0 ? __longlong_as_double(part) : sum + __longlong_as_double(part);
    }
    if (i > 0 && !lost) vector[i - 1] = sum;
  }
  if (noted) host[12] = 0;
  __syncthreads();
  if (state[2])
    for (int i = first; i <= length; i += stride)  // each its own value, which nobody else reads
      if (i > 0) vector[i - 1] = __longlong_as_double(0x7ff8000000000000LL);
  __syncthreads();
  if (threadIdx.x == 0 && atomicAdd((u32*)state + 1, 1u) == gridDim.x - 1) {
    state[1] = 0;  // all blocks are done: nobody else looks at it
    state[0] = number == LAST_NUMBER ? FIRST_NUMBER : number + 1;
  }
}
"""

DEFINITIONS = (
    f"#define THREADS {THREADS}\n#define GIVE_UP {GIVE_UP}\n"
    f"#define FIRST_NUMBER {FIRST_NUMBER}u\n#define LAST_NUMBER {LAST_NUMBER}u\n"
)

SOURCE = TYPES + DEFINITIONS + PRIMITIVES + PROTOCOL
"""For NVRTC."""
