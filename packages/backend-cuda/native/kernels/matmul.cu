// Layer: CUDA kernels. Matrix products of our own: for few rows, as fast as the weights can be read; and in tiles, on tensor cores for
// bf16 and f16, where cuBLASLt is absent or refuses. Sums are f32, in an order that follows from the shape.
// Knows no batching beyond one step from matrix to matrix.

#include <mma.h>
#include <type_traits>

#include "common.cuh"
#include "overlap.cuh"

/// A row of `out`, in its own type or in f32.
template <typename T>
__device__ __forceinline__ void write_out(void* out, long long at, float x, int out_f32, int accumulate) {
  if (out_f32) {
    float* const to = static_cast<float*>(out) + at;
    *to = accumulate ? *to + x : x;
  } else {
    T* const to = static_cast<T*>(out) + at;
    *to = from_float<T>(accumulate ? to_float(*to) + x : x);
  }
}

// ---- few rows ----

/// out (m, n) = a (m, k) b', where b (n, k) has contiguous rows: a warp to R columns of out, up to M rows of it. All rows are aligned
/// to 16 bytes and k is a multiple of their vectors.
template <typename T, int M, int R>
__device__ __forceinline__ void skinny(const T* __restrict__ a, const T* __restrict__ b, void* out, int m, int n, int k,
                                       int a_pitch, int b_pitch, int out_pitch, int accumulate, int out_f32) {
  constexpr int V = kVector<T>;
  // Loads of each row that are under way at once.
  constexpr int AHEAD = R == 1 ? 8 : 4;
  const int lane = threadIdx.x % 32;
  const int first = (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * R;
  let_next_start();
  if (first >= n) return;
  const T* rows[R];
#pragma unroll
  for (int r = 0; r < R; r++) {
    rows[r] = b + static_cast<long long>(min(first + r, n - 1)) * b_pitch;
    if (lane == r) prefetch_row(rows[r], k * static_cast<int>(sizeof(T)));
  }
  wait_for_previous();
  const T* left[M];
#pragma unroll
  for (int i = 0; i < M; i++) left[i] = a + static_cast<long long>(min(i, m - 1)) * a_pitch;
  float sum[M][R];
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int r = 0; r < R; r++) sum[i][r] = 0.0f;
  for (int start = lane * V; start < k; start += AHEAD * 32 * V) {
    Vector<T, V> w[AHEAD][R];
#pragma unroll
    for (int u = 0; u < AHEAD; u++)
#pragma unroll
      for (int r = 0; r < R; r++) {
        const int at = start + u * 32 * V;
        if (at < k) w[u][r] = *reinterpret_cast<const Vector<T, V>*>(rows[r] + at);
      }
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      const int at = start + u * 32 * V;
      if (at >= k) break;
#pragma unroll
      for (int i = 0; i < M; i++) {
        float x[V];
        load<V>(left[i] + at, x);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
          for (int v = 0; v < V; v++) sum[i][r] = fmaf(x[v], to_float(w[u][r].at[v]), sum[i][r]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int r = 0; r < R; r++) sum[i][r] = warp_sum(sum[i][r]);
  if (lane != 0) return;
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int r = 0; r < R; r++)
      if (i < m && first + r < n)
        write_out<T>(out, static_cast<long long>(i) * out_pitch + first + r, sum[i][r], out_f32, accumulate);
}

#define DIFFMAMBA_SKINNY(NAME, T, M, R)                                                                               \
  extern "C" __global__ void __launch_bounds__(128) matmul_skinny##M##x##R##_##NAME(                                  \
      const T* a, const T* b, void* out, int m, int n, int k, int a_pitch, int b_pitch, int out_pitch, int accumulate, \
      int out_f32) {                                                                                                  \
    skinny<T, M, R>(a, b, out, m, n, k, a_pitch, b_pitch, out_pitch, accumulate, out_f32);                            \
  }
#define DIFFMAMBA_SKINNY_ALL(NAME, T)                                                                                 \
  DIFFMAMBA_SKINNY(NAME, T, 1, 1) DIFFMAMBA_SKINNY(NAME, T, 1, 2) DIFFMAMBA_SKINNY(NAME, T, 2, 1)                     \
  DIFFMAMBA_SKINNY(NAME, T, 2, 2) DIFFMAMBA_SKINNY(NAME, T, 4, 2) DIFFMAMBA_SKINNY(NAME, T, 8, 2)
DIFFMAMBA_FLOATS(DIFFMAMBA_SKINNY_ALL)

// ---- tiles ----

