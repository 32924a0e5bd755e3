// The Mamba-2 scan, forward, by segments in matrix-product form (Dao and Gu 2024, section 6):
//   Y = (C B^T . M) X + e^a C S^T,  S' = e^{a_n} S + sum_j e^{a_n - a_j} X_j B_j^T,  X_j = dt_j x_j.
// Both are summed block by block of tokens, with the decay of a block between (Decays in ssd.h), so that M is never made.
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

/// One head over one segment; `state` is S^T in panels (state x headDim), `x` room for those of (tokens x headDim).
struct Head {
  const Inputs& in;
  const Outputs& out;
  const Decays& decays;
  int64_t b, h;
  float *state, *x;
  Term* terms;

  void run(const Segment& s, const TokenRows& C, const TokenRows& B, const float* cb, int64_t pitch) const {
    const int64_t n = s.size(), N = in.state, P = in.headDim;
    const TokenRows x_rows = rows_of(in.x, s), y = rows_of(out.y, s), z = rows_of(in.z, s);
    const float* const D = in.D ? in.D.as<float>() + h * (in.D.rank == 2 ? P : 1) : nullptr;
    const bool per_channel = in.D.rank == 2;
    pack_scaled(x_rows.at, x_rows.pitch, n, P, decays.scaled_dt, x);
    each_output(decays, C, cb, pitch, n, N, P, s.fresh ? nullptr : state, x, terms, [&](auto lanes, int64_t i, int64_t p, Vec v) {
      if (D != nullptr) v += (per_channel ? lanes.load(D + p) : splat(*D)) * lanes.load(x_rows.row(i) + p);
      if (z) v *= silu(lanes.load(z.row(i) + p));
      lanes.store(y.row(i) + p, v);
    });
    advance(s, B);
  }

  TokenRows rows_of(const View& view, const Segment& s) const {
    return {view, 2, in.length, b, s.begin, h * in.headDim};
  }

  /// The state after the segment.
  void advance(const Segment& s, const TokenRows& B) const {
    const int64_t n = s.size(), N = in.state, P = in.headDim;
    for (int64_t panel = 0; panel < panels_of(P); panel++) {
      float* const to = state + panel * N * kPanel;
      each_strip(0, N, [&](int64_t m, int64_t rows) {
        for (int64_t block = 0; block < decays.blocks; block++) {
          const int64_t j = decays.begin(block);
          const float scale = s.fresh && block == 0 ? 1 : decays.rate[block];
          terms[block] = {B.row(j) + m, x + (panel * n + j) * kPanel, B.pitch, decays.size(block), scale};
        }
        float* const rows_of_state = to + m * kPanel;
        sum_terms<Lies::by_columns>(rows, panel_columns(P, panel), terms, decays.blocks, s.fresh ? nullptr : rows_of_state,
                                    rows_of_state);
      });
    }
  }
};

/// D x and the gate, for one token of one head.
void finish(const Inputs& in, const Outputs& out, int64_t b, int64_t h) {
  const int64_t P = in.headDim;
  float* const y = row_of(out.y, 2, 1, b, 0, h * P);
  const float* const x = row_of(in.x, 2, 1, b, 0, h * P);
  const float* const D = in.D ? in.D.as<float>() + h * (in.D.rank == 2 ? P : 1) : nullptr;
  const float* const z = in.z ? row_of(in.z, 2, 1, b, 0, h * P) : nullptr;
  each_vector(P, [&](auto lanes, int64_t p, int) {
    Vec v = lanes.load(y + p);
    if (D != nullptr) v += (in.D.rank == 2 ? lanes.load(D + p) : splat(*D)) * lanes.load(x + p);
    if (z != nullptr) v *= silu(lanes.load(z + p));
    lanes.store(y + p, v);
  });
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
      const Vec next = state * splat(decays.last()) + lanes.load(B + n) * splat(decays.dt[0] * x[p]);
      if (saved != nullptr) lanes.store(saved + p * N + n, state);
      lanes.store(after + p * N + n, next);
      total[chain] += next * lanes.load(C + n);
    });
    y[p] = total.sum();
  }
  finish(in, out, b, h);
}

/// One token of every row: nothing to multiply matrices for.
void steps(const Inputs& in, const Outputs& out, const Options& options) {
  constexpr int64_t kGrain = 1 << 15;
  parallel_for(in.batch * in.heads, 1 + kGrain / in.state_size(), [&](int64_t begin, int64_t end) {
    alignas(64) float memory[Decays::kArrays][16];
    int next = 0;
    Decays decays([&](int arrays) { return memory[(next += arrays) - arrays]; });
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t b = unit / in.heads, h = unit % in.heads;
      decays.load(in, options, b, h, {0, 1, false, 0});
      step(in, out, b, h, decays);
    }
  });
}

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
  const int64_t pitch = padded(whole_panels(most));
  const int64_t chunks = in.length > 0 ? (in.length + options.chunkSize - 1) / options.chunkSize : 0;
  const int64_t parts = parts_of_group(in), per_part = (per_group + parts - 1) / parts;
  const int64_t state_room = N * whole_panels(P);
  const int64_t room = (pitch + N + Decays::kArrays) * pitch + most * whole_panels(P) + per_part * state_room +
                       Workspace::floats_of_terms(most) + 16 * 16;
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
    float* const states = memory.take(per_part * state_room);
    float* const x = memory.take(most * whole_panels(P));
    Term* const terms = memory.take_terms(most);
    Decays decays([&](int arrays) { return memory.take(arrays * pitch); });
    const auto save = [&](int64_t r, const View& view, int64_t at) {
      if (view) unpack_transpose(states + r * state_room, N, P, view.as<float>() + (at * H + first + r) * N * P);
    };

    for (int64_t r = 0; r < heads; r++) {
      if (in.initialState) {
        pack_transpose(in.initialState.as<float>() + (b * H + first + r) * N * P, N, P, N, states + r * state_room);
      } else {
        clear(states + r * state_room, state_room);
      }
    }
    const int64_t tokens = row_length(in.lengths, b, in.length);
    for (int64_t begin = 0; begin < tokens;) {
      const Segment s = segment_at(in, options, b, begin, tokens);
      const TokenRows B(in.B, 2, in.length, b, begin, g * N), C(in.C, 2, in.length, b, begin, g * N);
      products_of_group(C, B, s.size(), N, transposed, cb, pitch);
      for (int64_t r = 0; r < heads; r++) {
        if (s.chunk >= 0) save(r, out.states, b * chunks + s.chunk);
        decays.load(in, options, b, first + r, s);
        Head{in, out, decays, b, first + r, states + r * state_room, x, terms}.run(s, C, B, cb, pitch);
      }
      begin = s.end;
    }
    for (int64_t r = 0; r < heads; r++) {
      for (int64_t chunk = (tokens + options.chunkSize - 1) / options.chunkSize; chunk < chunks; chunk++) {
        save(r, out.states, b * chunks + chunk);
      }
      save(r, out.finalState, b);
      TokenRows(out.y, 2, in.length, b, tokens, (first + r) * P).clear(in.length - tokens, P);
    }
  });
  return failed ? fail("out of memory for the work space of a chunk of %lld tokens", static_cast<long long>(most)) : nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
