// The Mamba-2 scan, backward, segment by segment from a row's end. With g = dY, M the decays, K = C B^T . M,
// W_ij = (g_i . X_j) M_ij and dS the gradient of the state that leaves the segment:
//   dX = K^T g + e^{a_n - a} B dS^T,  dC = W B + e^a g S,  dB = W^T C + e^{a_n - a} X dS,
//   da_i = sum_j (W . C B^T)_ij - sum_k (W . C B^T)_ki + e^{a_i} g_i . (S C_i) - q_i, and at the end of the segment
//   + sum q + e^{a_n} <dS, S>, where q_j = e^{a_n - a_j} X_j . (dS B_j);  dS <- e^{a_n} dS + sum_i e^{a_i} g_i C_i^T.
// One unit of work is one group of heads of one row; sums over rows are made afterwards, in order.
// Knows the recurrence and its gradients. Knows no tape.

#include <atomic>
#include <initializer_list>

#include "ssd.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

using namespace ssd;

using Wide = VectorOf<double, kWide>::Type;

inline void store_wide(double* to, Wide v) { memcpy(to, &v, sizeof v); }

struct Gradients {
  View states, dy, dfinalState;
  View dx, ddt, dA, dB, dC, dD, dz, ddtBias, dinitialState;

  explicit Gradients(Args& args)
      : states(args.view()),
        dy(args.view()),
        dfinalState(args.view()),
        dx(args.view()),
        ddt(args.view()),
        dA(args.view()),
        dB(args.view()),
        dC(args.view()),
        dD(args.view()),
        dz(args.view()),
        ddtBias(args.view()),
        dinitialState(args.view()) {}
};

/// Gradients that are summed over a row's tokens, per row and head: dA, ddtBias, then dD by channel.
struct Partials {
  float* memory;
  int64_t heads, headDim;
  int64_t size() const { return 2 + headDim; }
  float* at(int64_t b, int64_t h) const { return memory + (b * heads + h) * size(); }
};

/// What a unit of work computes with.
struct Work {
  float *cb, *transposed, *k, *w, *w_sum;
  Decays decays;
  /// In double: rows minus columns cancel, and their sums give the gradient of A.
  double* da;
  float *x, *xt, *g, *gs, *dx, *inner;
  float *s, *st, *dst;
  /// dS of every head of the group, (P x N) each.
  float* ds;
  float *db, *dc;
  int64_t pitch;

  Work(Workspace& memory, const Inputs& in, int64_t most, int64_t pitch)
      : decays([&] { return memory.take(pitch); }), pitch(pitch) {
    const int64_t N = in.state, P = in.headDim, wide = N > P ? N : P;
    for (float** square : {&cb, &k, &w, &w_sum}) *square = memory.take(pitch * pitch);
    transposed = memory.take(wide * pitch);
    da = reinterpret_cast<double*>(memory.take(2 * pitch));
    for (float** tokens : {&x, &g, &gs, &dx}) *tokens = memory.take(most * P);
    inner = memory.take(most * wide);
    xt = memory.take(P * pitch);
    for (float** state : {&s, &st, &dst}) *state = memory.take(N * P);
    ds = memory.take(in.heads_per_group() * N * P);
    for (float** shared : {&db, &dc}) *shared = memory.take(most * N);
  }

  static int64_t room(const Inputs& in, int64_t most, int64_t pitch) {
    const int64_t N = in.state, P = in.headDim, wide = N > P ? N : P;
    return 4 * pitch * pitch + wide * pitch + (Decays::kArrays + 2) * pitch + most * (4 * P + wide) + P * pitch + 3 * N * P +
           in.heads_per_group() * N * P + 2 * most * N + 32 * kLanes;
  }
};

struct Unit {
  const Inputs& in;
  const Gradients& out;
  const Options& options;
  const Partials& partials;
  Work& work;
  int64_t b, group, chunks;

  float* row(const View& view, int inner, int64_t t, int64_t column) const {
    return row_of(view, inner, in.length, b, t, column);
  }

  void segment(const Segment& s) {
    const int64_t n = s.size(), N = in.state, per_group = in.heads_per_group();
    products_of_group(in, b, group, s, work.transposed, work.cb, work.pitch);
    clear(work.w_sum, n * work.pitch);
    clear(work.db, n * N);
    clear(work.dc, n * N);
    for (int64_t r = 0; r < per_group; r++) head(s, group * per_group + r, work.ds + r * in.state_size());
    // dC += W B, dB += W^T C, with W summed over the heads of the group.
    const float* const B = row(in.B, 2, s.begin, group * N);
    const float* const C = row(in.C, 2, s.begin, group * N);
    add_product(Shape::lower, n, N, n, {work.w_sum, work.pitch, 1}, {B, in.B.pitch(2)}, work.dc, N);
    add_product(Shape::upper, n, N, n, {work.w_sum, 1, work.pitch}, {C, in.C.pitch(2)}, work.db, N);
    for (int64_t i = 0; i < n; i++) {
      const size_t bytes = static_cast<size_t>(N) * sizeof(float);
      if (out.dB) memcpy(row(out.dB, 2, s.begin + i, group * N), work.db + i * N, bytes);
      if (out.dC) memcpy(row(out.dC, 2, s.begin + i, group * N), work.dc + i * N, bytes);
    }
  }

