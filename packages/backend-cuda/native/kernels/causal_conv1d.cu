// Layer: CUDA kernels. The causal depthwise convolution with SiLU and its gradient, with state, packing and padding. A thread slides
// over a piece of time with its channels' last inputs in registers. Formulas: the reference. seqIdx never decreases, so two tokens are
// of one sequence where it is the same. Knows no shape rule.

#include "conv_step.cuh"
#include "overlap.cuh"

__device__ __forceinline__ int end_of(const i32* lengths, int b, int length) {
  return lengths == nullptr ? length : min(max(lengths[b], 0), length);
}

/// The input at position p of row b as token t's sequence sees it: p may lie before the row, in the initial state.
template <int V, typename T>
__device__ __forceinline__ void input_at(const T* x, const float* initial, const i32* seq, const Conv& conv, int b, int p,
                                         int own, int c, float (&to)[V]) {
  const bool same = seq == nullptr || seq[static_cast<long long>(b) * conv.length + max(p, 0)] == own;
#pragma unroll
  for (int v = 0; v < V; v++) to[v] = 0.0f;
  if (!same) return;
  if (p >= 0) {
    load<V>(x + (static_cast<long long>(b) * conv.length + p) * conv.x_pitch + c, to);
  } else if (initial != nullptr && conv.width + p >= 0) {
#pragma unroll
    for (int v = 0; v < V; v++)
      to[v] = initial[(static_cast<long long>(b) * conv.channels + c + v) * conv.width + conv.width + p];
  }
}

/// The weights of V channels, w[k][v], and their bias: in vectors where there are any, as the host has seen that they are aligned.
template <int W, int V, typename T>
__device__ __forceinline__ void load_filter(const T* weight, const T* bias, int c, float (&w)[W][V], float (&first)[V]) {
#pragma unroll
  for (int j = 0; j < W; j++) {
    float part[V];
    load<V>(weight + static_cast<long long>(c) * W + j * V, part);
#pragma unroll
    for (int i = 0; i < V; i++) w[(j * V + i) % W][(j * V + i) / W] = part[i];
  }
#pragma unroll
  for (int v = 0; v < V; v++) first[v] = 0.0f;
  if (bias != nullptr) load<V>(bias + c, first);
}

/// Tokens [t0, t0 + TOKENS) of V channels. Block: 32 threads of channels, several pieces of time.
template <int W, int V, int TOKENS, bool PACKED, typename T>
__device__ __forceinline__ void conv_forward(const T* __restrict__ x, const T* __restrict__ weight,
                                             const T* __restrict__ bias, const float* __restrict__ initial,
                                             const i32* __restrict__ seq, const i32* __restrict__ lengths,
                                             T* __restrict__ y, const Conv& conv) {
  const int c = (blockIdx.x * 32 + threadIdx.x) * V;
  const int t0 = (blockIdx.y * blockDim.y + threadIdx.y) * TOKENS;
  const int b = blockIdx.z;
  if (c >= conv.channels || t0 >= conv.length) return;
  const int end = end_of(lengths, b, conv.length);
  float w[W][V], first[V];
  load_filter<W, V>(weight, bias, c, w, first);
  const long long row = static_cast<long long>(b) * conv.length;
  // The inputs of GROUP tokens, which are under way together, after the W - 1 before them.
  constexpr int GROUP = 4;
  Vector<T, V> ahead[GROUP];
  const auto fetch = [&](int t) {
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
      const long long at = (row + min(t + i, conv.length - 1)) * conv.x_pitch + c;
      ahead[i] = *reinterpret_cast<const Vector<T, V>*>(x + at);
    }
  };
  fetch(t0);
  float window[W][V];
#pragma unroll
  for (int k = 0; k < W - 1; k++) {
    // Whether a token sees it is asked for each token; here it is what it is.
    input_at<V>(x, initial, nullptr, conv, b, t0 - (W - 1) + k, 0, c, window[k]);
  }
