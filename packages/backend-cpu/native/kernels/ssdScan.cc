// The Mamba-2 scan, forward, by segments in matrix-product form (Dao and Gu 2024, section 6):
//   Y = (C B^T . M) X + e^a C S^T,  S' = e^{a_n} S + sum_j e^{a_n - a_j} X_j B_j^T,  X_j = dt_j x_j.
// One unit of work is the heads of a group in one row, whose C B^T is shared, or a part of them where there are few rows.
// Knows the recurrence. Knows no gradient.

#include <algorithm>
#include <atomic>

#include "ssd.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

using namespace ssd;

struct Outputs {
  View y, finalState, states;
};

/// D x and the gate, for one head over one segment.
void finish(const Inputs& in, const Outputs& out, int64_t b, int64_t h, const Segment& s) {
  const int64_t P = in.headDim;
  for (int64_t t = s.begin; t < s.end && (in.D || in.z); t++) {
    float* const y = row_of(out.y, 2, in.length, b, t, h * P);
    const float* const x = row_of(in.x, 2, in.length, b, t, h * P);
    if (in.D && in.D.rank == 2) {
      const float* const d = in.D.as<float>() + h * P;
      each_vector(P, [&](auto lanes, int64_t p, int) {
        lanes.store(y + p, lanes.load(y + p) + lanes.load(d + p) * lanes.load(x + p));
      });
    } else if (in.D) {
      add_scaled_row(y, x, in.D.as<float>()[h], P);
    }
    if (!in.z) continue;
    const float* const z = row_of(in.z, 2, in.length, b, t, h * P);
    each_vector(P, [&](auto lanes, int64_t p, int) { lanes.store(y + p, lanes.load(y + p) * silu(lanes.load(z + p))); });
  }
}

/// One head over one segment; `st` is the state, transposed (N x P).
struct Head {
  const Inputs& in;
  const Outputs& out;
  const Decays& decays;
  int64_t b, h, g;
  float *st, *k, *x, *scaled;
  int64_t pitch;

  void run(const Segment& s, const float* cb) const {
    const int64_t n = s.size(), N = in.state, P = in.headDim;
    decayed(decays, n, cb, k, pitch);
    for (int64_t i = 0; i < n; i++) scale_row(x + i * P, row_of(in.x, 2, in.length, b, s.begin + i, h * P), decays.dt[i], P);
    float* const y = row_of(out.y, 2, in.length, b, s.begin, h * P);
    const int64_t y_pitch = out.y.pitch(2);
    set_product(Shape::lower, n, P, n, {k, pitch, 1}, {x, P}, y, y_pitch);
    if (!s.fresh) {
      for (int64_t i = 0; i < n; i++) {
        scale_row(scaled + i * N, row_of(in.C, 2, in.length, b, s.begin + i, g * N), decays.since[i], N);
      }
      add_product(Shape::full, n, P, N, {scaled, N, 1}, {st, P}, y, y_pitch);
    }
    finish(in, out, b, h, s);
    advance(s);
  }

  /// The state after the segment.
  void advance(const Segment& s) const {
    const int64_t n = s.size(), N = in.state, P = in.headDim;
    const float* const B = row_of(in.B, 2, in.length, b, s.begin, g * N);
    for (int64_t j = 0; j < n; j++) scale_row(x + j * P, x + j * P, decays.until[j], P);
    if (s.fresh) {
      set_product(Shape::full, N, P, n, {B, 1, in.B.pitch(2)}, {x, P}, st, P);
    } else {
      scale_row(st, st, decays.since[n - 1], N * P);
      add_product(Shape::full, N, P, n, {B, 1, in.B.pitch(2)}, {x, P}, st, P);
    }
  }
};

/// A group's heads are shared out in so many parts, by the sizes alone: each part makes C B^T again.
int64_t parts_of_group(const Inputs& in) {
  constexpr int64_t kUnits = 8;
  const int64_t wanted = (kUnits + in.batch * in.groups - 1) / (in.batch * in.groups);
  return wanted < in.heads_per_group() ? wanted : in.heads_per_group();
}

