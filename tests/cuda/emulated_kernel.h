// CUDA C++ for a CPU: each thread of a grid is a thread. For kernels whose blocks have one dimension
// and that use what is defined here. A kernel is offered to emulated_driver.cpp by EMULATED(name).
#pragma once
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <cstring>
#include <thread>
#include <tuple>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __restrict__

struct EmulatedIndex { unsigned x; };
static thread_local EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;
static thread_local pthread_barrier_t* emulated_block;

static inline void __syncthreads() { pthread_barrier_wait(emulated_block); }
static inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline unsigned atomicAdd(unsigned* where, unsigned value) {
  return __atomic_fetch_add(where, value, __ATOMIC_SEQ_CST);
}
static inline unsigned atomicExch(unsigned* where, unsigned value) {
  return __atomic_exchange_n(where, value, __ATOMIC_SEQ_CST);
}
static inline double __longlong_as_double(long long bits) {
  double value;
  memcpy(&value, &bits, 8);
  return value;
}
static inline long long __double_as_longlong(double value) {
  long long bits;
  memcpy(&bits, &value, 8);
  return bits;
}

template <class... A>
struct EmulatedCall {
  using Values = std::tuple<A...>;
  template <size_t... I>
  static void* pack(void** from, std::index_sequence<I...>) {
    return new Values(*(A*)from[I]...);
  }
  static void run(void (*kernel)(A...), void* packed, unsigned grid, unsigned block) {
    auto* values = (Values*)packed;
    std::vector<pthread_barrier_t> barriers(grid);
    std::vector<std::thread> threads;
    for (auto& barrier : barriers) pthread_barrier_init(&barrier, nullptr, block);
    for (unsigned b = 0; b < grid; ++b)
      for (unsigned t = 0; t < block; ++t)
        threads.emplace_back([=, &barriers] {
          threadIdx.x = t, blockIdx.x = b, blockDim.x = block, gridDim.x = grid;
          emulated_block = &barriers[b];
          std::apply(kernel, *values);
        });
    for (auto& thread : threads) thread.join();
    for (auto& barrier : barriers) pthread_barrier_destroy(&barrier);
    delete values;
  }
};
template <class... A>
EmulatedCall<A...> emulated_call(void (*)(A...));

#define EMULATED(name)                                                                         \
  extern "C" void* pack_##name(void** from) {                                                  \
    return emulated_pack(name, from);                                                          \
  }                                                                                            \
  extern "C" void run_##name(void* packed, unsigned grid, unsigned block) {                    \
    decltype(emulated_call(name))::run(name, packed, grid, block);                             \
  }
template <class... A>
void* emulated_pack(void (*)(A...), void** from) {
  return EmulatedCall<A...>::pack(from, std::index_sequence_for<A...>{});
}
