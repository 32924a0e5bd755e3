// Layer: CUDA kernels. unary, binary, compare, where, copy, fill, iota: any strides, 16 bytes a thread where memory allows it.
// The numbers of the ops are those of src/kernels/elementwise.ts. Knows no shape rule.

#include "axes.cuh"
#include "overlap.cuh"

// ---- conversions, as a typed array of JavaScript does them ----

template <typename To, typename From>
__device__ __forceinline__ To convert(From x) {
  if constexpr (sizeof(To) == sizeof(From) && __is_same(To, From)) {
    return x;
  } else if constexpr (__is_same(To, i32) || __is_same(To, u8)) {
    if constexpr (__is_same(From, i32) || __is_same(From, u8)) {
      return static_cast<To>(x);
    } else {
      const float f = to_float(x);
      // Rounded towards zero, modulo the type's range; what is no number is 0.
      return isfinite(f) ? static_cast<To>(static_cast<long long>(f)) : static_cast<To>(0);
    }
  } else {
    return from_float<To>(to_float(x));
  }
}

template <typename T>
constexpr bool kIsWhole = __is_same(T, i32) || __is_same(T, u8);

// ---- functions ----

enum Unary { kNeg, kAbs, kSign, kExp, kLog, kSqrt, kRsqrt, kSquare, kReciprocal, kSigmoid, kTanh, kSoftplus, kSilu, kErf };

template <int OP>
__device__ __forceinline__ float unary(float x) {
  switch (OP) {
    case kNeg: return -x;
    case kAbs: return fabsf(x);
    case kSign: return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x;
    case kExp: return expf(x);
    case kLog: return logf(x);
    case kSqrt: return sqrtf(x);
    case kRsqrt: return 1.0f / sqrtf(x);
    case kSquare: return x * x;
    case kReciprocal: return 1.0f / x;
    case kSigmoid: return 1.0f / (1.0f + expf(-x));
    case kTanh: return tanhf(x);
    case kSoftplus: return x + log1pf(expf(-fabsf(x))) - fminf(x, 0.0f);
    case kSilu: return x == -INFINITY ? 0.0f : x / (1.0f + expf(-x));
    default: return erff(x);
  }
}

enum Binary { kAdd, kSub, kMul, kDiv, kMax, kMin, kPow };

/// NaN is not lost, as in Math.max and Math.min.
__device__ __forceinline__ float greater(float a, float b) { return a != a || b != b ? NAN : fmaxf(a, b); }
__device__ __forceinline__ float lesser(float a, float b) { return a != a || b != b ? NAN : fminf(a, b); }

template <int OP>
__device__ __forceinline__ float binary(float a, float b) {
  switch (OP) {
    case kAdd: return a + b;
    case kSub: return a - b;
    case kMul: return a * b;
    case kDiv: return a / b;
    case kMax: return greater(a, b);
    case kMin: return lesser(a, b);
    // JavaScript: 1 to the power of NaN or of infinity is NaN.
    default: return fabsf(a) == 1.0f && !isfinite(b) ? NAN : powf(a, b);
  }
}

template <int OP>
__device__ __forceinline__ i32 binary(i32 a, i32 b) {
  switch (OP) {
    case kAdd: return static_cast<i32>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
    case kSub: return static_cast<i32>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
    case kMul: return static_cast<i32>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
    case kDiv: return b == 0 ? 0 : static_cast<i32>(static_cast<long long>(a) / b);
    case kMax: return max(a, b);
    case kMin: return min(a, b);
    default: {
      const double power = pow(static_cast<double>(a), static_cast<double>(b));
      return isfinite(power) && fabs(power) < 9e18 ? static_cast<i32>(static_cast<long long>(power)) : 0;
    }
  }
}

// ---- loops ----

template <int OP, int V, typename T>
__device__ __forceinline__ void unary_loop(const T* x, T* out, bool steps) {
  T a[V];
  fetch<V>(x, steps, a);
#pragma unroll
  for (int i = 0; i < V; i++) a[i] = from_float<T>(unary<OP>(to_float(a[i])));
  put<V>(out, a);
}

template <int V, typename T>
__device__ __forceinline__ void unary_kernel(const T* x, T* out, const Axes<2>& axes, int items, int op) {
  let_next_start();
  wait_for_previous();
  const int item = blockIdx.x * blockDim.x + threadIdx.x;
  if (item >= items) return;
  long long at[2];
  place(axes, item, at);
  const bool steps = axes.strides[1][0] != 0;
  x += at[1];
  out += at[0];
  switch (op) {
#define DIFFMAMBA_CASE(OP) \
  case OP: unary_loop<OP, V>(x, out, steps); break;
    DIFFMAMBA_CASE(kNeg) DIFFMAMBA_CASE(kAbs) DIFFMAMBA_CASE(kSign) DIFFMAMBA_CASE(kExp) DIFFMAMBA_CASE(kLog)
    DIFFMAMBA_CASE(kSqrt) DIFFMAMBA_CASE(kRsqrt) DIFFMAMBA_CASE(kSquare) DIFFMAMBA_CASE(kReciprocal)
    DIFFMAMBA_CASE(kSigmoid) DIFFMAMBA_CASE(kTanh) DIFFMAMBA_CASE(kSoftplus) DIFFMAMBA_CASE(kSilu)
    DIFFMAMBA_CASE(kErf)
#undef DIFFMAMBA_CASE
  }
}

