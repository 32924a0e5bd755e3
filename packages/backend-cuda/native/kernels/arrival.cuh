// Layer: CUDA kernels. Bytes that units of their own, or other blocks of a cluster, bring to a block's shared memory, and waiting until all of
// them have come (an mbarrier of Hopper and newer). Knows nobody who sends.
#pragma once

#include "copies.cuh"

#if __CUDA_ARCH__ >= 900
#define AWAIT_ARRIVAL(SCOPE)                                                                           \
  asm volatile(                                                                                        \
      "{\n\t.reg .pred done;\n\t"                                                                     \
      "again: mbarrier.try_wait.parity" SCOPE ".shared::cta.b64 done, [%0], 0;\n\t@!done bra again;\n\t}" \
      ::"r"(shared_address(&barrier))                                                                  \
      : "memory")
#else
#define AWAIT_ARRIVAL(SCOPE)
#endif

/// Lies in shared memory; for one use. On older devices no function does anything.
struct Arrival {
  uint64_t barrier;

  /// Called by one thread, before anything is sent.
  __device__ __forceinline__ void expect(int bytes) {
#if __CUDA_ARCH__ >= 900
    const uint32_t own = shared_address(&barrier);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(own) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(own), "r"(bytes) : "memory");
#endif
  }

  /// All of it is there for the calling thread.
  __device__ __forceinline__ void wait() { AWAIT_ARRIVAL(""); }
  /// Where other blocks of the cluster sent it.
  __device__ __forceinline__ void wait_for_cluster() { AWAIT_ARRIVAL(".acquire.cluster"); }
};

#undef AWAIT_ARRIVAL