  /// The state that enters the segment, (P x N).
  void load_state(const Segment& s, int64_t h) {
    const int64_t size = in.state_size();
    if (s.fresh) return clear(work.s, size);
    const float* const from = out.states.as<float>() + ((b * chunks + s.chunk) * in.heads + h) * size;
    memcpy(work.s, from, static_cast<size_t>(size) * sizeof(float));
  }

  void head(const Segment& s, int64_t h, float* ds) {
    const int64_t n = s.size(), N = in.state, P = in.headDim, pitch = work.pitch;
    const Decays& decays = work.decays;
    load_state(s, h);
    work.decays.load(in, options, b, h, s);
    for (int64_t i = 0; i < n; i++) scale_row(work.x + i * P, row(in.x, 2, s.begin + i, h * P), decays.dt[i], P);
    load_gradient(s, h);
    triangle(n);

    // e^{a_n - a_j} B dS^T, q_j, and dB += (e^{a_n - a} X) dS; then dX += K^T g.
    const float* const B = row(in.B, 2, s.begin, group * N);
    const float* const C = row(in.C, 2, s.begin, group * N);
    transpose(ds, N, P, N, work.dst, P);
    set_product(Shape::full, n, P, N, {B, in.B.pitch(2), 1}, {work.dst, P}, work.dx, P);
    double sum_q = 0;
    for (int64_t j = 0; j < n; j++) {
      const float q = dot(work.x + j * P, work.dx + j * P, P) * decays.until[j];
      sum_q += q;
      work.da[j] -= q;
      scale_row(work.dx + j * P, work.dx + j * P, decays.until[j], P);
      scale_row(work.gs + j * P, work.x + j * P, decays.until[j], P);
    }
    add_product(Shape::full, n, N, P, {work.gs, P, 1}, {ds, N}, work.db, N);
    add_product(Shape::upper, n, P, n, {work.k, 1, pitch}, {work.g, P}, work.dx, P);

    // e^a g S is a part of dC, and with C of the decays; e^a g with C is the state's gradient.
    for (int64_t i = 0; i < n; i++) scale_row(work.gs + i * P, work.g + i * P, decays.since[i], P);
    set_product(Shape::full, n, N, P, {work.gs, P, 1}, {work.s, N}, work.inner, N);
    for (int64_t i = 0; i < n; i++) {
      work.da[i] += dot(work.inner + i * N, C + i * in.C.pitch(2), N);
      add_scaled_row(work.dc + i * N, work.inner + i * N, 1, N);
    }
    const float last = decays.since[n - 1];
    work.da[n - 1] += sum_q + last * dot(ds, work.s, N * P);
    if (s.fresh) {
      clear(ds, N * P);
    } else {
      scale_row(ds, ds, last, N * P);
      add_product(Shape::full, P, N, n, {work.gs, 1, P}, {C, in.C.pitch(2)}, ds, N);
    }
    store(s, h);
  }

  /// W = (g X^T) . M, added up over heads; K = C B^T . M; and into da the rows minus the columns of W . C B^T.
  void triangle(int64_t n) {
    const int64_t P = in.headDim, pitch = work.pitch;
    transpose(work.x, P, n, P, work.xt, pitch);
    set_product(Shape::lower_result, n, padded(n), P, {work.g, P, 1}, {work.xt, pitch}, work.w, pitch);
    for (int64_t i = 0; i < padded(n); i++) work.da[i] = 0;
    Wide row_sums[2] = {};
    work.decays.each(n, [&](int64_t i, int64_t j, Vec decay, const auto& keep) {
      const int64_t at = i * pitch + j;
      const Vec own = keep(load(work.w + at) * decay), product = load(work.cb + at);
      DIFFMAMBA_ISA::store(work.k + at, keep(product * decay));
      DIFFMAMBA_ISA::store(work.w_sum + at, load(work.w_sum + at) + own);
      float both[kLanes];
      DIFFMAMBA_ISA::store(both, keep(own * product));
      for (int half = 0; half < 2; half++) {
        const Wide wide = load_wide<double>(both + half * kWide);
        row_sums[half] += wide;
        double* const column = work.da + j + half * kWide;
        store_wide(column, load_wide<double>(column) - wide);
      }
      if (j + kLanes <= i) return;
      const Wide sums = row_sums[0] + row_sums[1];
      for (int lane = 0; lane < kWide; lane++) work.da[i] += sums[lane];
      row_sums[0] = row_sums[1] = Wide{};
    });
    clear_future(work.k, n, pitch);
  }

