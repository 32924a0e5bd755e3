// Layer: CUDA kernels. Strided operands: where an item of an index space lies in each. Mirrors src/kernels/axes.ts.
// Knows no op.
#pragma once

#include "common.cuh"

constexpr int kMaxAxes = 6;

/// Sizes of axes, innermost first, and what each operand steps by along them. There is at least one axis.
template <int OPERANDS>
struct Axes {
  int count;
  int sizes[kMaxAxes];
  int strides[OPERANDS][kMaxAxes];
};

/// Offsets of an item in all operands.
template <int OPERANDS>
__device__ __forceinline__ void place(const Axes<OPERANDS>& axes, int item, long long (&at)[OPERANDS]) {
#pragma unroll
  for (int k = 0; k < OPERANDS; k++) at[k] = 0;
#pragma unroll
  for (int axis = 0; axis < kMaxAxes; axis++) {
    const bool last = axis + 1 >= axes.count;
    const int outer = last ? 0 : item / axes.sizes[axis];
    const int index = item - outer * axes.sizes[axis];
#pragma unroll
    for (int k = 0; k < OPERANDS; k++) at[k] += static_cast<long long>(index) * axes.strides[k][axis];
    if (last) break;
    item = outer;
  }
}

/// V elements from an operand: side by side, or one for all where it does not step along the innermost axis.
template <int V, typename T>
__device__ __forceinline__ void fetch(const T* from, bool steps, T (&to)[V]) {
  if (V == 1 || !steps) {
    const T x = *from;
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = x;
  } else {
    const Vector<T, V> v = *reinterpret_cast<const Vector<T, V>*>(from);
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = v.at[i];
  }
}

template <int V, typename T>
__device__ __forceinline__ void put(T* to, const T (&from)[V]) {
  Vector<T, V> v;
#pragma unroll
  for (int i = 0; i < V; i++) v.at[i] = from[i];
  *reinterpret_cast<Vector<T, V>*>(to) = v;
}
