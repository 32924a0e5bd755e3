// The pool of threads: helpers that look for the next loop for a moment and then sleep, and a caller that works along.
// Knows counting. Knows no kernel.

#include "pool.h"

#ifdef __linux__
#include <sched.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace diffmamba {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

/// To wake a thread costs as much as a short loop, and a training step or a token is hundreds of loops close together: so
/// a helper looks for the next one so long before it sleeps,
constexpr microseconds kHelperLooks{200};
/// and the caller, which has nothing left to do, for the end of the helpers' last pieces, which take up to about as long.
constexpr microseconds kCallerLooks{200};

/// One loop under way. Helpers join it under the lock and leave it under the lock, so that it can lie on the caller's
/// stack.
struct Loop {
  Piece piece;
  void* context;
  int64_t count;
  int64_t grain;
  /// Helpers that may still join; under the pool's lock.
  int places;
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

/// The processor that the calling thread is on; -1 where the system does not say.
int processor() {
#ifdef __linux__
  return sched_getcpu();
#else
  return -1;
#endif
}

/// Moves the calling thread off a processor, once: it may go back there. A scheduler that gathers threads that sleep often
/// on one processor would otherwise keep a helper where its caller runs, and the two would take turns.
void leave([[maybe_unused]] int taken) {
#ifdef __linux__
  cpu_set_t all, others;
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  others = all;
  CPU_CLR(taken, &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
  sched_setaffinity(0, sizeof all, &all);
#endif
}

struct Pool {
  /// Held by whoever has a loop under way: a second caller, of another JavaScript thread, works alone meanwhile.
  std::mutex callers;
  /// What follows changes under this lock; what is atomic is looked at without it.
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable left;
  int helpers = 0;
  int asleep = 0;
  Loop* loop = nullptr;
  /// Goes up with each loop, so that a helper joins each at most once.
  std::atomic<uint64_t> generation{0};
  /// Helpers at work on the loop.
  std::atomic<int> inside{0};
  /// Where the loop's caller runs.
  std::atomic<int> processor{-1};
};

// Never destroyed, and its threads never joined: they sleep until the process ends.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

thread_local int limit = 1;

/// Tells the processor that this thread only waits.
inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Looks for something to come about. Returns whether it did in time.
template <typename Test>
bool look_for(microseconds time, const Test& test) {
  const Clock::time_point end = Clock::now() + time;
  do {
    for (int i = 0; i < 16; i++) {
      if (test()) return true;
      pause();
    }
  } while (Clock::now() < end);
  return false;
}

/// What a helper does: joins loops. It looks for the next one only where the last came soon enough for that to have paid,
/// and where it does not take the caller's processor for it.
void help() {
  Pool& p = pool();
  uint64_t seen = 0;
  Clock::time_point worked = Clock::now();
  std::unique_lock<std::mutex> lock(p.mutex);
  while (true) {
    p.asleep++;
    p.wake.wait(lock, [&] { return p.generation != seen; });
    p.asleep--;
    seen = p.generation;
    Loop* const loop = p.loop;
    if (loop == nullptr || loop->places == 0) continue;
    loop->places--;
    p.inside++;
    lock.unlock();
    const bool soon = Clock::now() - worked < kHelperLooks;
    const int caller = p.processor;
    if (caller >= 0 && processor() == caller) leave(caller);
    loop->work();
    lock.lock();
    if (--p.inside == 0) p.left.notify_one();
    lock.unlock();
    worked = Clock::now();
    if (soon && (caller < 0 || processor() != caller)) {
      look_for(kHelperLooks, [&] { return p.generation.load(std::memory_order_relaxed) != seen; });
    }
    lock.lock();
  }
}

}  // namespace

bool pool_start(int threads) {
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  try {
    for (; p.helpers < threads - 1; p.helpers++) std::thread(help).detach();
  } catch (const std::exception&) {
    return false;
  }
  return true;
}

void pool_limit(int threads) { limit = threads; }

void pool_run(int64_t count, int64_t grain, Piece piece, void* context) {
  if (count <= 0) return;
  if (grain < 1) grain = 1;
  Pool& p = pool();
  std::unique_lock<std::mutex> caller(p.callers, std::defer_lock);
  if (limit <= 1 || count <= grain || !caller.try_lock()) {
    for (int64_t begin = 0; begin < count; begin += grain) {
      piece(context, begin, begin + grain < count ? begin + grain : count);
    }
    return;
  }
  const int64_t pieces = (count + grain - 1) / grain;
  const int wanted = pieces < limit ? static_cast<int>(pieces) : limit;
  Loop loop{piece, context, count, grain, wanted - 1, {}};
  int sleepers = 0;
  {
    std::lock_guard<std::mutex> lock(p.mutex);
    p.loop = &loop;
    p.processor = processor();
    p.generation++;
    sleepers = p.asleep < loop.places ? p.asleep : loop.places;
  }
  for (; sleepers > 0; sleepers--) p.wake.notify_one();
  loop.work();
  {
    std::lock_guard<std::mutex> lock(p.mutex);
    p.loop = nullptr;
  }
  const auto all_left = [&] { return p.inside == 0; };
  if (look_for(kCallerLooks, all_left)) return;
  std::unique_lock<std::mutex> lock(p.mutex);
  p.left.wait(lock, all_left);
}

}  // namespace diffmamba
