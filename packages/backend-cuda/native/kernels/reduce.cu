// Layer: CUDA kernels. Sums, greatest elements, argmax and running sums over axes, in an order that follows from sizes alone.
// Knows no shape rule.

#include "axes.cuh"

/// Sums of whole numbers are exact, modulo the type's range.
template <typename T>
struct Accumulator {
  typedef float type;
};
template <>
struct Accumulator<i32> {
  typedef i32 type;
};
template <>
struct Accumulator<u8> {
  typedef i32 type;
};

template <typename T>
__device__ __forceinline__ float widen(T x, float) { return to_float(x); }
__device__ __forceinline__ i32 widen(i32 x, i32) { return x; }
__device__ __forceinline__ i32 widen(u8 x, i32) { return x; }

template <typename T>
__device__ __forceinline__ T narrow(float x) { return from_float<T>(x); }
template <typename T>
__device__ __forceinline__ T narrow(i32 x) { return static_cast<T>(x); }

struct Sum {
  static __device__ __forceinline__ float zero(float) { return 0.0f; }
  static __device__ __forceinline__ i32 zero(i32) { return 0; }
  template <typename A>
  static __device__ __forceinline__ A join(A a, A b) { return a + b; }
};

struct Greatest {
  static __device__ __forceinline__ float zero(float) { return -INFINITY; }
  static __device__ __forceinline__ i32 zero(i32) { return INT32_MIN; }
  /// NaN counts as greatest: it must not get lost.
  static __device__ __forceinline__ float join(float a, float b) { return a != a ? a : b != b ? b : fmaxf(a, b); }
  static __device__ __forceinline__ i32 join(i32 a, i32 b) { return max(a, b); }
};

template <typename Op, typename A>
__device__ __forceinline__ A warp_join(A x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x = Op::join(x, __shfl_xor_sync(kFullMask, x, step));
  return x;
}

/// Joins elements from, from + step, … below `to` to `total`: along one axis several at a time, so that several loads are under way.
template <typename Op, typename T, typename A>
__device__ __forceinline__ A reduce_run(const T* __restrict__ x, const Axes<1>& reduced, int from, int to, int step, A total) {
  if (reduced.count == 1) {
    const long long stride = static_cast<long long>(reduced.strides[0][0]) * step;
    const T* at = x + static_cast<long long>(from) * reduced.strides[0][0];
    int i = from;
    for (; i + 7 * step < to; i += 8 * step, at += 8 * stride) {
      A eight[8];
#pragma unroll
      for (int u = 0; u < 8; u++) eight[u] = widen(at[u * stride], A());
#pragma unroll
      for (int u = 0; u < 8; u++) total = Op::join(total, eight[u]);
    }
    for (; i < to; i += step, at += stride) total = Op::join(total, widen(*at, A()));
    return total;
  }
  for (int i = from; i < to; i += step) {
    long long at[1];
    place(reduced, i, at);
    total = Op::join(total, widen(x[at[0]], A()));
  }
  return total;
}

/// One segment of the elements that go into each output, `team` threads (a power of two up to a warp, or a block) to an output:
/// for outputs whose elements lie one after the other. out (segments, outputs).
template <typename Op, typename T, typename O>
__device__ void reduce_rows(const T* x, O* out, const Axes<1>& kept, const Axes<1>& reduced, int outputs, int count,
                            int segment, int team) {
  typedef typename Accumulator<T>::type A;
  __shared__ A scratch[32];
  const int teams = blockDim.x / team;
  const int output = blockIdx.x * teams + threadIdx.x / team;
  const int member = threadIdx.x % team;
  A total = Op::zero(A());
  if (output < outputs) {
    long long base[1];
    place(kept, output, base);
    const int from = blockIdx.y * segment;
    const int to = min(count, from + segment);
    total = reduce_run<Op>(x + base[0], reduced, from + member, to, team, total);
  }
  if (team <= 32) {
    for (int step = team / 2; step > 0; step >>= 1) total = Op::join(total, __shfl_xor_sync(kFullMask, total, step));
  } else {
    total = warp_join<Op>(total);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = total;
    __syncthreads();
    total = threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : Op::zero(A());
    total = warp_join<Op>(total);
  }
  if (member == 0 && output < outputs) {
    out[static_cast<long long>(blockIdx.y) * outputs + output] = narrow<O>(total);
  }
}

/// The same with one thread to an output and 8 rows of threads that share its elements: for outputs that lie side by side.
template <typename Op, typename T, typename O>
__device__ void reduce_columns(const T* x, O* out, const Axes<1>& kept, const Axes<1>& reduced, int outputs, int count,
                               int segment) {
  typedef typename Accumulator<T>::type A;
  __shared__ A scratch[8][32];
  const int output = blockIdx.x * 32 + threadIdx.x;
  A total = Op::zero(A());
  if (output < outputs) {
    long long base[1];
    place(kept, output, base);
    const int from = blockIdx.y * segment;
    const int to = min(count, from + segment);
    total = reduce_run<Op>(x + base[0], reduced, from + threadIdx.y, to, 8, total);
  }
  scratch[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || output >= outputs) return;
#pragma unroll
  for (int i = 1; i < 8; i++) total = Op::join(total, scratch[i][threadIdx.x]);
  out[static_cast<long long>(blockIdx.y) * outputs + output] = narrow<O>(total);
}

#define DIFFMAMBA_REDUCE(NAME, T, O, SUFFIX, OP, FUNCTION)                                                            \
  extern "C" __global__ void __launch_bounds__(256) FUNCTION##_rows_##NAME##SUFFIX(                                   \
      const T* x, O* out, Axes<1> kept, Axes<1> reduced, int outputs, int count, int segment, int team) {             \
    reduce_rows<OP>(x, out, kept, reduced, outputs, count, segment, team);                                            \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) FUNCTION##_columns_##NAME##SUFFIX(                                \
      const T* x, O* out, Axes<1> kept, Axes<1> reduced, int outputs, int count, int segment) {                       \
    reduce_columns<OP>(x, out, kept, reduced, outputs, count, segment);                                               \
  }