/// A matrix as the host describes it: `transposed` where the contiguous axis is the first one.
struct Matrix {
  long long pitch;
  long long step;
  int transposed;
  /// Whether vectors of 16 bytes may be read.
  int vectors;
};

/// A piece of a matrix, OUTER lines of INNER contiguous elements, zero where the matrix ends, from memory to registers and on to
/// shared memory, whose lines have PITCH elements. 256 threads.
template <typename T, int OUTER, int INNER, int PITCH>
struct Piece {
  static constexpr int V = kVector<T>;
  static constexpr int COUNT = OUTER * INNER / V / 256;
  Vector<T, V> held[COUNT];

  __device__ __forceinline__ void read(const T* from, long long pitch, int outer, int inner, int vectors) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      const int item = i * 256 + threadIdx.x;
      const int o = item / (INNER / V), c = item % (INNER / V) * V;
      const T* const at = from + o * pitch + c;
      if (o < outer && c + V <= inner && vectors) {
        held[i] = *reinterpret_cast<const Vector<T, V>*>(at);
      } else {
#pragma unroll
        for (int v = 0; v < V; v++) held[i].at[v] = o < outer && c + v < inner ? at[v] : from_float<T>(0.0f);
      }
    }
  }

  __device__ __forceinline__ void write(T* to) const {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      const int item = i * 256 + threadIdx.x;
      const int o = item / (INNER / V), c = item % (INNER / V) * V;
      *reinterpret_cast<Vector<T, V>*>(to + o * PITCH + c) = held[i];
    }
  }
};

