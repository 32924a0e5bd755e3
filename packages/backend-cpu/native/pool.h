// The pool of threads: one loop, cut into pieces by size alone, run by whoever is free. Idle threads sleep.
// Knows counting. Knows no kernel.
#pragma once

#include <cstdint>

namespace diffmamba {

/// Sees to it that a loop can be shared by this many threads, the caller included. Returns false where one cannot start;
/// those that did start stay.
bool pool_start(int threads);

/// At most so many threads, the caller included, share the loops that this thread calls from now on; 1 at first.
void pool_limit(int threads);

using Piece = void (*)(void* context, int64_t begin, int64_t end);

void pool_run(int64_t count, int64_t grain, Piece piece, void* context);

/// Calls body(begin, end) for pieces of at most `grain` of 0 .. count, each once, on any thread, and returns when all are
/// done. Where the pieces begin and end depends on `count` and `grain` alone, so that results do not depend on the
/// number of threads. The body must not throw and must not call this.
template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  auto call = [](void* context, int64_t begin, int64_t end) { (*static_cast<const Body*>(context))(begin, end); };
  pool_run(count, grain, call, const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace diffmamba
