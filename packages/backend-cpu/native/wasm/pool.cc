// The pool of threads in a browser: helpers, each a worker with its own instance of this module over the same memory, that
// sleep until a loop begins, and a caller that works along. There is one caller: the instance that calls kernels.
// Knows counting. Knows no kernel.

#include "../pool.h"

#include <atomic>

#include "pool.h"

namespace diffmamba {
namespace {

/// How often a helper looks for the next loop before it sleeps, since a training step is hundreds of loops close together,
/// and the caller for the end of the helpers' last pieces: some tens of microseconds.
constexpr int kHelperLooks = 20000;
constexpr int kCallerLooks = 20000;

struct Loop {
  Piece piece = nullptr;
  void* context = nullptr;
  int64_t count = 0;
  int64_t grain = 1;
  std::atomic<int64_t> next{0};

  void work() {
    while (true) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      const int64_t end = begin + grain < count ? begin + grain : count;
      piece(context, begin, end);
    }
  }
};

/// The loop under way, or the last one.
Loop loop;
/// Goes up with each loop. Helpers sleep on it.
std::atomic<int32_t> generation{0};
/// Helpers at work on the loop, and kPlace for each that may still join. One number, so that nobody joins what has ended;
/// the caller sleeps on it.
std::atomic<int32_t> entry{0};
constexpr int32_t kPlace = 1 << 16;

int limit = 1;
bool caller_may_sleep = false;

/// Looks for a number to change from `old`. Returns whether it did in time.
bool look_for_change(const std::atomic<int32_t>& number, int32_t old, int looks) {
  for (int i = 0; i < looks; i++) {
    if (number.load(std::memory_order_relaxed) != old) return true;
  }
  return false;
}

// A module for one thread has no helpers, and nobody to wake.
#ifdef __wasm_atomics__
/// Sleeps unless the number has changed already. May wake early.
void sleep_on(std::atomic<int32_t>& number, int32_t old) {
  __builtin_wasm_memory_atomic_wait32(number.address(), old, -1);
}

void wake(std::atomic<int32_t>& number, int32_t count) {
  __builtin_wasm_memory_atomic_notify(number.address(), static_cast<unsigned>(count));
}
#else
void sleep_on(std::atomic<int32_t>&, int32_t) {}
void wake(std::atomic<int32_t>&, int32_t) {}
#endif

/// Takes a place at the loop, if there is one.
bool join() {
  int32_t seen = entry.load(std::memory_order_relaxed);
  while (seen >= kPlace) {
    if (entry.compare_exchange_weak(seen, seen - kPlace + 1)) return true;
  }
  return false;
}

}  // namespace

void pool_help() {
  int32_t seen = 0;
  while (true) {
    if (!look_for_change(generation, seen, kHelperLooks)) sleep_on(generation, seen);
    seen = generation.load();
    if (!join()) continue;
    loop.work();
    if (entry.fetch_sub(1) == 1) wake(entry, 1);
  }
}

void pool_caller(bool may_sleep) { caller_may_sleep = may_sleep; }

void pool_limit(int threads) { limit = threads; }

void pool_run(int64_t count, int64_t grain, Piece piece, void* context) {
  if (count <= 0) return;
  if (grain < 1) grain = 1;
  const int64_t pieces = (count + grain - 1) / grain;
  const int32_t helpers = static_cast<int32_t>((pieces < limit ? pieces : limit) - 1);
  if (helpers <= 0) {
    for (int64_t begin = 0; begin < count; begin += grain) {
      piece(context, begin, begin + grain < count ? begin + grain : count);
    }
    return;
  }
  loop.piece = piece;
  loop.context = context;
  loop.count = count;
  loop.grain = grain;
  loop.next.store(0, std::memory_order_relaxed);
  entry.store(helpers * kPlace);
  generation.fetch_add(1);
  wake(generation, helpers);
  loop.work();
  int32_t inside = entry.fetch_and(kPlace - 1) & (kPlace - 1);
  while (inside > 0) {
    if (!look_for_change(entry, inside, kCallerLooks) && caller_may_sleep) sleep_on(entry, inside);
    inside = entry.load();
  }
}

}  // namespace diffmamba
