// Layer: CUDA kernels. Products of the tensor cores of Hopper, where four warps multiply tiles as they lie in shared memory: each is read once,
// and not once by each warp that shares it. m64nNk16 of bf16 or f16 with sums in f32, of which each warp has 16 rows, as in half_products.cuh.
// Knows no layout of other memory.
#pragma once

#include "copies.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define ON_WARPGROUPS(...) asm volatile(__VA_ARGS__)
constexpr bool kWarpgroups = true;
#else
#define ON_WARPGROUPS(...)
constexpr bool kWarpgroups = false;
#endif

/// Lines of 64 elements of k, 128 bytes each, swizzled as `swizzled<T, 64>` has them; the first begins at a multiple of 1024.
__device__ __forceinline__ uint64_t tile_at(const void* lines) {
  constexpr uint64_t kLines8 = uint64_t{1024 >> 4} << 32, kSwizzle128 = uint64_t{1} << 62;
  return (shared_address(lines) & 0x3ffff) >> 4 | uint64_t{1} << 16 | kLines8 | kSwizzle128;
}
/// The tile so many elements of k further on, within the 64.
__device__ __forceinline__ uint64_t further(uint64_t tile, int k) { return tile + (2 * k >> 4); }

/// c (64, 8 TILES) += a b', enqueued: a warp of the four has tile j's sums of its 16 rows in c[j].
template <typename T>
__device__ __forceinline__ void multiply_tiles(float (&c)[2][4], uint64_t a, uint64_t b);
template <typename T>
__device__ __forceinline__ void multiply_tiles(float (&c)[4][4], uint64_t a, uint64_t b);

#define SUMS_OF_TILE(j) "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
#define DIFFMAMBA_WARPGROUP(T, NAME)                                                                                                       \
  template <>                                                                                                                              \
  __device__ __forceinline__ void multiply_tiles<T>(float (&c)[2][4], uint64_t a, uint64_t b) {                                            \
    ON_WARPGROUPS("wgmma.mma_async.sync.aligned.m64n16k16.f32." NAME "." NAME " {%0,%1,%2,%3,%4,%5,%6,%7}, %8, %9, 1, 1, 1, 0, 0;"         \
                  : SUMS_OF_TILE(0), SUMS_OF_TILE(1)                                                                                       \
                  : "l"(a), "l"(b));                                                                                                       \
  }                                                                                                                                        \
  template <>                                                                                                                              \
  __device__ __forceinline__ void multiply_tiles<T>(float (&c)[4][4], uint64_t a, uint64_t b) {                                            \
    ON_WARPGROUPS("wgmma.mma_async.sync.aligned.m64n32k16.f32." NAME "." NAME                                                              \
                  " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, 1, 1, 1, 0, 0;"                                     \
                  : SUMS_OF_TILE(0), SUMS_OF_TILE(1), SUMS_OF_TILE(2), SUMS_OF_TILE(3)                                                     \
                  : "l"(a), "l"(b));                                                                                                       \
  }
DIFFMAMBA_WARPGROUP(bf16, "bf16")
DIFFMAMBA_WARPGROUP(f16, "f16")

/// Before the first product after a barrier: what was written to shared memory, by copies too, and to sums is seen by products.
__device__ __forceinline__ void begin_products() { ON_WARPGROUPS("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void close_products() { ON_WARPGROUPS("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// All products that were closed are done.
__device__ __forceinline__ void wait_products() { ON_WARPGROUPS("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
/// What this thread's copies have brought is seen by products that begin after a barrier.
__device__ __forceinline__ void show_to_products() { ON_WARPGROUPS("fence.proxy.async.shared::cta;" ::: "memory"); }
