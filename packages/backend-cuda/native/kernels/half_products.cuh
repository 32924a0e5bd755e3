// Layer: CUDA kernels. Products on the tensor cores, m16n8k16 of bf16 or f16 with sums in f32, how their fragments lie over a warp, and how
// they come from tiles in shared memory. Knows no layout of other memory.
#pragma once

#include "copies.cuh"

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

// ---- fragments of tiles in shared memory, whose rows are `wide` elements apart ----

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/// A from rows of m: tile[m][k].
template <typename T>
__device__ __forceinline__ void load_a(HalfA& a, const T* tile, int wide) {
  const int lane = threadIdx.x % 32;
  load_matrices(a.at, tile + (lane % 16) * wide + lane / 16 * 8);
}
/// A from rows of k: tile[k][m].
template <typename T>
__device__ __forceinline__ void load_a_transposed(HalfA& a, const T* tile, int wide) {
  const int lane = threadIdx.x % 32;
  load_matrices_transposed(a.at, tile + (lane % 8 + lane / 16 * 8) * wide + lane / 8 % 2 * 8);
}
/// Two B, for 16 columns, from rows of n: tile[n][k].
template <typename T>
__device__ __forceinline__ void load_b(HalfB (&b)[2], const T* tile, int wide) {
  const int lane = threadIdx.x % 32;
  uint32_t r[4];
  load_matrices(r, tile + (lane % 8 + lane / 16 * 8) * wide + lane / 8 % 2 * 8);
  b[0].at[0] = r[0];
  b[0].at[1] = r[1];
  b[1].at[0] = r[2];
  b[1].at[1] = r[3];
}
/// Two B, for 16 columns, from rows of k: tile[k][n].
template <typename T>
__device__ __forceinline__ void load_b_transposed(HalfB (&b)[2], const T* tile, int wide) {
  const int lane = threadIdx.x % 32;
  uint32_t r[4];
  load_matrices_transposed(r, tile + (lane % 16) * wide + lane / 16 * 8);
  b[0].at[0] = r[0];
  b[0].at[1] = r[1];
  b[1].at[0] = r[2];
  b[1].at[1] = r[3];
}