  /// g = dy, with the gate taken off; and dz, for which the output before the gate is computed again.
  void load_gradient(const Segment& s, int64_t h) {
    const int64_t n = s.size(), P = in.headDim;
    if (!out.dy) {
      clear(work.g, n * P);
      for (int64_t i = 0; i < n && in.z && out.dz; i++) clear(row(out.dz, 2, s.begin + i, h * P), P);
      return;
    }
    if (in.z && out.dz) output_before_gate(s, h);
    for (int64_t i = 0; i < n; i++) {
      const float* const dy = row(out.dy, 2, s.begin + i, h * P);
      float* const g = work.g + i * P;
      if (!in.z) {
        memcpy(g, dy, static_cast<size_t>(P) * sizeof(float));
        continue;
      }
      const float* const z = row(in.z, 2, s.begin + i, h * P);
      float* const dz = out.dz ? row(out.dz, 2, s.begin + i, h * P) : nullptr;
      each_vector(P, [&](auto lanes, int64_t p, int) {
        const Vec gate = lanes.load(z + p), sigma = sigmoid(gate), given = lanes.load(dy + p);
        lanes.store(g + p, given * gate * sigma);
        if (dz == nullptr) return;
        const Vec slope = sigma * (splat(1) + gate * (splat(1) - sigma));
        lanes.store(dz + p, given * lanes.load(work.inner + i * P + p) * slope);
      });
    }
  }

  /// Into `inner`.
  void output_before_gate(const Segment& s, int64_t h) {
    const int64_t n = s.size(), P = in.headDim, N = in.state, pitch = work.pitch;
    const float* const C = row(in.C, 2, s.begin, group * N);
    transpose(work.s, N, P, N, work.st, P);
    set_product(Shape::full, n, P, N, {C, in.C.pitch(2), 1}, {work.st, P}, work.inner, P);
    for (int64_t i = 0; i < n; i++) scale_row(work.inner + i * P, work.inner + i * P, work.decays.since[i], P);
    decayed(work.decays, n, work.cb, work.k, pitch);
    add_product(Shape::lower, n, P, n, {work.k, pitch, 1}, {work.x, P}, work.inner, P);
    for (int64_t i = 0; i < n; i++) {
      const float* const x = row(in.x, 2, s.begin + i, h * P);
      for (int64_t p = 0; p < P; p++) work.inner[i * P + p] += skip(h, p) * x[p];
    }
  }

  /// D of one channel.
  float skip(int64_t h, int64_t p) const {
    if (!in.D) return 0;
    return in.D.rank == 2 ? in.D.as<float>()[h * in.headDim + p] : in.D.as<float>()[h];
  }

  /// dx, ddt and the sums over tokens.
  void store(const Segment& s, int64_t h) {
    const int64_t n = s.size(), P = in.headDim;
    const float A = in.A.as<float>()[h];
    const bool per_channel = in.D && in.D.rank == 2;
    const float *const dt = work.decays.dt, *const raw = work.decays.raw;
    // Softplus has sigma(raw) as its slope; at and beyond a limit dt is no function of raw.
    float* const slope = work.decays.until;
    for (int64_t i = 0; i < n; i += kLanes) {
      const Vec given = load(raw + i), value = options.dtSoftplus ? softplus(given) : given;
      const Vec inside = (value < splat(options.low)) | (value > splat(options.high)) ? Vec{} : splat(1);
      DIFFMAMBA_ISA::store(slope + i, options.dtSoftplus ? sigmoid(given) * inside : inside);
    }
    float* const sums = partials.at(b, h);
    double later = 0, sum_a = 0;
    for (int64_t i = n - 1; i >= 0; i--) {
      const int64_t t = s.begin + i;
      const float *const x = row(in.x, 2, t, h * P), *const g = work.g + i * P, *const dx = work.dx + i * P;
      float* const to = out.dx ? row(out.dx, 2, t, h * P) : work.dx + i * P;
      later += work.da[i];
      sum_a += dt[i] * later;
      Chains total(0);
      each_vector(P, [&](auto lanes, int64_t p, int chain) {
        const Vec input = lanes.load(x + p), own = lanes.load(dx + p), given = lanes.load(g + p);
        const Vec d = per_channel ? lanes.load(in.D.as<float>() + h * P + p) : splat(skip(h, p));
        total[chain] += input * own;
        lanes.store(to + p, splat(dt[i]) * own + d * given);
        lanes.store(sums + 2 + p, lanes.load(sums + 2 + p) + given * input);
      });
      const float ddt = (static_cast<float>(A * later) + total.sum()) * slope[i];
      sums[1] += ddt;
      if (out.ddt) *row(out.ddt, 1, t, h) = ddt;
    }
    sums[0] += static_cast<float>(sum_a);
  }

