// What the forward and the backward of the Mamba-2 scan share: the arguments, the segments that a row is cut into, the decays
// inside one, and its output. A segment is the part of one chunk that belongs to one sequence, so that nothing is masked but
// the future, and one sequence's NaN stays its own.
// Knows the arguments' order. Knows no gradient.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "../kernels.h"
#include "../pool.h"
#include "lanes.h"
#include "sequence.h"
#include "ssd_tiles.h"

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

/// A group's heads are shared out in so many parts, by the sizes alone: each part makes C B^T again.
inline int64_t parts_of_group(const Inputs& in) {
  constexpr int64_t kUnits = 8;
  const int64_t units = std::max<int64_t>(1, in.batch * in.groups);
  return std::clamp<int64_t>((kUnits + units - 1) / units, 1, std::max<int64_t>(1, in.heads_per_group()));
}

/// Floats in whole cache lines.
inline int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

/// Tokens that a block of a segment has at most.
constexpr int64_t kBlock = 16;
/// So much, as a power of e, decays change by within a block at most: powers of both signs then fit a float with room to spare.
constexpr double kBlockDecay = 30;

/// What the tokens of a segment of one head decay by. The segment is cut into blocks: with a_i the sum of dt A up to and with
/// token i and e_I that of the last token of block I, a decay e^{a_i - a_j} from a block J into I >= J is
/// e^{a_i - e_I} rate_I ... rate_{J+1} e^{e_J - a_j}, rate_I = e^{e_I - e_{I-1}}. No factor overflows where the decay itself does not.
struct Decays {
  /// dt before softplus and limits, and after; in whole vectors.
  float *raw, *dt;
  /// e^{a_i - e_I}, e^{e_I - a_i} and dt_i e^{e_I - a_i} of a token i of block I.
  float *from_end, *to_end, *scaled_dt;
  /// Of each block: rate_I, of the first one e^{e_0}; e^{e_I}, since the segment began; e^{a_n - e_I}, until it ends.
  float *rate, *since, *until;
  /// Where blocks begin, and the segment's end.
  int32_t* begins;
  double *a;
  int64_t blocks = 0;

  static constexpr int64_t kArrays = 12;

  template <typename Take>
  explicit Decays(const Take& take)
      : raw(take(1)),
        dt(take(1)),
        from_end(take(1)),
        to_end(take(1)),
        scaled_dt(take(1)),
        rate(take(1)),
        since(take(1)),
        until(take(1)),
        begins(reinterpret_cast<int32_t*>(take(2))),
        a(reinterpret_cast<double*>(take(2))) {}

  int64_t begin(int64_t block) const { return begins[block]; }
  int64_t size(int64_t block) const { return begins[block + 1] - begins[block]; }
  /// Of the whole segment.
  float last() const { return since[blocks - 1]; }

  /// Sets all.
  void load(const Inputs& in, const Options& options, int64_t b, int64_t h, const Segment& s) {
    const int64_t n = s.size(), whole = padded(n), step = in.dt.pitch(1);
    const float bias = in.dtBias ? in.dtBias.as<float>()[h] : 0.0f;
    const float* const given = row_of(in.dt, 1, in.length, b, s.begin, h);
    for (int64_t i = 0; i < n; i++) raw[i] = given[i * step] + bias;
    for (int64_t i = n; i < whole; i++) raw[i] = 0;
    for (int64_t i = 0; i < whole; i += kLanes) {
      const Vec v = DIFFMAMBA_ISA::load(raw + i);
      const Vec value = options.dtSoftplus ? softplus(v) : v;
      // In this order of operands NaN stays NaN.
      store(dt + i, min(splat(options.high), max(splat(options.low), value)));
    }
    const double A = in.A.as<float>()[h];
    double total = 0;
    for (int64_t i = 0; i < n; i++) a[i] = total += dt[i] * A;
    cut(n);
    for (int64_t block = 0; block < blocks; block++) {
      const double end = a[begins[block + 1] - 1], before = block > 0 ? a[begins[block] - 1] : 0;
      for (int64_t i = begins[block]; i < begins[block + 1]; i++) from_end[i] = static_cast<float>(a[i] - end);
      rate[block] = static_cast<float>(end - before);
      since[block] = static_cast<float>(end);
      until[block] = static_cast<float>(total - end);
    }
    for (int64_t i = n; i < whole; i++) from_end[i] = 0;
    for (int64_t i = 0; i < whole; i += kLanes) {
      const Vec difference = DIFFMAMBA_ISA::load(from_end + i), to = bounded_exp(-difference);
      store(from_end + i, bounded_exp(difference));
      store(to_end + i, to);
      store(scaled_dt + i, DIFFMAMBA_ISA::load(dt + i) * to);
    }
    for (float* const each : {rate, since, until}) {
      for (int64_t i = blocks; i < padded(blocks); i++) each[i] = 0;
      for (int64_t i = 0; i < blocks; i += kLanes) store(each + i, exp(DIFFMAMBA_ISA::load(each + i)));
    }
  }

