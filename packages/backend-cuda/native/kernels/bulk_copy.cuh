// Layer: CUDA kernels. One copy of contiguous memory to shared memory for a whole block, which a unit of its own makes: it neither takes the
// block's instructions nor stands in the way of what the multiprocessor reads meanwhile. Devices without it copy by threads. Knows no layout.
#pragma once

#include "copies.cuh"

/// Lies in shared memory; for one copy.
struct BulkCopy {
  uint64_t barrier;

  /// Called by all threads. Addresses and size are multiples of 16.
  __device__ __forceinline__ void start(void* to, const void* from, int bytes) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x != 0) return;
    const uint32_t own = shared_address(&barrier);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(own) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(own), "r"(bytes) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)), "l"(from), "r"(bytes), "r"(own)
                 : "memory");
#else
    for (int at = 16 * threadIdx.x; at < bytes; at += 16 * blockDim.x) copy_16(static_cast<char*>(to) + at, static_cast<const char*>(from) + at, 16);
    close_copies();
#endif
  }

  /// What was copied is there for the calling thread. Between the two there is a barrier of the block.
  __device__ __forceinline__ void wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{\n\t.reg .pred done;\n\tagain: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], 0;\n\t@!done bra again;\n\t}" ::"r"(shared_address(&barrier))
        : "memory");
#else
    wait_copies<0>();
    __syncthreads();
#endif
  }
};
