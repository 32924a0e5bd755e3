// Layer: CUDA kernels. A kernel that starts before the one before it has ended: its launch says so (`overlap`), and it waits itself before
// it touches memory that others write. Between small kernels that is most of the time of a launch. Knows no kernel.
#pragma once

/// Until here nothing may be written, and read only by {@link prefetch_row}, or where the launch says that nobody writes it meanwhile: what
/// no launch of a recording was given so far (isUntouched of src/context.ts). After it everything is as with an ordinary launch.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The next kernel, where it is one of these, may start as soon as all blocks of this one have come here.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// Brings bytes into the L2 cache, whatever they are when they are read. Address and size are multiples of 16.
__device__ __forceinline__ void prefetch_row(const void* from, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#endif
}
