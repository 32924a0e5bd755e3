// What the forward and the backward of the Mamba-2 scan share: the arguments, the segments that a row is cut into, and the
// decays inside one. A segment is the part of one chunk that belongs to one sequence, so that nothing is masked but the
// future, and one sequence's NaN stays its own.
// Knows the arguments' order. Knows no gradient.
#pragma once

#include <cmath>

#include "../kernels.h"
#include "../pool.h"
#include "lanes.h"
#include "sequence.h"
#include "small_product.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace ssd {

struct Inputs {
  View x, dt, A, B, C, D, z, dtBias, initialState, seqIdx, lengths;
  int64_t batch, length, heads, headDim, groups, state;

  explicit Inputs(Args& args)
      : x(args.view()),
        dt(args.view()),
        A(args.view()),
        B(args.view()),
        C(args.view()),
        D(args.view()),
        z(args.view()),
        dtBias(args.view()),
        initialState(args.view()),
        seqIdx(args.view()),
        lengths(args.view()),
        batch(x.shape[0]),
        length(x.shape[1]),
        heads(x.shape[2]),
        headDim(x.shape[3]),
        groups(B.shape[2]),
        state(B.shape[3]) {}

  int64_t heads_per_group() const { return heads / groups; }
  int64_t state_size() const { return headDim * state; }
};

struct Options {
  int64_t chunkSize;
  bool dtSoftplus;
  float low, high;

  explicit Options(Args& args) : chunkSize(args.integer()), dtSoftplus(args.flag()), low(0), high(0) {
    low = static_cast<float>(args.number());
    high = static_cast<float>(args.number());
  }
};

/// Row t of batch entry b, from `column` on, of a view whose last `inner` axes are one row.
inline float* row_of(const View& view, int inner, int64_t length, int64_t b, int64_t t, int64_t column) {
  return view.as<float>() + (b * length + t) * view.pitch(inner) + column;
}

/// Tokens [begin, end) of one row.
struct Segment {
  int64_t begin, end;
  /// It begins with the first token of a later sequence: no state comes in.
  bool fresh;
  /// It begins with the first token of this chunk; -1 where it does not.
  int64_t chunk;
  int64_t size() const { return end - begin; }
};

/// The segment that begins at `begin`, in a row of `tokens`.
inline Segment segment_at(const Inputs& in, const Options& options, int64_t b, int64_t begin, int64_t tokens) {
  const int64_t chunk = begin / options.chunkSize;
  int64_t end = (chunk + 1) * options.chunkSize;
  if (end > tokens) end = tokens;
  for (int64_t t = begin + 1; t < end; t++) {
    if (starts_sequence(in.seqIdx, b, in.length, t)) end = t;
  }
  const bool first = begin == chunk * options.chunkSize;
  return {begin, end, starts_sequence(in.seqIdx, b, in.length, begin), first ? chunk : -1};
}

/// dt of one token and head before the limits.
inline float raw_dt(const Inputs& in, int64_t b, int64_t t, int64_t h) {
  const float bias = in.dtBias ? in.dtBias.as<float>()[h] : 0.0f;
  return *row_of(in.dt, 1, in.length, b, t, h) + bias;
}

inline float softplus(float x) { return std::fmax(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))); }

/// dt, and the sums a_i of dt A up to and with token i, over a segment of one head.
inline void decays(const Inputs& in, const Options& options, int64_t b, int64_t h, const Segment& s, float* dt, float* a) {
  const float A = in.A.as<float>()[h];
  double total = 0;
  for (int64_t i = 0; i < s.size(); i++) {
    float value = raw_dt(in, b, s.begin + i, h);
    if (options.dtSoftplus) value = softplus(value);
    if (value < options.low) value = options.low;
    if (value > options.high) value = options.high;
    dt[i] = value;
    total += static_cast<double>(value) * A;
    a[i] = static_cast<float>(total);
  }
}

/// M_ij = e^{a_i - a_j} for j <= i, else 0; rows of `pitch`, which is at least the size rounded up to whole vectors.
/// The exponent comes from the difference: never a product of two exponentials.
inline void decay_matrix(const float* a, int64_t n, float* m, int64_t pitch) {
  VecInt lane;
  for (int i = 0; i < kLanes; i++) lane[i] = i;
  for (int64_t i = 0; i < n; i++) {
    float* const row = m + i * pitch;
    for (int64_t j = 0; j < pitch; j += kLanes) {
      if (j > i) {
        store(row + j, Vec{});
        continue;
      }
      const Vec decay = exp(splat(a[i]) - load(a + j));
      store(row + j, select(lane <= static_cast<int32_t>(i - j), decay, Vec{}));
    }
  }
}

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

/// C B^T over a segment of one group: (n x n), rows of `pitch`; `transposed` has room for state x pitch.
inline void products_of_group(const Inputs& in, int64_t b, int64_t g, const Segment& s, float* transposed, float* out,
                              int64_t pitch) {
  const int64_t n = s.size(), N = in.state;
  const float* const B = row_of(in.B, 2, in.length, b, s.begin, g * N);
  const float* const C = row_of(in.C, 2, in.length, b, s.begin, g * N);
  clear(transposed, N * pitch);
  transpose(B, in.B.pitch(2), n, N, transposed, pitch);
  clear(out, n * pitch);
  add_product(Shape::full, n, pitch, N, {C, in.C.pitch(2), 1}, {transposed, pitch}, out, pitch);
}

/// Memory of the calling thread for one unit of work, handed out piece by piece.
class Workspace {
 public:
  /// Distinct types, so that forward, backward and the kernels they call keep memory of their own.
  struct Float {
    float x;
  };

  explicit Workspace(int64_t floats) : at_(reinterpret_cast<float*>(scratch<Float>(floats))) {}
  explicit operator bool() const { return at_ != nullptr; }

  float* take(int64_t floats) {
    float* const piece = at_;
    at_ += padded(floats);
    return piece;
  }

 private:
  float* at_;
};

}  // namespace ssd
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