#pragma unroll 1
  for (int group = 0; group < TOKENS; group += GROUP) {
    Vector<T, V> now[GROUP];
#pragma unroll
    for (int i = 0; i < GROUP; i++) now[i] = ahead[i];
    if (group + GROUP < TOKENS) fetch(t0 + group + GROUP);
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
      const int t = t0 + group + i;
      if (t >= conv.length) return;
      float s[V];
#pragma unroll
      for (int v = 0; v < V; v++) {
        window[W - 1][v] = to_float(now[i].at[v]);
        s[v] = first[v];
      }
      if (!PACKED) {
#pragma unroll
        for (int k = 0; k < W; k++)
#pragma unroll
          for (int v = 0; v < V; v++) s[v] = fmaf(w[k][v], window[k][v], s[v]);
      } else {
        const i32 own = seq[row + t];
#pragma unroll
        for (int k = 0; k < W; k++) {
          const bool same = seq[row + max(t - (W - 1) + k, 0)] == own;
#pragma unroll
          for (int v = 0; v < V; v++) s[v] = same ? fmaf(w[k][v], window[k][v], s[v]) : s[v];
        }
      }
      if (conv.silu) {
#pragma unroll
        for (int v = 0; v < V; v++) s[v] = quick_silu(s[v]);
      }
      if (t >= end) {
#pragma unroll
        for (int v = 0; v < V; v++) s[v] = 0.0f;
      }
      store<V>(y + (row + t) * conv.y_pitch + c, s);
#pragma unroll
      for (int k = 0; k < W - 1; k++)
#pragma unroll
        for (int v = 0; v < V; v++) window[k][v] = window[k + 1][v];
    }
  }
}

/// The same for any width: a thread to an element.
template <typename T>
__device__ __forceinline__ void conv_forward_any(const T* x, const T* weight, const T* bias, const float* initial,
                                                 const i32* seq, const i32* lengths, T* y, const Conv& conv) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y, b = blockIdx.z;
  if (c >= conv.channels) return;
  const long long row = static_cast<long long>(b) * conv.length;
  const i32 own = seq != nullptr ? seq[row + t] : 0;
  float s = bias != nullptr ? to_float(bias[c]) : 0.0f;
  for (int k = 0; k < conv.width; k++) {
    float in[1];
    input_at<1>(x, initial, seq, conv, b, t - conv.width + 1 + k, own, c, in);
    s = fmaf(to_float(weight[c * conv.width + k]), in[0], s);
  }
  if (conv.silu) s = quick_silu(s);
  if (t >= end_of(lengths, b, conv.length)) s = 0.0f;
  y[(row + t) * conv.y_pitch + c] = from_float<T>(s);
}

/// finalState (B, C, W) may be the initial state itself, of rows of a single token: each thread reads ahead of what it writes.
template <typename T>
__device__ __forceinline__ void conv_state(const T* x, const float* initial, const i32* seq, const i32* lengths,
                                           float* final_state, const Conv& conv) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (c >= conv.channels) return;
  const int end = end_of(lengths, b, conv.length);
  const i32 own = seq != nullptr && end > 0 ? seq[static_cast<long long>(b) * conv.length + end - 1] : 0;
  for (int k = 0; k < conv.width; k++) {
    float in[1];
    input_at<1>(x, initial, end > 0 ? seq : nullptr, conv, b, end - conv.width + k, own, c, in);
    final_state[(static_cast<long long>(b) * conv.channels + c) * conv.width + k] = in[0];
  }
}

/// A single token a row, with its state replaced: output and state in one pass.
template <typename T>
__device__ __forceinline__ void conv_step(const ConvStep& p) {
  let_next_start();
  wait_for_previous();
  const int c = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (c >= p.conv.channels) return;
  conv_step_channel<T>(p, b, c);
}

