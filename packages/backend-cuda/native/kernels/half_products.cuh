// Layer: CUDA kernels. Products on the tensor cores, m16n8k16 of bf16 or f16 with sums in f32, and how their fragments lie over a warp.
// Knows no layout of memory.
#pragma once

#include "common.cuh"

// Lane l of a warp is (row, pair) = (l / 4, l % 4). A fragment of a 16 x 16 factor A holds, in this order, the elements
// (row, 2 pair + {0, 1}), (row + 8, same), (row, 2 pair + {8, 9}), (row + 8, same); of a 16 x 8 factor B
// (2 pair + {0, 1}, row), (2 pair + {8, 9}, row); of a 16 x 8 sum (row, 2 pair + {0, 1}), (row + 8, same).

struct HalfA { uint32_t at[4]; };
struct HalfB { uint32_t at[2]; };

/// c (16, 8) += a (16, 16) b (16, 8).
template <typename T>
__device__ __forceinline__ void multiply(float (&c)[4], const HalfA& a, const HalfB& b);
template <>
__device__ __forceinline__ void multiply<bf16>(float (&c)[4], const HalfA& a, const HalfB& b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b.at[0]), "r"(b.at[1]));
}
template <>
__device__ __forceinline__ void multiply<f16>(float (&c)[4], const HalfA& a, const HalfB& b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b.at[0]), "r"(b.at[1]));
}
