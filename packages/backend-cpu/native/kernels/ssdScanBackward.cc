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
  float *cb, *transposed, *m, *w, *w_sum;
  float *dt, *a;
  /// In double: rows minus columns cancel, and their sums give the gradient of A.
  double* da;
  float *x, *xt, *g, *gs, *dx, *u, *y;
  float *s, *st, *dst;
  /// dS of every head of the group, (P x N) each.
  float* ds;
  float *db, *dc;
  int64_t pitch;

  Work(Workspace& memory, const Inputs& in, int64_t most, int64_t pitch) : pitch(pitch) {
    const int64_t N = in.state, P = in.headDim;
    for (float** square : {&cb, &m, &w, &w_sum}) *square = memory.take(pitch * pitch);
    transposed = memory.take((N > P ? N : P) * pitch);
    for (float** row : {&dt, &a}) *row = memory.take(pitch);
    da = reinterpret_cast<double*>(memory.take(2 * pitch));
    for (float** tokens : {&x, &g, &gs, &dx, &u, &y}) *tokens = memory.take(most * P);
    xt = memory.take(P * pitch);
    for (float** state : {&s, &st, &dst}) *state = memory.take(N * P);
    ds = memory.take(in.heads_per_group() * N * P);
    for (float** shared : {&db, &dc}) *shared = memory.take(most * N);
  }

  static int64_t room(const Inputs& in, int64_t most, int64_t pitch) {
    const int64_t N = in.state, P = in.headDim;
    return 4 * pitch * pitch + (N > P ? N : P) * pitch + 4 * pitch + 6 * most * P + P * pitch + 3 * N * P +
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

  /// The state that enters the segment, (P x N) and transposed.
  void load_state(const Segment& s, int64_t h) {
    const int64_t N = in.state, P = in.headDim;
    if (s.fresh) {
      clear(work.s, N * P);
      clear(work.st, N * P);
      return;
    }
    const float* const from = out.states.as<float>() + ((b * chunks + s.chunk) * in.heads + h) * N * P;
    memcpy(work.s, from, static_cast<size_t>(N * P) * sizeof(float));
    transpose(from, N, P, N, work.st, P);
  }

  void head(const Segment& s, int64_t h, float* ds) {
    const int64_t n = s.size(), N = in.state, P = in.headDim, pitch = work.pitch;
    float *const m = work.m, *const w = work.w, *const a = work.a, *const dt = work.dt;
    load_state(s, h);
    decays(in, options, b, h, s, dt, a);
    decay_matrix(a, n, m, pitch);
    for (int64_t i = 0; i < n; i++) scale_row(work.x + i * P, row(in.x, 2, s.begin + i, h * P), dt[i], P);
    load_gradient(s, h);

    // W = (g X^T) . M, then K = C B^T . M in the place of M.
    clear(work.xt, P * pitch);
    transpose(work.x, P, n, P, work.xt, pitch);
    clear(w, n * pitch);
    add_product(Shape::full, n, pitch, P, {work.g, P, 1}, {work.xt, pitch}, w, pitch);
    for (int64_t i = 0; i < n * pitch; i++) {
      w[i] *= m[i];
      m[i] *= work.cb[i];
      work.w_sum[i] += w[i];
    }

    // e^{a_n - a_j} B dS^T, and q_j.
    const float* const B = row(in.B, 2, s.begin, group * N);
    const float* const C = row(in.C, 2, s.begin, group * N);
    transpose(ds, N, P, N, work.dst, P);
    clear(work.dx, n * P);
    add_product(Shape::full, n, P, N, {B, in.B.pitch(2), 1}, {work.dst, P}, work.dx, P);
    double sum_q = 0;
    for (int64_t j = 0; j < n; j++) {
      const float decay = std::exp(a[n - 1] - a[j]);
      const float q = decay * dot(work.x + j * P, work.dx + j * P, P);
      sum_q += q;
      work.da[j] = -q;
      scale_row(work.dx + j * P, work.dx + j * P, decay, P);
      scale_row(work.gs + j * P, work.x + j * P, decay, P);
    }
    // dB += (e^{a_n - a} X) dS, dX += K^T g.
    add_product(Shape::full, n, N, P, {work.gs, P, 1}, {ds, N}, work.db, N);
    add_product(Shape::upper, n, P, n, {m, 1, pitch}, {work.g, P}, work.dx, P);

    // e^a g: with the state that entered, for dC and the decays; with C, for the state's gradient.
    clear(work.u, n * P);
    add_product(Shape::full, n, P, N, {C, in.C.pitch(2), 1}, {work.st, P}, work.u, P);
    for (int64_t i = 0; i < n; i++) {
      scale_row(work.gs + i * P, work.g + i * P, std::exp(a[i]), P);
      work.da[i] += dot(work.gs + i * P, work.u + i * P, P);
    }
    add_product(Shape::full, n, N, P, {work.gs, P, 1}, {work.s, N}, work.dc, N);
    // Rows minus columns of R = W . C B^T.
    for (int64_t i = 0; i < n; i++) {
      const float* const wi = w + i * pitch;
      const float* const ci = work.cb + i * pitch;
      double row_sum = 0;
      for (int64_t j = 0; j <= i; j++) {
        const double r = static_cast<double>(wi[j]) * ci[j];
        row_sum += r;
        work.da[j] -= r;
      }
      work.da[i] += row_sum;
    }
    const float last = std::exp(a[n - 1]);
    work.da[n - 1] += sum_q + last * dot(ds, work.s, N * P);

    if (s.fresh) {
      clear(ds, N * P);
    } else {
      scale_row(ds, ds, last, N * P);
      add_product(Shape::full, P, N, n, {work.gs, 1, P}, {C, in.C.pitch(2)}, ds, N);
    }
    store(s, h);
  }

  /// g = dy, with the gate taken off; and dz, for which the output before the gate is computed again.
  void load_gradient(const Segment& s, int64_t h) {
    const int64_t n = s.size(), P = in.headDim, N = in.state;
    if (!out.dy) {
      clear(work.g, n * P);
      if (in.z && out.dz) {
        for (int64_t i = 0; i < n; i++) clear(row(out.dz, 2, s.begin + i, h * P), P);
      }
      return;
    }
    for (int64_t i = 0; i < n; i++) {
      memcpy(work.g + i * P, row(out.dy, 2, s.begin + i, h * P), static_cast<size_t>(P) * sizeof(float));
    }
    if (!in.z) return;
    if (out.dz) {
      output_before_gate(s, h, n, P, N);
      for (int64_t i = 0; i < n; i++) {
        float* const to = row(out.dz, 2, s.begin + i, h * P);
        const float* const z = row(in.z, 2, s.begin + i, h * P);
        for (int64_t p = 0; p < P; p++) {
          const float sigma = 1.0f / (1.0f + std::exp(-z[p]));
          to[p] = work.g[i * P + p] * work.y[i * P + p] * sigma * (1.0f + z[p] * (1.0f - sigma));
        }
      }
    }
    for (int64_t i = 0; i < n; i++) {
      const float* const z = row(in.z, 2, s.begin + i, h * P);
      for (int64_t p = 0; p < P; p++) work.g[i * P + p] *= z[p] / (1.0f + std::exp(-z[p]));
    }
  }

  void output_before_gate(const Segment& s, int64_t h, int64_t n, int64_t P, int64_t N) {
    const int64_t pitch = work.pitch;
    const float* const C = row(in.C, 2, s.begin, group * N);
    for (int64_t i = 0; i < n * pitch; i++) work.w[i] = work.m[i] * work.cb[i];
    clear(work.y, n * P);
    add_product(Shape::full, n, P, N, {C, in.C.pitch(2), 1}, {work.st, P}, work.y, P);
    for (int64_t i = 0; i < n; i++) scale_row(work.y + i * P, work.y + i * P, std::exp(work.a[i]), P);
    add_product(Shape::lower, n, P, n, {work.w, pitch, 1}, {work.x, P}, work.y, P);
    for (int64_t i = 0; i < n; i++) {
      const float* const x = row(in.x, 2, s.begin + i, h * P);
      for (int64_t p = 0; p < P; p++) work.y[i * P + p] += skip(h, p) * x[p];
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
    float* const sums = partials.at(b, h);
    double later = 0, sum_a = 0;
    for (int64_t i = n - 1; i >= 0; i--) {
      const int64_t t = s.begin + i;
      const float* const x = row(in.x, 2, t, h * P);
      const float* const g = work.g + i * P;
      const float* const dx = work.dx + i * P;
      later += work.da[i];
      sum_a += work.dt[i] * later;
      float value = raw_dt(in, b, t, h);
      const float before = value;
      if (options.dtSoftplus) value = softplus(value);
      float ddt = static_cast<float>(A * later) + dot(x, dx, P);
      if (value < options.low || value > options.high) ddt = 0;
      if (options.dtSoftplus) ddt *= 1.0f / (1.0f + std::exp(-before));
      sums[1] += ddt;
      if (out.ddt) *row(out.ddt, 1, t, h) = ddt;
      if (out.dx) {
        float* const to = row(out.dx, 2, t, h * P);
        for (int64_t p = 0; p < P; p++) to[p] = work.dt[i] * dx[p] + skip(h, p) * g[p];
      }
      for (int64_t p = 0; p < P; p++) sums[2 + p] += g[p] * x[p];
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
    clear(work.a, work.pitch);
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