/// dx of tokens [t0, t0 + TOKENS), and what they add to dweight and dbias: parts (pieces, channels * W + channels), where a piece is a
/// block along time of a row.
template <int W, int V, int TOKENS, bool PACKED, typename T>
__device__ __forceinline__ void conv_backward(const T* __restrict__ x, const T* __restrict__ weight,
                                              const T* __restrict__ bias, const float* __restrict__ initial,
                                              const i32* __restrict__ seq, const i32* __restrict__ lengths,
                                              const T* __restrict__ dy, long long dy_pitch,
                                              const float* __restrict__ dfinal, T* __restrict__ dx, float* parts,
                                              const Conv& conv) {
  extern __shared__ float scratch[];
  const int c = (blockIdx.x * 32 + threadIdx.x) * V;
  const int t0 = (blockIdx.y * blockDim.y + threadIdx.y) * TOKENS;
  const int b = blockIdx.z;
  const bool active = c < conv.channels && t0 < conv.length;
  float dw[W][V], db[V];
#pragma unroll
  for (int v = 0; v < V; v++) {
    db[v] = 0.0f;
#pragma unroll
    for (int k = 0; k < W; k++) dw[k][v] = 0.0f;
  }
  if (active) {
    const int end = end_of(lengths, b, conv.length);
    const long long row = static_cast<long long>(b) * conv.length;
    const i32 last = PACKED && end > 0 ? seq[row + end - 1] : 0;
    float w[W][V], first[V], window[W][V], ds[W][V];
    load_filter<W, V>(weight, bias, c, w, first);
#pragma unroll
    for (int k = 0; k < W; k++)
#pragma unroll
      for (int v = 0; v < V; v++) ds[k][v] = 0.0f;
#pragma unroll
    for (int k = 0; k < W - 1; k++) input_at<V>(x, initial, nullptr, conv, b, t0 - (W - 1) + k, 0, c, window[k]);
    constexpr int AHEAD = 4;
    // Token t gives ds_t; then position t - (W - 1), which it is the last to reach, is complete.
#pragma unroll 1
    for (int group = 0; group < TOKENS + W - 1; group += AHEAD) {
      // Inputs and gradients of a few tokens are under way together.
      Vector<T, V> xs[AHEAD], dys[AHEAD];
#pragma unroll
      for (int step = 0; step < AHEAD; step++) {
        const long long at = row + min(t0 + group + step, conv.length - 1);
        xs[step] = *reinterpret_cast<const Vector<T, V>*>(x + at * conv.x_pitch + c);
        if (dy != nullptr) dys[step] = *reinterpret_cast<const Vector<T, V>*>(dy + at * dy_pitch + c);
      }
#pragma unroll
      for (int step = 0; step < AHEAD; step++) {
      const int i = group + step;
      if (i >= TOKENS + W - 1) break;
      const int t = t0 + i;
#pragma unroll
      for (int k = 0; k < W - 1; k++)
#pragma unroll
        for (int v = 0; v < V; v++) ds[k][v] = ds[k + 1][v];
#pragma unroll
      for (int v = 0; v < V; v++) ds[W - 1][v] = 0.0f;
      if (t < end) {
        const i32 own = PACKED ? seq[row + t] : 0;
        bool sees[W];
#pragma unroll
        for (int k = 0; k < W; k++) sees[k] = !PACKED || seq[row + max(t - (W - 1) + k, 0)] == own;
        float d[V];
#pragma unroll
        for (int v = 0; v < V; v++) {
          window[W - 1][v] = to_float(xs[step].at[v]);
          d[v] = dy != nullptr ? to_float(dys[step].at[v]) : 0.0f;
        }
        if (conv.silu) {
#pragma unroll
          for (int v = 0; v < V; v++) {
            float s = first[v];
#pragma unroll
            for (int k = 0; k < W; k++) s = sees[k] ? fmaf(w[k][v], window[k][v], s) : s;
            d[v] *= quick_silu_gradient(s);
          }
        }
#pragma unroll
        for (int v = 0; v < V; v++) ds[W - 1][v] = d[v];
        if (i < TOKENS) {
#pragma unroll
          for (int v = 0; v < V; v++) {
            db[v] += d[v];
#pragma unroll
            for (int k = 0; k < W; k++) dw[k][v] += sees[k] ? d[v] * window[k][v] : 0.0f;
          }
        }
      }
#pragma unroll
      for (int k = 0; k < W - 1; k++)
#pragma unroll
        for (int v = 0; v < V; v++) window[k][v] = window[k + 1][v];
      const int p = t - (W - 1);
      if (p < t0 || p >= conv.length || dx == nullptr) continue;
      // Token p + j reaches p with tap W - 1 - j, where it is of p's sequence.
      const i32 own = PACKED ? seq[row + p] : 0;
      float sum[V];
#pragma unroll
      for (int v = 0; v < V; v++) sum[v] = 0.0f;
#pragma unroll
      for (int j = 0; j < W; j++) {
        const bool same = !PACKED || (p + j < end && seq[row + p + j] == own);
#pragma unroll
        for (int v = 0; v < V; v++) sum[v] = same ? fmaf(w[W - 1 - j][v], ds[j][v], sum[v]) : sum[v];
      }
      if (dfinal != nullptr && p >= end - W && p < end && (!PACKED || own == last)) {
#pragma unroll
        for (int v = 0; v < V; v++)
          sum[v] += dfinal[(static_cast<long long>(b) * conv.channels + c + v) * W + p - (end - W)];
      }
      if (p >= end) {
#pragma unroll
        for (int v = 0; v < V; v++) sum[v] = 0.0f;
      }
      store<V>(dx + (row + p) * conv.dx_pitch + c, sum);
      }
    }
  }
  if (parts == nullptr) return;
  // Threads along time in their order.
  float* const own = scratch + (threadIdx.y * 32 + threadIdx.x) * ((W + 1) * V);
#pragma unroll
  for (int v = 0; v < V; v++) {
#pragma unroll
    for (int k = 0; k < W; k++) own[v * W + k] = dw[k][v];
    own[V * W + v] = db[v];
  }
  __syncthreads();
  float* const to = parts + (static_cast<long long>(b) * gridDim.y + blockIdx.y) * conv.channels * (W + 1);
  const int first_channel = blockIdx.x * 32 * V;
  for (int item = threadIdx.y * 32 + threadIdx.x; item < 32 * V * (W + 1); item += blockDim.y * 32) {
    const int lane = item / (V * (W + 1)), place = item % (V * (W + 1));
    float sum = 0.0f;
    for (int i = 0; i < blockDim.y; i++) sum += scratch[(i * 32 + lane) * ((W + 1) * V) + place];
    const int channel = first_channel + lane * V;
    if (channel >= conv.channels) continue;
    if (place < V * W) to[channel * W + place] = sum;
    else to[conv.channels * W + channel + place - V * W] = sum;
  }
}

