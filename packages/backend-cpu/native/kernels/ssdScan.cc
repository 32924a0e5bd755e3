// The Mamba-2 scan, forward, by segments in matrix-product form (Dao and Gu 2024, section 6):
//   Y = (C B^T . M) X + e^a C S^T,  S' = e^{a_n} S + sum_j e^{a_n - a_j} X_j B_j^T,  X_j = dt_j x_j.
// One unit of work is one group of heads of one row, whose C B^T is shared.
// Knows the recurrence. Knows no gradient.

#include <atomic>

#include "ssd.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

using namespace ssd;

struct Outputs {
  View y, finalState, states;
};

/// One head over one segment; `st` is the state, transposed (N x P).
struct Head {
  const Inputs& in;
  const Outputs& out;
  int64_t b, h, g;
  float *st, *dt, *a, *m, *x, *scaled, *y;
  int64_t pitch;

  void run(const Options& options, const Segment& s, const float* cb) {
    const int64_t n = s.size(), N = in.state, P = in.headDim;
    decays(in, options, b, h, s, dt, a);
    decay_matrix(a, n, m, pitch);
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < pitch; j++) m[i * pitch + j] *= cb[i * pitch + j];
      scale_row(x + i * P, row_of(in.x, 2, in.length, b, s.begin + i, h * P), dt[i], P);
    }
    clear(y, n * P);
    add_product(Shape::lower, n, P, n, {m, pitch, 1}, {x, P}, y, P);
    if (!s.fresh) {
      for (int64_t i = 0; i < n; i++) {
        scale_row(scaled + i * N, row_of(in.C, 2, in.length, b, s.begin + i, g * N), std::exp(a[i]), N);
      }
      add_product(Shape::full, n, P, N, {scaled, N, 1}, {st, P}, y, P);
    }
    finish(s);
    advance(s);
  }

  /// D x, the gate, and the store.
  void finish(const Segment& s) const {
    const int64_t P = in.headDim;
    const bool per_channel = in.D && in.D.rank == 2;
    for (int64_t i = 0; i < s.size(); i++) {
      float* const from = y + i * P;
      const int64_t t = s.begin + i;
      const float* const input = row_of(in.x, 2, in.length, b, t, h * P);
      if (per_channel) {
        const float* const d = in.D.as<float>() + h * P;
        for (int64_t p = 0; p < P; p++) from[p] += d[p] * input[p];
      } else if (in.D) {
        add_scaled_row(from, input, in.D.as<float>()[h], P);
      }
      float* const to = row_of(out.y, 2, in.length, b, t, h * P);
      if (in.z) {
        const float* const gate = row_of(in.z, 2, in.length, b, t, h * P);
        each_vector(P, [&](auto lanes, int64_t p, int) { lanes.store(to + p, lanes.load(from + p) * silu(lanes.load(gate + p))); });
      } else {
        memcpy(to, from, static_cast<size_t>(P) * sizeof(float));
      }
    }
  }

  /// The state after the segment.
  void advance(const Segment& s) const {
    const int64_t n = s.size(), N = in.state, P = in.headDim;
    const float* const B = row_of(in.B, 2, in.length, b, s.begin, g * N);
    const float decay = s.fresh ? 0.0f : std::exp(a[n - 1]);
    if (s.fresh) {
      clear(st, N * P);
    } else {
      scale_row(st, st, decay, N * P);
    }
    for (int64_t j = 0; j < n; j++) scale_row(x + j * P, x + j * P, std::exp(a[n - 1] - a[j]), P);
    add_product(Shape::full, N, P, n, {B, 1, in.B.pitch(2)}, {x, P}, st, P);
  }
};

void store_state(const float* st, int64_t N, int64_t P, float* to) { transpose(st, P, N, P, to, N); }

}  // namespace

Error ssdScan(Args args) {
  const Inputs in(args);
  const Outputs out{args.view(), args.view(), args.view()};
  const Options options(args);
  const int64_t N = in.state, P = in.headDim, H = in.heads, per_group = in.heads_per_group();
  const int64_t most = options.chunkSize < in.length ? options.chunkSize : in.length;
  const int64_t pitch = padded(most);
  const int64_t chunks = in.length > 0 ? (in.length + options.chunkSize - 1) / options.chunkSize : 0;
  const int64_t room = 2 * pitch * pitch + N * pitch + most * (2 * P + N) + per_group * N * P + 2 * pitch + 16 * kLanes;
  std::atomic<bool> failed{false};

  parallel_for(in.batch * in.groups, 1, [&](int64_t unit, int64_t) {
    const int64_t b = unit / in.groups, g = unit % in.groups;
    Workspace memory(room);
    if (!memory) {
      failed = true;
      return;
    }
    float* const cb = memory.take(pitch * pitch);
    float* const transposed = memory.take(N * pitch);
    float* const m = memory.take(pitch * pitch);
    float* const states = memory.take(per_group * N * P);
    float* const dt = memory.take(pitch);
    float* const a = memory.take(pitch);
    float* const x = memory.take(most * P);
    float* const y = memory.take(most * P);
    float* const scaled = memory.take(most * N);
    clear(a, pitch);
    const auto head_at = [&](int64_t r) {
      return Head{in, out, b, g * per_group + r, g, states + r * N * P, dt, a, m, x, scaled, y, pitch};
    };
    const auto save = [&](int64_t r, int64_t chunk) {
      const int64_t at = ((b * chunks + chunk) * H + g * per_group + r) * N * P;
      store_state(states + r * N * P, N, P, out.states.as<float>() + at);
    };

    for (int64_t r = 0; r < per_group; r++) {
      const int64_t h = g * per_group + r;
      if (in.initialState) {
        transpose(in.initialState.as<float>() + (b * H + h) * N * P, N, P, N, states + r * N * P, P);
      } else {
        clear(states + r * N * P, N * P);
      }
    }
    const int64_t tokens = row_length(in.lengths, b, in.length);
    for (int64_t begin = 0; begin < tokens;) {
      const Segment s = segment_at(in, options, b, begin, tokens);
      products_of_group(in, b, g, s, transposed, cb, pitch);
      for (int64_t r = 0; r < per_group; r++) {
        if (s.chunk >= 0) save(r, s.chunk);
        head_at(r).run(options, s, cb);
      }
      begin = s.end;
    }
    for (int64_t r = 0; r < per_group; r++) {
      const int64_t h = g * per_group + r;
      for (int64_t chunk = (tokens + options.chunkSize - 1) / options.chunkSize; chunk < chunks; chunk++) save(r, chunk);
      store_state(states + r * N * P, N, P, out.finalState.as<float>() + (b * H + h) * N * P);
      for (int64_t t = tokens; t < in.length; t++) clear(row_of(out.y, 2, in.length, b, t, h * P), P);
    }
  });
  return failed ? fail("out of memory for the work space of a chunk of %lld tokens", static_cast<long long>(most)) : nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
