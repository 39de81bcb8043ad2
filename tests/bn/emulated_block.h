// CUDA C++ for one thread of a CPU: blocks run one after the other, and a block's threads by turns
// from barrier to barrier. Which of them goes first is emulated_order: 0 the first, 1 the last.
// emulated_fault chooses among faults that a test plants.
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct EmulatedIndex { unsigned x; };
static EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;
extern "C" { int emulated_order = 0, emulated_fault = 0; }

namespace emulated {
constexpr size_t STACK = 1 << 16;
struct Thread {
  jmp_buf place;   // where it stands; it starts in a context of its own
  ucontext_t start;
  std::unique_ptr<char[]> stack;
  bool started = false, ended = true;
};
static std::deque<Thread> threads;  // they live on, from block to block
static jmp_buf scheduler;
static std::function<void()> kernel;

static void give_way(Thread& own) {
  if (!_setjmp(own.place)) _longjmp(scheduler, 1);
}
static void live() {
  Thread& own = threads[threadIdx.x];
  for (;;) {
    kernel();
    own.ended = true;
    give_way(own);
  }
}
static void enter(Thread& one) {
  if (one.started) _longjmp(one.place, 1);
  one.started = true;
  setcontext(&one.start);
}
static bool go_on(unsigned t) {
  if (threads[t].ended) return false;
  threadIdx.x = t;
  if (!_setjmp(scheduler)) enter(threads[threadIdx.x]);
  return !threads[threadIdx.x].ended;
}
static void run_block(unsigned size) {
  while (threads.size() < size) {
    Thread& one = threads.emplace_back();
    one.stack.reset(new char[STACK]);
    getcontext(&one.start);
    one.start.uc_stack.ss_sp = one.stack.get();
    one.start.uc_stack.ss_size = STACK;
    makecontext(&one.start, live, 0);
  }
  for (unsigned t = 0; t < size; ++t) threads[t].ended = false;
  for (bool more = true; more;) {
    more = false;
    for (unsigned i = 0; i < size; ++i) more |= go_on(emulated_order ? size - 1 - i : i);
  }
}
static void run(unsigned grid, unsigned block, std::function<void()> body) {
  kernel = std::move(body);
  blockDim.x = block, gridDim.x = grid;
  for (unsigned i = 0; i < grid; ++i) {
    blockIdx.x = emulated_order ? grid - 1 - i : i;
    run_block(block);
  }
}
template <class... A, size_t... I>
void call(void (*function)(A...), unsigned grid, unsigned block, void** from,
          std::index_sequence<I...>) {
  std::tuple<A...> values(*(A*)from[I]...);
  run(grid, block, [&] { std::apply(function, values); });
}
template <class... A>
void call(void (*function)(A...), unsigned grid, unsigned block, void** from) {
  call(function, grid, block, from, std::index_sequence_for<A...>{});
}
}  // namespace emulated

static inline void __syncthreads() {
  emulated::give_way(emulated::threads[threadIdx.x]);
}
static inline void __threadfence() {}
static inline unsigned atomicAdd(unsigned* where, unsigned value) {
  const unsigned before = *where;
  *where += value;
  return before;
}
static inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}

#define EMULATED(name)                                                               \
  extern "C" void emulated_##name(unsigned grid, unsigned block, void** arguments) { \
    emulated::call(name, grid, block, arguments);                                    \
  }