/// dinitialState (B, C, W): what flows to positions before the row.
template <typename T>
__device__ __forceinline__ void conv_state_backward(const T* x, const T* weight, const T* bias, const float* initial,
                                                    const i32* seq, const i32* lengths, const T* dy, long long dy_pitch,
                                                    const float* dfinal, float* dinitial, const Conv& conv) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (c >= conv.channels) return;
  const int width = conv.width, end = end_of(lengths, b, conv.length);
  const long long row = static_cast<long long>(b) * conv.length;
  const long long at = (static_cast<long long>(b) * conv.channels + c) * width;
  const i32 first = seq != nullptr && conv.length > 0 ? seq[row] : 0;
  for (int k = 0; k < width; k++) {
    // Position k - W. Token t reaches it with tap k - 1 - t.
    float sum = 0.0f;
    for (int t = 0; t < min(k, end); t++) {
      if (seq != nullptr && seq[row + t] != first) break;
      float d = dy != nullptr ? to_float(dy[(row + t) * dy_pitch + c]) : 0.0f;
      if (conv.silu) {
        float s = bias != nullptr ? to_float(bias[c]) : 0.0f;
        for (int j = 0; j < width; j++) {
          float in[1];
          input_at<1>(x, initial, nullptr, conv, b, t - width + 1 + j, 0, c, in);
          s = fmaf(to_float(weight[c * width + j]), in[0], s);
        }
        d *= quick_silu_gradient(s);
      }
      sum = fmaf(to_float(weight[c * width + k - 1 - t]), d, sum);
    }
    const bool whole = seq == nullptr || end == 0 || seq[row + end - 1] == first;
    if (dfinal != nullptr && whole && k - end >= 0) sum += dfinal[at + k - end];
    dinitial[at + k] = sum;
  }
}