template <int OP, int V, typename T>
__device__ __forceinline__ void binary_loop(const T (&a)[V], const T (&b)[V], T* out) {
  T c[V];
#pragma unroll
  for (int i = 0; i < V; i++) {
    if constexpr (kIsWhole<T>) c[i] = static_cast<T>(binary<OP>(static_cast<i32>(a[i]), static_cast<i32>(b[i])));
    else c[i] = from_float<T>(binary<OP>(to_float(a[i]), to_float(b[i])));
  }
  put<V>(out, c);
}

template <int V, typename T>
__device__ __forceinline__ void binary_kernel(const T* a, const T* b, T* out, const Axes<3>& axes, int items, int op) {
  let_next_start();
  wait_for_previous();
  const int item = blockIdx.x * blockDim.x + threadIdx.x;
  if (item >= items) return;
  long long at[3];
  place(axes, item, at);
  T x[V], y[V];
  fetch<V>(a + at[1], axes.strides[1][0] != 0, x);
  fetch<V>(b + at[2], axes.strides[2][0] != 0, y);
  out += at[0];
  switch (op) {
#define DIFFMAMBA_CASE(OP) \
  case OP: binary_loop<OP, V>(x, y, out); break;
    DIFFMAMBA_CASE(kAdd) DIFFMAMBA_CASE(kSub) DIFFMAMBA_CASE(kMul) DIFFMAMBA_CASE(kDiv) DIFFMAMBA_CASE(kMax)
    DIFFMAMBA_CASE(kMin) DIFFMAMBA_CASE(kPow)
#undef DIFFMAMBA_CASE
  }
}

enum Compare { kEqual, kLess, kLessOrEqual };

template <int V, typename T>
__device__ __forceinline__ void compare_kernel(const T* a, const T* b, u8* out, const Axes<3>& axes, int items, int op) {
  let_next_start();
  wait_for_previous();
  const int item = blockIdx.x * blockDim.x + threadIdx.x;
  if (item >= items) return;
  long long at[3];
  place(axes, item, at);
  T x[V], y[V];
  fetch<V>(a + at[1], axes.strides[1][0] != 0, x);
  fetch<V>(b + at[2], axes.strides[2][0] != 0, y);
  u8 z[V];
#pragma unroll
  for (int i = 0; i < V; i++) {
    if constexpr (kIsWhole<T>) z[i] = op == kEqual ? x[i] == y[i] : op == kLess ? x[i] < y[i] : x[i] <= y[i];
    else {
      const float p = to_float(x[i]), q = to_float(y[i]);
      z[i] = op == kEqual ? p == q : op == kLess ? p < q : p <= q;
    }
  }
  put<V>(out + at[0], z);
}

/// Only moves bits: T is any type of that size.
template <int V, typename T>
__device__ __forceinline__ void where_kernel(const u8* cond, const T* a, const T* b, T* out, const Axes<4>& axes,
                                             int items) {
  let_next_start();
  wait_for_previous();
  const int item = blockIdx.x * blockDim.x + threadIdx.x;
  if (item >= items) return;
  long long at[4];
  place(axes, item, at);
  u8 c[V];
  T x[V], y[V];
  fetch<V>(cond + at[1], axes.strides[1][0] != 0, c);
  fetch<V>(a + at[2], axes.strides[2][0] != 0, x);
  fetch<V>(b + at[3], axes.strides[3][0] != 0, y);
#pragma unroll
  for (int i = 0; i < V; i++) x[i] = c[i] != 0 ? x[i] : y[i];
  put<V>(out + at[0], x);
}

template <int V, typename From, typename To>
__device__ __forceinline__ void copy_kernel(const From* x, To* out, const Axes<2>& axes, int items) {
  let_next_start();
  wait_for_previous();
  const int item = blockIdx.x * blockDim.x + threadIdx.x;
  if (item >= items) return;
  long long at[2];
  place(axes, item, at);
  From a[V];
  To b[V];
  fetch<V>(x + at[1], axes.strides[1][0] != 0, a);
#pragma unroll
  for (int i = 0; i < V; i++) b[i] = convert<To>(a[i]);
  put<V>(out + at[0], b);
}

template <int V, typename T>
__device__ __forceinline__ void fill_kernel(T* out, const Axes<1>& axes, int items, int bits) {
  let_next_start();
  wait_for_previous();
  const int item = blockIdx.x * blockDim.x + threadIdx.x;
  if (item >= items) return;
  long long at[1];
  place(axes, item, at);
  T a[V];
#pragma unroll
  for (int i = 0; i < V; i++) a[i] = static_cast<T>(bits);
  put<V>(out + at[0], a);
}

