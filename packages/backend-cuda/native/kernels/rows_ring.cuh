// Layer: CUDA kernels. What a product of some rows has of its two factors in shared memory: pieces of k, in a ring. Knows no product and no sum.
#pragma once

#include "copies.cuh"
#include "token_product.cuh"

/// Elements of k of a piece, and pieces that are on their way at a time.
constexpr int kRingDeep = 128;
constexpr int kRingStages = 4;

/// A block's part of k. A piece is two halves, of 64 elements of k; a half is ROWS lines of a, then COLUMNS of b, swizzled. A thread brings one
/// vector of every so many lines.
template <typename T, int ROWS, int COLUMNS, int THREADS, int PARTS>
struct RowsRing {
  static constexpr int kVectors = kRingDeep / 8, kStep = THREADS / kVectors, kStage = (ROWS + COLUMNS) * kRingDeep;
  static constexpr int kHalf = 64, kHalfStage = kStage / 2;
  static constexpr int kLinesA = (ROWS + kStep - 1) / kStep, kLinesB = COLUMNS / kStep;
  /// Blocks that share k share it in pieces of so much.
  static constexpr int kShare = 64;
  static_assert(COLUMNS * kVectors % THREADS == 0, "whole vectors to a thread");

  T *memory, *own_place;
  const T *a_lines[kLinesA], *b_lines[kLinesB], *own_b;
  int begin, end, pieces, turn, own_line, own_k;

  /// `pieces` is at least 1: where nothing of k is left, a piece of zeros.
  __device__ __forceinline__ RowsRing(const Product& p, unsigned char* at, int rank, int tile, int first) : memory(reinterpret_cast<T*>(at)) {
    const int unit = PARTS > 1 ? kShare : kRingDeep, depth = (p.k + PARTS * unit - 1) / (PARTS * unit) * unit, thread = threadIdx.x;
    begin = rank * depth;
    end = min(begin + depth, p.k);
    pieces = max((end - begin + kRingDeep - 1) / kRingDeep, 1);
    // Blocks begin at different pieces: all would else ask for the same lines of a at the same time.
    turn = tile % pieces;
    own_line = thread / kVectors;
    own_k = begin + thread % kVectors * 8;
    own_b = static_cast<const T*>(p.b) + static_cast<long long>(first) * p.b_pitch;
#pragma unroll
    for (int i = 0; i < kLinesA; i++) {
      a_lines[i] = static_cast<const T*>(p.a) + static_cast<long long>(min(own_line + kStep * i, p.m - 1)) * p.a_pitch + own_k;
    }
#pragma unroll
    for (int i = 0; i < kLinesB; i++)
      b_lines[i] = own_b + static_cast<long long>(min(own_line + kStep * i, p.n - 1 - first)) * p.b_pitch + own_k;
    own_place = place(memory, own_line, thread % kVectors);
  }

  /// Where a line, of a or b, has the vector.
  static __device__ __forceinline__ T* place(T* lines, int line, int vector) {
    return swizzled<T, kHalf>(lines + vector / (kHalf / 8) * kHalfStage, line, vector % (kHalf / 8));
  }
  __device__ __forceinline__ T* stage(int piece) const { return memory + piece % kRingStages * kStage; }
  __device__ __forceinline__ void bring_a(int piece) const { bring<kLinesA, ROWS>(piece % kRingStages * kStage, a_lines, piece); }
  __device__ __forceinline__ void bring_b(int piece) const { bring<kLinesB, COLUMNS>(piece % kRingStages * kStage + ROWS * kHalf, b_lines, piece); }

 private:
  template <int COUNT, int MOST>
  __device__ __forceinline__ void bring(int place, const T* const* lines, int piece) const {
    const int shifted = piece + turn, at = (shifted < pieces ? shifted : shifted - pieces) * kRingDeep;
    const bool there = own_k + at < end;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      if (MOST % kStep != 0 && own_line + kStep * i >= MOST) continue;
      copy_16(own_place + place + kStep * i * kHalf, lines[i] + (there ? at : 0), there ? 16 : 0);
    }
  }
};