/// Tiles of 128 x 128 on tensor cores, 8 warps of 64 x 32, 32 deep, the next piece being read while one is multiplied.
template <typename T, typename Wmma, bool TA, bool TB>
__device__ void tensor_tile(const T* a, const T* b, void* out, int m, int n, int k, Matrix am, Matrix bm,
                            long long out_pitch, long long out_step, int accumulate, int out_f32) {
  using namespace nvcuda;
  constexpr int BM = 128, BN = 128, BK = 32, PAD = 8;
  constexpr int A_PITCH = (TA ? BM : BK) + PAD, B_PITCH = (TB ? BK : BN) + PAD;
  __shared__ alignas(32) T as[(TA ? BK : BM) * A_PITCH];
  __shared__ alignas(32) T bs[(TB ? BN : BK) * B_PITCH];
  __shared__ alignas(32) float patch[8][16 * 20];
  const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int wm = warp / 4 * 64, wn = warp % 4 * 32;
  a += blockIdx.z * am.step;
  b += blockIdx.z * bm.step;

  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[4][2];
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 2; j++) wmma::fill_fragment(sums[i][j], 0.0f);

  Piece<T, TA ? BK : BM, TA ? BM : BK, A_PITCH> ap;
  Piece<T, TB ? BN : BK, TB ? BK : BN, B_PITCH> bp;
  const auto read = [&](int k0) {
    if (TA) ap.read(a + k0 * am.pitch + row0, am.pitch, k - k0, m - row0, am.vectors);
    else ap.read(a + row0 * am.pitch + k0, am.pitch, m - row0, k - k0, am.vectors);
    if (TB) bp.read(b + column0 * bm.pitch + k0, bm.pitch, n - column0, k - k0, bm.vectors);
    else bp.read(b + k0 * bm.pitch + column0, bm.pitch, k - k0, n - column0, bm.vectors);
  };
  read(0);
  for (int k0 = 0; k0 < k; k0 += BK) {
    __syncthreads();
    ap.write(as);
    bp.write(bs);
    __syncthreads();
    if (k0 + BK < k) read(k0 + BK);
    typedef typename std::conditional<TA, wmma::col_major, wmma::row_major>::type ALayout;
    typedef typename std::conditional<TB, wmma::col_major, wmma::row_major>::type BLayout;
#pragma unroll
    for (int kk = 0; kk < BK; kk += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, Wmma, ALayout> af[4];
      wmma::fragment<wmma::matrix_b, 16, 16, 16, Wmma, BLayout> bf[2];
#pragma unroll
      for (int i = 0; i < 4; i++)
        wmma::load_matrix_sync(af[i], as + (TA ? kk * A_PITCH + wm + 16 * i : (wm + 16 * i) * A_PITCH + kk), A_PITCH);
#pragma unroll
      for (int j = 0; j < 2; j++)
        wmma::load_matrix_sync(bf[j], bs + (TB ? (wn + 16 * j) * B_PITCH + kk : kk * B_PITCH + wn + 16 * j), B_PITCH);
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) wmma::mma_sync(sums[i][j], af[i], bf[j], sums[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 2; j++) {
      __syncwarp();
      wmma::store_matrix_sync(patch[warp], sums[i][j], 20, wmma::mem_row_major);
      __syncwarp();
#pragma unroll
      for (int e = lane; e < 256; e += 32) {
        const int row = row0 + wm + 16 * i + e / 16, column = column0 + wn + 16 * j + e % 16;
        if (row < m && column < n)
          write_out<T>(out, blockIdx.z * out_step + row * out_pitch + column, patch[warp][e / 16 * 20 + e % 16], out_f32,
                       accumulate);
      }
    }
}

/// Tiles of 64 x 64 with the arithmetic of f32, 4 x 4 to a thread, 16 deep.
template <bool TA, bool TB>
__device__ void float_tile(const float* a, const float* b, float* out, int m, int n, int k, Matrix am, Matrix bm,
                           long long out_pitch, long long out_step, int accumulate) {
  constexpr int BM = 64, BN = 64, BK = 16, PAD = 4;
  constexpr int A_PITCH = (TA ? BM : BK) + PAD, B_PITCH = (TB ? BK : BN) + PAD;
  __shared__ alignas(16) float as[(TA ? BK : BM) * A_PITCH];
  __shared__ alignas(16) float bs[(TB ? BN : BK) * B_PITCH];
  const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
  a += blockIdx.z * am.step;
  b += blockIdx.z * bm.step;
  float sums[4][4] = {};
  Piece<float, TA ? BK : BM, TA ? BM : BK, A_PITCH> ap;
  Piece<float, TB ? BN : BK, TB ? BK : BN, B_PITCH> bp;
  const auto read = [&](int k0) {
    if (TA) ap.read(a + k0 * am.pitch + row0, am.pitch, k - k0, m - row0, am.vectors);
    else ap.read(a + row0 * am.pitch + k0, am.pitch, m - row0, k - k0, am.vectors);
    if (TB) bp.read(b + column0 * bm.pitch + k0, bm.pitch, n - column0, k - k0, bm.vectors);
    else bp.read(b + k0 * bm.pitch + column0, bm.pitch, k - k0, n - column0, bm.vectors);
  };
  read(0);
  for (int k0 = 0; k0 < k; k0 += BK) {
    __syncthreads();
    ap.write(as);
    bp.write(bs);
    __syncthreads();
    if (k0 + BK < k) read(k0 + BK);
#pragma unroll
    for (int kk = 0; kk < BK; kk++) {
      float x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; i++) x[i] = TA ? as[kk * A_PITCH + ty + 16 * i] : as[(ty + 16 * i) * A_PITCH + kk];
#pragma unroll
      for (int j = 0; j < 4; j++) y[j] = TB ? bs[(tx + 16 * j) * B_PITCH + kk] : bs[kk * B_PITCH + tx + 16 * j];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = fmaf(x[i], y[j], sums[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int row = row0 + ty + 16 * i, column = column0 + tx + 16 * j;
      if (row < m && column < n)
        write_out<float>(out, blockIdx.z * out_step + row * out_pitch + column, sums[i][j], 1, accumulate);
    }
}

#define DIFFMAMBA_TENSOR(NAME, T, TA, TB)                                                                             \
  extern "C" __global__ void __launch_bounds__(256) matmul_##TA##TB##_##NAME(                                         \
      const T* a, const T* b, void* out, int m, int n, int k, Matrix am, Matrix bm, long long out_pitch,              \
      long long out_step, int accumulate, int out_f32) {                                                              \
    tensor_tile<T, T, TA, TB>(a, b, out, m, n, k, am, bm, out_pitch, out_step, accumulate, out_f32);                  \
  }
#define DIFFMAMBA_FLOAT(TA, TB)                                                                                       \
  extern "C" __global__ void __launch_bounds__(256) matmul_##TA##TB##_f32(                                            \
      const float* a, const float* b, float* out, int m, int n, int k, Matrix am, Matrix bm, long long out_pitch,     \
      long long out_step, int accumulate, int) {                                                                      \
    float_tile<TA, TB>(a, b, out, m, n, k, am, bm, out_pitch, out_step, accumulate);                                  \
  }
#define DIFFMAMBA_FORMS(TA, TB) \
  DIFFMAMBA_TENSOR(bf16, bf16, TA, TB) DIFFMAMBA_TENSOR(f16, f16, TA, TB) DIFFMAMBA_FLOAT(TA, TB)
DIFFMAMBA_FORMS(0, 0) DIFFMAMBA_FORMS(0, 1) DIFFMAMBA_FORMS(1, 0) DIFFMAMBA_FORMS(1, 1)