/// One token of one row and head, from state to state: S' = e^a S + X B^T, y = S' C.
void step(const Inputs& in, const Outputs& out, int64_t b, int64_t h, const Decays& decays) {
  const int64_t N = in.state, P = in.headDim, g = h / in.heads_per_group(), size = in.state_size();
  const float *const B = row_of(in.B, 2, 1, b, 0, g * N), *const C = row_of(in.C, 2, 1, b, 0, g * N);
  const float* const x = row_of(in.x, 2, 1, b, 0, h * P);
  const float* const before = in.initialState ? in.initialState.as<float>() + (b * in.heads + h) * size : nullptr;
  float* const saved = out.states ? out.states.as<float>() + (b * in.heads + h) * size : nullptr;
  float* const after = out.finalState.as<float>() + (b * in.heads + h) * size;
  float* const y = row_of(out.y, 2, 1, b, 0, h * P);
  for (int64_t p = 0; p < P; p++) {
    Chains total(0);
    each_vector(N, [&](auto lanes, int64_t n, int chain) {
      const Vec state = before == nullptr ? Vec{} : lanes.load(before + p * N + n);
      const Vec next = state * splat(decays.since[0]) + lanes.load(B + n) * splat(decays.dt[0] * x[p]);
      if (saved != nullptr) lanes.store(saved + p * N + n, state);
      lanes.store(after + p * N + n, next);
      total[chain] += next * lanes.load(C + n);
    });
    y[p] = total.sum();
  }
  finish(in, out, b, h, {0, 1, false, 0});
}

/// One token of every row: nothing to multiply matrices for.
void steps(const Inputs& in, const Outputs& out, const Options& options) {
  constexpr int64_t kGrain = 1 << 15;
  parallel_for(in.batch * in.heads, 1 + kGrain / in.state_size(), [&](int64_t begin, int64_t end) {
    float memory[Decays::kArrays][kLanes];
    int next = 0;
    Decays decays([&] { return memory[next++]; });
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t b = unit / in.heads, h = unit % in.heads;
      decays.load(in, options, b, h, {0, 1, false, 0});
      step(in, out, b, h, decays);
    }
  });
}

void store_state(const float* st, int64_t N, int64_t P, float* to) { transpose(st, P, N, P, to, N); }

}  // namespace

Error ssdScan(Args args) {
  const Inputs in(args);
  const Outputs out{args.view(), args.view(), args.view()};
  const Options options(args);
  if (in.length == 1 && !in.lengths) {
    steps(in, out, options);
    return nullptr;
  }
  const int64_t N = in.state, P = in.headDim, H = in.heads, per_group = in.heads_per_group();
  const int64_t most = options.chunkSize < in.length ? options.chunkSize : in.length;
  const int64_t pitch = padded(most);
  const int64_t chunks = in.length > 0 ? (in.length + options.chunkSize - 1) / options.chunkSize : 0;
  const int64_t parts = parts_of_group(in), per_part = (per_group + parts - 1) / parts;
  const int64_t room = 2 * pitch * pitch + N * pitch + most * (P + N) + per_part * N * P + Decays::kArrays * pitch + 16 * kLanes;
  std::atomic<bool> failed{false};

  parallel_for(in.batch * in.groups * parts, 1, [&](int64_t unit, int64_t) {
    const int64_t b = unit / parts / in.groups, g = unit / parts % in.groups;
    const int64_t first = g * per_group + unit % parts * per_part;
    const int64_t heads = std::max<int64_t>(0, std::min(per_part, (g + 1) * per_group - first));
    if (heads == 0) return;
    Workspace memory(room);
    if (!memory) {
      failed = true;
      return;
    }
    float* const cb = memory.take(pitch * pitch);
    float* const transposed = memory.take(N * pitch);
    float* const k = memory.take(pitch * pitch);
    float* const states = memory.take(per_part * N * P);
    float* const x = memory.take(most * P);
    float* const scaled = memory.take(most * N);
    Decays decays([&] { return memory.take(pitch); });
    const auto save = [&](int64_t r, int64_t chunk) {
      if (!out.states) return;
      const int64_t at = ((b * chunks + chunk) * H + first + r) * N * P;
      store_state(states + r * N * P, N, P, out.states.as<float>() + at);
    };

    for (int64_t r = 0; r < heads; r++) {
      const int64_t h = first + r;
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
      for (int64_t r = 0; r < heads; r++) {
        if (s.chunk >= 0) save(r, s.chunk);
        decays.load(in, options, b, first + r, s);
        Head{in, out, decays, b, first + r, g, states + r * N * P, k, x, scaled, pitch}.run(s, cb);
      }
      begin = s.end;
    }
    for (int64_t r = 0; r < heads; r++) {
      const int64_t h = first + r;
      for (int64_t chunk = (tokens + options.chunkSize - 1) / options.chunkSize; chunk < chunks; chunk++) save(r, chunk);
      store_state(states + r * N * P, N, P, out.finalState.as<float>() + (b * H + h) * N * P);
      for (int64_t t = tokens; t < in.length; t++) clear(row_of(out.y, 2, in.length, b, t, h * P), P);
    }
  });
  return failed ? fail("out of memory for the work space of a chunk of %lld tokens", static_cast<long long>(most)) : nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
