// Layer: CUDA kernels. Copies from global to shared memory that are enqueued, and waited for by groups; how lines lie there; what is brought
// nearer. Knows no tile.
#pragma once

#include "common.cuh"

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// Enqueues a copy of 16 bytes, of which `bytes` are read and the rest is 0.
__device__ __forceinline__ void copy_16(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}
__device__ __forceinline__ void prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

/// Of lines of N elements in shared memory, vectors of 16 bytes whose order differs from line to line: a column of vectors is in all banks.
template <typename T, int N>
__device__ __forceinline__ T* swizzled(T* lines, int line, int vector) {
  return lines + line * N + (vector ^ (line & 7)) * 8;
}