// Segments of a longer sum stay in the accumulator's type: to f32 or i32, then from that to the output.
#define DIFFMAMBA_REDUCE_ALL(NAME, T, WIDE)                        \
  DIFFMAMBA_REDUCE(NAME, T, T, , Sum, sum)                         \
  DIFFMAMBA_REDUCE(NAME, T, T, , Greatest, max)                    \
  DIFFMAMBA_REDUCE(NAME, T, WIDE, _part, Sum, sum)                 \
  DIFFMAMBA_REDUCE(NAME, T, WIDE, _part, Greatest, max)            \
  DIFFMAMBA_REDUCE(NAME, WIDE, T, _whole, Sum, sum)                \
  DIFFMAMBA_REDUCE(NAME, WIDE, T, _whole, Greatest, max)
DIFFMAMBA_REDUCE_ALL(f32, f32, f32)
DIFFMAMBA_REDUCE_ALL(bf16, bf16, f32)
DIFFMAMBA_REDUCE_ALL(f16, f16, f32)
DIFFMAMBA_REDUCE_ALL(i32, i32, i32)
DIFFMAMBA_REDUCE_ALL(u8, u8, i32)

/// What elements are compared as: whole numbers exactly.
template <typename T>
struct Compared {
  typedef float type;
};
template <>
struct Compared<i32> {
  typedef double type;
};

/// Index of the first greatest element of each line; a block to a line. NaN is greater than nothing, as in JavaScript.
template <typename T>
__device__ void argmax_kernel(const T* x, i32* out, const Axes<2>& lines, int size, int step) {
  typedef typename Compared<T>::type Value;
  __shared__ Value best_value[32];
  __shared__ int best_index[32];
  long long at[2];
  place(lines, blockIdx.x, at);
  const T* const line = x + at[1];
  const auto element = [&](int i) {
    if constexpr (__is_same(T, i32)) return static_cast<Value>(line[static_cast<long long>(i) * step]);
    else return static_cast<Value>(to_float(line[static_cast<long long>(i) * step]));
  };
  Value value = -INFINITY;
  int index = 0x7fffffff;
#pragma unroll 8
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const Value y = element(i);
    if (y > value || (y == value && i < index)) {
      value = y;
      index = i;
    }
  }
  const auto join = [&](Value other, int where) {
    if (other > value || (other == value && where < index)) {
      value = other;
      index = where;
    }
  };
#pragma unroll
  for (int s = 16; s > 0; s >>= 1) {
    const Value other = __shfl_xor_sync(kFullMask, value, s);
    const int where = __shfl_xor_sync(kFullMask, index, s);
    join(other, where);
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (lane == 0) {
    best_value[warp] = value;
    best_index[warp] = index;
  }
  __syncthreads();
  if (warp != 0) return;
  value = lane < warps ? best_value[lane] : -INFINITY;
  index = lane < warps ? best_index[lane] : 0x7fffffff;
#pragma unroll
  for (int s = 16; s > 0; s >>= 1) {
    const Value other = __shfl_xor_sync(kFullMask, value, s);
    const int where = __shfl_xor_sync(kFullMask, index, s);
    join(other, where);
  }
  if (lane != 0) return;
  const Value first = element(0);
  out[at[0]] = first != first || index == 0x7fffffff ? 0 : index;
}

/// Running sums along lines, a block to a line: each thread sums a run of elements, the runs' sums are joined, then it goes again.
template <typename T>
__device__ void cumsum_kernel(const T* x, T* out, const Axes<2>& lines, int size, int step_in, int step_out, int reverse) {
  __shared__ float sums[32];
  long long at[2];
  place(lines, blockIdx.x, at);
  const T* const from = x + at[1];
  T* const to = out + at[0];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  float carried = 0.0f;
  for (int start = 0; start < size; start += blockDim.x) {
    const int i = start + threadIdx.x;
    const int t = reverse ? size - 1 - i : i;
    float sum = i < size ? to_float(from[static_cast<long long>(t) * step_in]) : 0.0f;
#pragma unroll
    for (int s = 1; s < 32; s <<= 1) {
      const float before = __shfl_up_sync(kFullMask, sum, s);
      if (lane >= s) sum += before;
    }
    if (lane == 31) sums[warp] = sum;
    __syncthreads();
    float before = carried;
    float all = carried;
    for (int w = 0; w < warps; w++) {
      if (w < warp) before += sums[w];
      all += sums[w];
    }
    if (i < size) to[static_cast<long long>(t) * step_out] = from_float<T>(before + sum);
    carried = all;
    __syncthreads();
  }
}

#define DIFFMAMBA_LINES(NAME, T)                                                                                     \
  extern "C" __global__ void argmax_##NAME(const T* x, i32* out, Axes<2> lines, int size, int step) {                \
    argmax_kernel(x, out, lines, size, step);                                                                        \
  }
DIFFMAMBA_TYPES(DIFFMAMBA_LINES)
#define DIFFMAMBA_CUMSUM(NAME, T)                                                                                    \
  extern "C" __global__ void cumsum_##NAME(const T* x, T* out, Axes<2> lines, int size, int step_in, int step_out,   \
                                           int reverse) {                                                            \
    cumsum_kernel(x, out, lines, size, step_in, step_out, reverse);                                                  \
  }
DIFFMAMBA_FLOATS(DIFFMAMBA_CUMSUM)
