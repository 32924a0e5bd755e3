// Layer: CUDA kernels. The causal convolution of a single token: a channel's output from its last inputs, and its last inputs after it.
// Knows the layouts of causal_conv1d.cu. Knows no grid: blocks of decoding share it.
#pragma once

#include "gates.cuh"

/// What all passes see. W is the filter's width.
struct Conv {
  int batch, length, channels, width;
  /// Elements from one token to the next.
  long long x_pitch, y_pitch, dx_pitch;
  int silu;
  /// Whether the four weights, and the four inputs of the state, of a channel can be read in one piece.
  int fours;
  /// Of conv_step: whether filters and states may be read before the kernel before has ended.
  int early, unused;
};

/// A single token of each row: parameters of `conv_step`.
struct ConvStep {
  const void* x;
  const void* weight;
  const void* bias;
  const float* initial;
  void* y;
  float* final_state;
  Conv conv;
};

/// Where conv.fours: a channel's filter as it lies in memory, so that nothing waits for it, and what it makes of a token.
template <typename T>
struct ConvFilter {
  Vector<T, 4> w;
  T bias;

  __device__ __forceinline__ void load(const ConvStep& p, int c) {
    read(w, static_cast<const T*>(p.weight) + 4 * c);
    bias = p.bias != nullptr ? static_cast<const T*>(p.bias)[c] : from_float<T>(0.0f);
  }
  /// What the filter makes of the inputs before and the token's.
  __device__ __forceinline__ float output(const float4& past, float current) const {
    float ws[4];
    widen(w, ws);
    return fmaf(ws[0], past.y, fmaf(ws[1], past.z, fmaf(ws[2], past.w, fmaf(ws[3], current, to_float(bias)))));
  }
  /// Output and state of channel c of row b.
  static __device__ __forceinline__ void write(const ConvStep& p, int b, int c, const float4& past, float current, float y) {
    *reinterpret_cast<float4*>(p.final_state + (static_cast<long long>(b) * p.conv.channels + c) * 4) = make_float4(past.y, past.z, past.w, current);
    static_cast<T*>(p.y)[b * p.conv.y_pitch + c] = from_float<T>(y);
  }
  __device__ __forceinline__ void finish(const ConvStep& p, int b, int c, const float4& past, float current) const {
    const float y = output(past, current);
    write(p, b, c, past, current, p.conv.silu ? quick_silu(y) : y);
  }
};

/// The last inputs of a row's channel.
__device__ __forceinline__ float4 conv_past(const ConvStep& p, int b, int c) {
  const long long at = (static_cast<long long>(b) * p.conv.channels + c) * 4;
  return p.initial != nullptr ? *reinterpret_cast<const float4*>(p.initial + at) : make_float4(0, 0, 0, 0);
}

/// Output and state of a channel; the state may be replaced in place.
template <typename T>
__device__ __forceinline__ void conv_step_channel(const ConvStep& p, int b, int c) {
  const Conv& conv = p.conv;
  const float current = to_float(*(static_cast<const T*>(p.x) + b * conv.x_pitch + c));
  if (conv.fours) {
    ConvFilter<T> filter;
    filter.load(p, c);
    filter.finish(p, b, c, conv_past(p, b, c), current);
    return;
  }
  const long long at = (static_cast<long long>(b) * conv.channels + c) * conv.width;
  float s = p.bias != nullptr ? to_float(static_cast<const T*>(p.bias)[c]) : 0.0f;
  for (int k = 0; k < conv.width; k++) {
    const float in = k + 1 == conv.width ? current : p.initial != nullptr ? p.initial[at + k + 1] : 0.0f;
    s = fmaf(to_float(static_cast<const T*>(p.weight)[c * conv.width + k]), in, s);
    p.final_state[at + k] = in;
  }
  static_cast<T*>(p.y)[b * conv.y_pitch + c] = from_float<T>(conv.silu ? quick_silu(s) : s);
}