  void clear_padding(int64_t tokens) const {
    const int64_t per_group = in.heads_per_group(), first = group * per_group, P = in.headDim, N = in.state;
    for (int64_t t = tokens; t < in.length; t++) {
      if (out.dx) clear(row(out.dx, 2, t, first * P), per_group * P);
      if (out.dz) clear(row(out.dz, 2, t, first * P), per_group * P);
      if (out.ddt) clear(row(out.ddt, 1, t, first), per_group);
      if (out.dB) clear(row(out.dB, 2, t, group * N), N);
      if (out.dC) clear(row(out.dC, 2, t, group * N), N);
    }
  }

  void run() {
    const int64_t per_group = in.heads_per_group(), size = in.state_size();
    const int64_t first = (b * in.heads + group * per_group) * size;
    const size_t bytes = static_cast<size_t>(per_group * size) * sizeof(float);
    if (out.dfinalState) {
      memcpy(work.ds, out.dfinalState.as<float>() + first, bytes);
    } else {
      clear(work.ds, per_group * size);
    }
    clear(partials.at(b, group * per_group), per_group * partials.size());
    const int64_t tokens = row_length(in.lengths, b, in.length);
    clear_padding(tokens);
    // The segments of a chunk are found from its beginning and walked from its end.
    for (int64_t chunk = (tokens + options.chunkSize - 1) / options.chunkSize - 1; chunk >= 0; chunk--) {
      const int64_t begin = chunk * options.chunkSize;
      const int64_t end = begin + options.chunkSize < tokens ? begin + options.chunkSize : tokens;
      for (int64_t stop = end; stop > begin;) {
        int64_t start = stop - 1;
        while (start > begin && !starts_sequence(in.seqIdx, b, in.length, start)) start--;
        segment({start, stop, starts_sequence(in.seqIdx, b, in.length, start), start == begin ? chunk : -1});
        stop = start;
      }
    }
    if (out.dinitialState) memcpy(out.dinitialState.as<float>() + first, work.ds, bytes);
  }
};

/// The gradients of A, dtBias and D: sums over the rows, in order.
void sum_rows(const Inputs& in, const Gradients& out, const Partials& partials) {
  for (int64_t h = 0; h < in.heads; h++) {
    double dA = 0, ddtBias = 0, dD = 0;
    for (int64_t p = 0; p < in.headDim; p++) {
      double channel = 0;
      for (int64_t b = 0; b < in.batch; b++) channel += partials.at(b, h)[2 + p];
      dD += channel;
      if (out.dD && in.D.rank == 2) out.dD.as<float>()[h * in.headDim + p] = static_cast<float>(channel);
    }
    for (int64_t b = 0; b < in.batch; b++) {
      dA += partials.at(b, h)[0];
      ddtBias += partials.at(b, h)[1];
    }
    if (out.dA) out.dA.as<float>()[h] = static_cast<float>(dA);
    if (out.ddtBias) out.ddtBias.as<float>()[h] = static_cast<float>(ddtBias);
    if (out.dD && in.D.rank != 2) out.dD.as<float>()[h] = static_cast<float>(dD);
  }
}

}  // namespace

Error ssdScanBackward(Args args) {
  const Inputs in(args);
  const Gradients out(args);
  const Options options(args);
  const int64_t most = options.chunkSize < in.length ? options.chunkSize : in.length;
  const int64_t pitch = padded(most);
  const int64_t chunks = in.length > 0 ? (in.length + options.chunkSize - 1) / options.chunkSize : 0;
  struct PartialSum {
    float x;
  };
  Partials partials{nullptr, in.heads, in.headDim};
  partials.memory = reinterpret_cast<float*>(scratch<PartialSum>(in.batch * in.heads * partials.size() + 1));
  std::atomic<bool> failed{partials.memory == nullptr};
  if (!failed) {
    parallel_for(in.batch * in.groups, 1, [&](int64_t unit, int64_t) {
      Workspace memory(Work::room(in, most, pitch));
      if (!memory) {
        failed = true;
        return;
      }
      Work work(memory, in, most, pitch);
      Unit{in, out, options, partials, work, unit / in.groups, unit % in.groups, chunks}.run();
    });
  }
  if (failed) return fail("out of memory for the work space of a chunk of %lld tokens", static_cast<long long>(most));
  sum_rows(in, out, partials);
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
