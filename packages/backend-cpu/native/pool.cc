#include "pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace diffmamba {
namespace {

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

struct Pool {
  /// Held by whoever has a loop under way: a second caller, of another JavaScript thread, works alone meanwhile.
  std::mutex callers;
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable left;
  int helpers = 0;
  Loop* loop = nullptr;
  /// Goes up with each loop, so that a helper joins each at most once.
  uint64_t generation = 0;
  int inside = 0;
};

// Never destroyed, and its threads never joined: they sleep until the process ends.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

thread_local int limit = 1;

void help() {
  Pool& p = pool();
  uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(p.mutex);
  while (true) {
    p.wake.wait(lock, [&] { return p.loop != nullptr && p.generation != seen; });
    seen = p.generation;
    Loop* const loop = p.loop;
    if (loop->places == 0) continue;
    loop->places--;
    p.inside++;
    lock.unlock();
    loop->work();
    lock.lock();
    if (--p.inside == 0) p.left.notify_one();
  }
}

}  // namespace

bool pool_start(int threads) {
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  try {
    for (; p.helpers < threads - 1; p.helpers++) std::thread(help).detach();
  } catch (const std::system_error&) {
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
  {
    std::lock_guard<std::mutex> lock(p.mutex);
    p.loop = &loop;
    p.generation++;
  }
  if (wanted == 2) {
    p.wake.notify_one();
  } else {
    p.wake.notify_all();
  }
  loop.work();
  std::unique_lock<std::mutex> lock(p.mutex);
  p.loop = nullptr;
  p.left.wait(lock, [&] { return p.inside == 0; });
}

}  // namespace diffmamba
