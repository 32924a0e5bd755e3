// What the forward and the backward of the Mamba-2 scan share: the arguments, the segments that a row is cut into, and the
// decays inside one. A segment is the part of one chunk that belongs to one sequence, so that nothing is masked but the
// future, and one sequence's NaN stays its own.
// Knows the arguments' order. Knows no gradient.
#pragma once

#include <algorithm>

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

inline int64_t padded(int64_t n) { return small_product::padded(n); }

/// How far a row of a lower triangle is read by a product: into the future, where it must hold zeros.
inline int64_t reach(int64_t i, int64_t n) {
  const int64_t end = i + small_product::kRows;
  return padded(end < n ? end : n);
}

/// What the tokens of a segment of one head decay by. Every row is as long as a chunk in whole vectors.
struct Decays {
  /// dt before softplus and limits, and after.
  float *raw, *dt;
  /// a_i, the sum of dt A up to and with token i; e^{a_i}, since the segment began; e^{a_n - a_i}, until its end.
  float *a, *since, *until;
  /// For {@link each}: a at the end of each block of columns, the decay from a column to there, and from there to a row.
  float *ends, *to_end, *from_end;

  static constexpr int64_t kArrays = 8;

  template <typename Take>
  explicit Decays(const Take& take)
      : raw(take()), dt(take()), a(take()), since(take()), until(take()), ends(take()), to_end(take()), from_end(take()) {}

  /// Sets all.
  void load(const Inputs& in, const Options& options, int64_t b, int64_t h, const Segment& s) {
    const int64_t n = s.size(), whole = padded(n);
    for (int64_t i = 0; i < n; i++) raw[i] = raw_dt(in, b, s.begin + i, h);
    for (int64_t i = n; i < whole; i++) raw[i] = 0;
    for (int64_t i = 0; i < whole; i += kLanes) {
      const Vec given = DIFFMAMBA_ISA::load(raw + i);
      const Vec value = options.dtSoftplus ? softplus(given) : given;
      // In this order of operands NaN stays NaN.
      store(dt + i, min(splat(options.high), max(splat(options.low), value)));
    }
    const double A = in.A.as<float>()[h];
    double total = 0;
    for (int64_t i = 0; i < whole; i++) {
      if (i < n) total += dt[i] * A;
      a[i] = static_cast<float>(total);
    }
    for (int64_t i = 0; i < whole; i += kLanes) {
      const Vec sum = DIFFMAMBA_ISA::load(a + i);
      store(since + i, exp(sum));
      store(until + i, exp(splat(a[n - 1]) - sum));
    }
    // Where dt is not negative, all sums go one way, so that a decay is the product of two parts of it that are no further from 1.
    const bool splits = options.dtSoftplus || options.low >= 0;
    blocks = splits ? n / kLanes : 0;
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t j = block * kLanes;
      ends[block] = a[j + kLanes - 1];
      store(to_end + j, exp(splat(ends[block]) - DIFFMAMBA_ISA::load(a + j)));
    }
    for (int64_t block = blocks; block < padded(blocks); block++) ends[block] = 0;
  }

  /// Calls body(i, j, M_ij, keep) for M_ij = e^{a_i - a_j} of a row's columns j, j + 1, ..., block by block up to the diagonal; `keep`
  /// clears what is after it. The exponent comes from a difference: e^{a_i} and e^{-a_j} may not fit a float.
  template <typename Body>
  void each(int64_t n, const Body& body) const {
    for (int64_t i = 0; i < n; i++) {
      const int64_t before = std::min((i + 1) / kLanes, blocks);
      for (int64_t block = 0; block < before; block += kLanes) {
        store(from_end + block, exp(splat(a[i]) - DIFFMAMBA_ISA::load(ends + block)));
      }
      for (int64_t block = 0; block < before; block++) {
        const int64_t j = block * kLanes;
        body(i, j, splat(from_end[block]) * DIFFMAMBA_ISA::load(to_end + j), [](Vec v) { return v; });
      }
      for (int64_t j = before * kLanes; j <= i; j += kLanes) {
        body(i, j, exp(splat(a[i]) - DIFFMAMBA_ISA::load(a + j)), [&](Vec v) { return lower(v, i, j); });
      }
    }
  }

 private:
  int64_t blocks = 0;

  /// v where column j, j + 1, ... is not after i, else 0.
  static Vec lower(Vec v, int64_t i, int64_t j) {
    VecInt column;
    for (int lane = 0; lane < kLanes; lane++) column[lane] = lane;
    return select(column <= static_cast<int32_t>(i - j), v, Vec{});
  }
};

/// Zeros after the block of the diagonal, as far as products read.
inline void clear_future(float* matrix, int64_t n, int64_t pitch) {
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = padded(i + 1); j < reach(i, n); j += kLanes) store(matrix + i * pitch + j, Vec{});
  }
}

/// C B^T . M, with M_ij = e^{a_i - a_j} for j <= i, else 0; rows of `pitch`.
inline void decayed(const Decays& decays, int64_t n, const float* cb, float* out, int64_t pitch) {
  decays.each(n, [&](int64_t i, int64_t j, Vec decay, const auto& keep) {
    store(out + i * pitch + j, keep(load(cb + i * pitch + j) * decay));
  });
  clear_future(out, n, pitch);
}


/// C B^T over a segment of one group: (n x n), its lower triangle, rows of `pitch`; `transposed` has room for state x pitch.
inline void products_of_group(const Inputs& in, int64_t b, int64_t g, const Segment& s, float* transposed, float* out,
                              int64_t pitch) {
  const int64_t n = s.size(), N = in.state;
  const float* const B = row_of(in.B, 2, in.length, b, s.begin, g * N);
  const float* const C = row_of(in.C, 2, in.length, b, s.begin, g * N);
  transpose(B, in.B.pitch(2), n, N, transposed, pitch);
  set_product(Shape::lower_result, n, padded(n), N, {C, in.C.pitch(2), 1}, {transposed, pitch}, out, pitch);
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