#define DIFFMAMBA_CONV(NAME, T, W, VF, VB)                                                                            \
  extern "C" __global__ void __launch_bounds__(128, 4) conv_forward_##NAME##_w##W##_v##VF(                               \
      const T* x, const T* weight, const T* bias, const float* initial, const i32* seq, const i32* lengths, T* y,     \
      Conv conv) {                                                                                                    \
    if (seq == nullptr) conv_forward<W, VF, 16, false>(x, weight, bias, initial, seq, lengths, y, conv);              \
    else conv_forward<W, VF, 16, true>(x, weight, bias, initial, seq, lengths, y, conv);                              \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(128) conv_backward_##NAME##_w##W##_v##VB(                              \
      const T* x, const T* weight, const T* bias, const float* initial, const i32* seq, const i32* lengths,           \
      const T* dy, const float* dfinal, T* dx, float* parts, long long dy_pitch, Conv conv) {                         \
    if (seq == nullptr)                                                                                               \
      conv_backward<W, VB, 32, false>(x, weight, bias, initial, seq, lengths, dy, dy_pitch, dfinal, dx, parts, conv);  \
    else                                                                                                              \
      conv_backward<W, VB, 32, true>(x, weight, bias, initial, seq, lengths, dy, dy_pitch, dfinal, dx, parts, conv);   \
  }
// The width of the published models, with vectors; any up to 4, one by one.
DIFFMAMBA_CONV(f32, f32, 4, 4, 4) DIFFMAMBA_CONV(bf16, bf16, 4, 8, 4) DIFFMAMBA_CONV(f16, f16, 4, 8, 4)
DIFFMAMBA_CONV(f32, f32, 4, 1, 1) DIFFMAMBA_CONV(bf16, bf16, 4, 1, 1) DIFFMAMBA_CONV(f16, f16, 4, 1, 1)
DIFFMAMBA_CONV(f32, f32, 3, 1, 1) DIFFMAMBA_CONV(bf16, bf16, 3, 1, 1) DIFFMAMBA_CONV(f16, f16, 3, 1, 1)
DIFFMAMBA_CONV(f32, f32, 2, 1, 1) DIFFMAMBA_CONV(bf16, bf16, 2, 1, 1) DIFFMAMBA_CONV(f16, f16, 2, 1, 1)
DIFFMAMBA_CONV(f32, f32, 1, 1, 1) DIFFMAMBA_CONV(bf16, bf16, 1, 1, 1) DIFFMAMBA_CONV(f16, f16, 1, 1, 1)

#define DIFFMAMBA_CONV_ANY(NAME, T)                                                                                   \
  extern "C" __global__ void conv_forward_##NAME##_any(const T* x, const T* weight, const T* bias,                    \
                                                       const float* initial, const i32* seq, const i32* lengths,      \
                                                       T* y, Conv conv) {                                             \
    conv_forward_any(x, weight, bias, initial, seq, lengths, y, conv);                                                \
  }                                                                                                                   \
  extern "C" __global__ void conv_state_##NAME(const T* x, const float* initial, const i32* seq, const i32* lengths,  \
                                               float* final_state, Conv conv) {                                       \
    conv_state(x, initial, seq, lengths, final_state, conv);                                                          \
  }                                                                                                                   \
  extern "C" __global__ void conv_step_##NAME(const __grid_constant__ ConvStep p) { conv_step<T>(p); }                \
  extern "C" __global__ void conv_state_backward_##NAME(                                                              \
      const T* x, const T* weight, const T* bias, const float* initial, const i32* seq, const i32* lengths,           \
      const T* dy, const float* dfinal, float* dinitial, long long dy_pitch, Conv conv) {                             \
    conv_state_backward(x, weight, bias, initial, seq, lengths, dy, dy_pitch, dfinal, dinitial, conv);                \
  }
DIFFMAMBA_FLOATS(DIFFMAMBA_CONV_ANY)
