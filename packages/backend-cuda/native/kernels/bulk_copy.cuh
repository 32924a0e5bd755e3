// Layer: CUDA kernels. One copy of contiguous memory to shared memory for a whole block, which a unit of its own makes: it neither takes the
// block's instructions nor stands in the way of what the multiprocessor reads meanwhile. Devices without it copy by threads. Knows no layout.
#pragma once

#include "arrival.cuh"

/// Lies in shared memory; for one copy.
struct BulkCopy {
  Arrival arrival;

  /// Called by all threads. Addresses and size are multiples of 16.
  __device__ __forceinline__ void start(void* to, const void* from, int bytes) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x != 0) return;
    arrival.expect(bytes);
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)), "l"(from),
                 "r"(bytes), "r"(shared_address(&arrival.barrier))
                 : "memory");
#else
    for (int at = 16 * threadIdx.x; at < bytes; at += 16 * blockDim.x) {
      copy_16(static_cast<char*>(to) + at, static_cast<const char*>(from) + at, 16);
    }
    close_copies();
#endif
  }

  /// What was copied is there for the calling thread. Between the two there is a barrier of the block.
  __device__ __forceinline__ void wait() {
    arrival.wait();
#if __CUDA_ARCH__ < 900
    wait_copies<0>();
    __syncthreads();
#endif
  }
};
