// Layer: CUDA kernels. Blocks of a cluster that sum in part: each sends what it has to the block that finishes it, which waits until all has
// come. Nobody reads what another block has, so nobody has to stay for others. On devices without clusters such a kernel traps. Knows no layout.
#pragma once

#include "arrival.cuh"

// src/kernels/matmul.ts asks for clusters where devices have them.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CLUSTER_OF(n) __cluster_dims__(n, 1, 1)
constexpr bool kClusters = true;
#else
#define CLUSTER_OF(n)
constexpr bool kClusters = false;
#endif

/// Lies in shared memory, at the same place in all blocks of a cluster; for one use.
struct Mailbox {
  Arrival arrival;

  /// Called by all threads, long before the first of them sends. @param bytes that this block is to be sent
  __device__ __forceinline__ void open(int bytes) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) arrival.expect(bytes);
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
  }

  /// All blocks of the cluster have opened theirs. Called by all threads.
  __device__ __forceinline__ void wait_for_others() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
  }

  /// Two floats, to where block `rank` has what `to` is here.
  __device__ __forceinline__ void send(int rank, const float* to, float x, float y) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{\n\t.reg .b32 at, box;\n\tmapa.shared::cluster.u32 at, %0, %2;\n\tmapa.shared::cluster.u32 box, %1, %2;\n\t"
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [at], {%3, %4}, [box];\n\t}" ::"r"(shared_address(to)),
        "r"(shared_address(&arrival.barrier)), "r"(rank), "f"(x), "f"(y)
        : "memory");
#endif
  }

  /// All that was sent to this block is there for the calling thread.
  __device__ __forceinline__ void wait() { arrival.wait_for_cluster(); }
};