#define DIFFMAMBA_UNARY(NAME, T, V)                                                                          \
  extern "C" __global__ void unary_##NAME##_v##V(const T* x, T* out, Axes<2> axes, int items, int op) {      \
    unary_kernel<V>(x, out, axes, items, op);                                                                \
  }
DIFFMAMBA_UNARY(f32, f32, 4) DIFFMAMBA_UNARY(bf16, bf16, 8) DIFFMAMBA_UNARY(f16, f16, 8)
DIFFMAMBA_UNARY(f32, f32, 1) DIFFMAMBA_UNARY(bf16, bf16, 1) DIFFMAMBA_UNARY(f16, f16, 1)

#define DIFFMAMBA_BINARY(NAME, T, V)                                                                                \
  extern "C" __global__ void binary_##NAME##_v##V(const T* a, const T* b, T* out, Axes<3> axes, int items, int op) { \
    binary_kernel<V>(a, b, out, axes, items, op);                                                                   \
  }                                                                                                                 \
  extern "C" __global__ void compare_##NAME##_v##V(const T* a, const T* b, u8* out, Axes<3> axes, int items,        \
                                                   int op) {                                                        \
    compare_kernel<V>(a, b, out, axes, items, op);                                                                  \
  }
DIFFMAMBA_BINARY(f32, f32, 4) DIFFMAMBA_BINARY(bf16, bf16, 8) DIFFMAMBA_BINARY(f16, f16, 8)
DIFFMAMBA_BINARY(i32, i32, 4) DIFFMAMBA_BINARY(u8, u8, 16)
DIFFMAMBA_BINARY(f32, f32, 1) DIFFMAMBA_BINARY(bf16, bf16, 1) DIFFMAMBA_BINARY(f16, f16, 1)
DIFFMAMBA_BINARY(i32, i32, 1) DIFFMAMBA_BINARY(u8, u8, 1)

#define DIFFMAMBA_BITS(NAME, T, V)                                                                                  \
  extern "C" __global__ void where_##NAME##_v##V(const u8* cond, const T* a, const T* b, T* out, Axes<4> axes,      \
                                                 int items) {                                                       \
    where_kernel<V>(cond, a, b, out, axes, items);                                                                  \
  }                                                                                                                 \
  extern "C" __global__ void copy_##NAME##_v##V(const T* x, T* out, Axes<2> axes, int items) {                      \
    copy_kernel<V>(x, out, axes, items);                                                                            \
  }                                                                                                                 \
  extern "C" __global__ void fill_##NAME##_v##V(T* out, Axes<1> axes, int items, int bits) {                        \
    fill_kernel<V>(out, axes, items, bits);                                                                         \
  }
DIFFMAMBA_BITS(bits32, i32, 4) DIFFMAMBA_BITS(bits16, int16_t, 8) DIFFMAMBA_BITS(bits8, u8, 16)
DIFFMAMBA_BITS(bits32, i32, 1) DIFFMAMBA_BITS(bits16, int16_t, 1) DIFFMAMBA_BITS(bits8, u8, 1)

#define DIFFMAMBA_CONVERT(FROM, TO, V)                                                                              \
  extern "C" __global__ void copy_##FROM##_##TO##_v##V(const FROM* x, TO* out, Axes<2> axes, int items) {           \
    copy_kernel<V>(x, out, axes, items);                                                                            \
  }
#define DIFFMAMBA_CONVERT_BOTH(A, B, V) \
  DIFFMAMBA_CONVERT(A, B, V) DIFFMAMBA_CONVERT(B, A, V) DIFFMAMBA_CONVERT(A, B, 1) DIFFMAMBA_CONVERT(B, A, 1)
DIFFMAMBA_CONVERT_BOTH(f32, bf16, 4) DIFFMAMBA_CONVERT_BOTH(f32, f16, 4) DIFFMAMBA_CONVERT_BOTH(bf16, f16, 8)
DIFFMAMBA_CONVERT_BOTH(i32, f32, 4) DIFFMAMBA_CONVERT_BOTH(i32, bf16, 4) DIFFMAMBA_CONVERT_BOTH(i32, f16, 4)
DIFFMAMBA_CONVERT_BOTH(u8, f32, 4) DIFFMAMBA_CONVERT_BOTH(u8, bf16, 8) DIFFMAMBA_CONVERT_BOTH(u8, f16, 8)
DIFFMAMBA_CONVERT_BOTH(u8, i32, 4)

extern "C" __global__ void iota(i32* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = i;
}

/// Numbers that came as parameters: how tables reach the device in the order of the kernels, also in a recording.
struct TablePart {
  long long at[496];
};

extern "C" __global__ void store_table(long long* out, long long count, TablePart part) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = part.at[i];
}