 private:
  /// Blocks of up to kBlock tokens, and of fewer where they decay by much.
  void cut(int64_t n) {
    blocks = 0;
    begins[0] = 0;
    double least = a[0], most = a[0];
    for (int64_t i = 1; i < n; i++) {
      const double low = std::min(least, a[i]), high = std::max(most, a[i]);
      const bool goes_on = i - begins[blocks] < kBlock && !(high - low > kBlockDecay);
      if (!goes_on) begins[++blocks] = static_cast<int32_t>(i);
      least = goes_on ? low : a[i];
      most = goes_on ? high : a[i];
    }
    begins[++blocks] = static_cast<int32_t>(n);
  }
};

/// Rows of one head or group over a segment.
struct TokenRows {
  float* at;
  int64_t pitch;

  TokenRows(float* at, int64_t pitch) : at(at), pitch(pitch) {}
  /// Those of a view whose last `inner` axes are one row, from `column` on. Absent with the view.
  TokenRows(const View& view, int inner, int64_t length, int64_t b, int64_t t, int64_t column)
      : at(view ? row_of(view, inner, length, b, t, column) : nullptr), pitch(view ? view.pitch(inner) : 0) {}

  explicit operator bool() const { return at != nullptr; }
  float* row(int64_t i) const { return at + i * pitch; }
  void clear(int64_t rows, int64_t columns) const {
    for (int64_t i = 0; at != nullptr && i < rows; i++) ssd::clear(row(i), columns);
  }
};

/// C B^T over a segment of one group: (n x n), by rows of `pitch`, zeros after the diagonal as far as products read.
/// `transposed` has room for panels of (state x n).
inline void products_of_group(const TokenRows& C, const TokenRows& B, int64_t n, int64_t N, float* transposed, float* out,
                              int64_t pitch) {
  pack_transpose(B.at, B.pitch, n, N, transposed);
  Tile tile;
  for (int64_t panel = 0; panel < panels_of(n); panel++) {
    const int64_t j0 = panel * kPanel, width = panel_columns(n, panel);
    each_strip(0, n, [&](int64_t i0, int64_t rows) {
      if (j0 >= i0 + rows + kBlock) return;
      const Term term{C.row(i0), transposed + panel * N * kPanel, C.pitch, N, 1};
      if (j0 < i0 + rows) sum_terms<Lies::by_rows>(rows, width, &term, 1, nullptr, tile.at);
      for (int64_t i = i0; i < i0 + rows; i++) {
        float* const to = out + i * pitch + j0;
        for (int64_t c = 0; c < kPanel; c += kLanes) {
          const Vec v = j0 + c <= i ? tile.vector(i - i0, c) : Vec{};
          store(to + c, j0 + c + kLanes - 1 <= i ? v : up_to(v, i - j0 - c));
        }
      }
    });
  }
}

/// The output of one head before D and the gate: sum_j e^{a_i - a_j} (C_i . B_j) X_j + e^{a_i} S C_i, with X_j = dt_j x_j. `x` holds
/// panels of e^{e_J - a_j} X_j, `state` those of S^T (state x headDim), or is null where S is 0. Calls body(lanes, i, p, Y) for
/// every vector of a row i, from column p of the head on.
template <typename Body>
inline void each_output(const Decays& decays, const TokenRows& C, const float* cb, int64_t pitch, int64_t n, int64_t N,
                        int64_t P, const float* state, const float* x, Term* terms, const Body& body) {
  Tile tile;
  for (int64_t panel = 0; panel < panels_of(P); panel++, x += n * kPanel) {
    const int64_t width = panel_columns(P, panel);
    for (int64_t block = 0; block < decays.blocks; block++) {
      each_strip(decays.begin(block), decays.begin(block + 1), [&](int64_t i0, int64_t rows) {
        int64_t count = 0;
        if (state != nullptr) terms[count++] = {C.row(i0), state + panel * N * kPanel, C.pitch, N, 1};
        for (int64_t from = 0; from <= block; from++) {
          const int64_t j = decays.begin(from), depth = from < block ? decays.size(from) : i0 + rows - j;
          terms[count] = {cb + i0 * pitch + j, x + j * kPanel, pitch, depth, count > 0 ? decays.rate[from] : 1};
          count++;
        }
        sum_terms<Lies::by_rows>(rows, width, terms, count, nullptr, tile.at);
        for (int64_t i = i0; i < i0 + rows; i++) {
          const Vec since_end = splat(decays.from_end[i]);
          each_column(width, [&](auto lanes, int64_t c) { body(lanes, i, panel * kPanel + c, tile.vector(i - i0, c) * since_end); });
        }
      });
    }
  }
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

  /// Room for terms of a tile: one for each block, and two more.
  Term* take_terms(int64_t tokens) { return reinterpret_cast<Term*>(take(floats_of_terms(tokens))); }
  static int64_t floats_of_terms(int64_t tokens) {
    return padded((tokens + 2) * static_cast<int64_t>(sizeof(Term) / sizeof(float)));
  }

 private:
  float* at_;
};

}  // namespace ssd
}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
