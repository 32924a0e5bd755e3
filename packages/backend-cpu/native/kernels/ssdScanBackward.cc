// The Mamba-2 scan, backward, segment by segment from a row's end. With g = dY, M the decays, W_ij = (g_i . X_j) M_ij and dS
// the gradient of the state that leaves the segment:
//   dX = (C B^T . M)^T g + e^{a_n - a} B dS^T,  dC = W B + e^a g S,  dB = W^T C + e^{a_n - a} X dS,
//   da_i = sum_j (W . C B^T)_ij - sum_k (W . C B^T)_ki + e^{a_i} g_i . (S C_i) - q_i, and at the end of the segment
//   + sum q + e^{a_n} <dS, S>, where q_j = e^{a_n - a_j} X_j . (dS B_j);  dS <- e^{a_n} dS + sum_i e^{a_i} g_i C_i^T.
// Decays are split by blocks of tokens as in the forward pass (Decays in ssd.h). One unit of work is the heads of a group in one
// row, or a part of them where there are few rows; sums over rows and parts are made afterwards, in order.
// Knows the recurrence and its gradients. Knows no tape.

#include <algorithm>
#include <atomic>

#include "ssd_backward.h"

namespace diffmamba {
namespace DIFFMAMBA_ISA {
namespace {

using namespace ssd;

struct Unit {
  const Inputs& in;
  const Gradients& out;
  const Options& options;
  const Partials& partials;
  const Shared &dB, &dC;
  Work& work;
  int64_t b, group, part, first, heads, chunks;

  int64_t state_room() const { return in.state * whole_panels(in.headDim); }

  TokenRows rows_of_head(const View& view, const Segment& s, int64_t h) const {
    return {view, 2, in.length, b, s.begin, h * in.headDim};
  }

  void segment(const Segment& s) {
    const int64_t n = s.size(), N = in.state, pitch = work.pitch;
    const TokenRows B(in.B, 2, in.length, b, s.begin, group * N), C(in.C, 2, in.length, b, s.begin, group * N);
    products_of_group(C, B, n, N, work.b_transposed, work.cb, pitch);
    for (int64_t j = 0; j < n; j += 4) {
      for (int64_t i = std::max<int64_t>(0, j - kBlock) / kLanes * kLanes; i < n; i += kLanes) {
        transpose_rows(work.cb + i * pitch + j, pitch, work.bc + j * pitch + i, pitch);
      }
    }
    pack_columns<kPanel>(B.at, B.pitch, n, N, work.b_panels);
    pack_columns<kPanel>(C.at, C.pitch, n, N, work.c_panels);
    clear(work.w, n * pitch);
    clear(work.db, n * whole_panels(N));
    clear(work.dc, n * whole_panels(N));
    for (int64_t r = 0; r < heads; r++) head(s, B, C, first + r, work.dst + r * state_room());
    // dC += W B, dB += W^T C, with W summed over heads.
    const TokenRows to_b = dB.rows(in, b, s.begin, group, part), to_c = dC.rows(in, b, s.begin, group, part);
    for (int64_t panel = 0; panel < panels_of(N); panel++) {
      const int64_t at = panel * n * kPanel, width = panel_columns(N, panel);
      each_strip(0, n, [&](int64_t i, int64_t rows) {
        const Term row{work.w + i * pitch, work.b_panels + at, pitch, i + rows, 1};
        finish_shared<Lies::by_rows>(i, rows, width, row, work.dc + at, to_c, panel);
        const Term column{work.w + i * pitch + i, work.c_panels + at + i * kPanel, pitch, n - i, 1};
        finish_shared<Lies::by_columns>(i, rows, width, column, work.db + at, to_b, panel);
      });
    }
  }

  /// Rows i, i + 1, ... of a panel of dB or dC: what the heads gave and one term.
  template <Lies lies>
  void finish_shared(int64_t i, int64_t rows, int64_t width, const Term& term, float* sums, const TokenRows& to, int64_t panel) {
    if (!to) return;
    float* const tile = sums + i * kPanel;
    sum_terms<lies>(rows, width, &term, 1, tile, tile);
    for (int64_t r = 0; r < rows; r++) {
      float* const row = to.row(i + r) + panel * kPanel;
      each_column(width, [&](auto lanes, int64_t c) { lanes.store(row + c, load(tile + r * kPanel + c)); });
    }
  }

  void head(const Segment& s, const TokenRows& B, const TokenRows& C, int64_t h, float* dst) {
    const int64_t n = s.size(), N = in.state, P = in.headDim;
    const Decays& decays = work.decays;
    work.decays.load(in, options, b, h, s);
    const TokenRows x = rows_of_head(in.x, s, h);
    pack_scaled(x.at, x.pitch, n, P, decays.scaled_dt, work.x);
    transpose_panels(work.x, n, P, work.xt);
    const float* const state = s.fresh ? nullptr : out.states.as<float>() + ((b * chunks + s.chunk) * in.heads + h) * N * P;
    if (state != nullptr) pack_columns<kPanel>(state, N, P, N, work.s);
    const TokenRows g = load_gradient(s, C, h, state);
    pack_scaled(g.at, g.pitch, n, P, decays.from_end, work.g_scaled);
    transpose_panels(dst, N, P, work.ds);
    clear(work.balance, n * kLanes);
    clear(work.inner, n * kLanes);
    clear(work.by_column, work.pitch);
    for (int64_t i = 0; i < n; i++) work.da[i] = work.xdx[i] = 0;

    triangle(n);
    const float q = into_b(n, B);
    if (state != nullptr) into_c(n, C);
    add_lane_sums(work.balance, n, work.da);
    for (int64_t j = 0; j < n; j++) work.da[j] -= static_cast<double>(work.by_column[j]);
    work.da[n - 1] += static_cast<double>(q);
    if (state != nullptr) work.da[n - 1] += static_cast<double>(decays.last() * dot(work.ds, work.s, P * whole_panels(N)));
    into_x(s, h, B, x, g, dst);
    state_before(s, C, dst);
    finish(s, h);
  }

  /// W = (g X^T) . M, added up over heads; and into da the rows minus the columns of W . C B^T, whose diagonal cancels.
  void triangle(int64_t n) {
    const int64_t P = in.headDim, pitch = work.pitch;
    const Decays& decays = work.decays;
    Tile tile;
    for (int64_t block = 0; block < decays.blocks; block++) {
      const int64_t begin = decays.begin(block), end = decays.begin(block + 1);
      for (int64_t j = 0; j < begin; j++) work.rho[j] *= decays.rate[block];
      for (int64_t j = begin; j < end; j++) work.rho[j] = 1;
      for (int64_t j = end; j < whole_panels(end); j++) work.rho[j] = 0;
      for (int64_t j0 = 0; j0 < end; j0 += kPanel) {
        each_strip(begin, end, [&](int64_t i0, int64_t rows) {
          if (j0 >= i0 + rows) return;
          const int64_t width = std::min(kPanel, i0 + rows - j0);
          for (int64_t c = 0; c < panels_of(P); c++) {
            work.terms[c] = {work.g_scaled + (c * n + i0) * kPanel, work.xt + j0 * P + c * kPanel * kPanel, kPanel,
                             panel_columns(P, c), 1};
          }
          sum_terms<Lies::by_rows>(rows, width, work.terms, panels_of(P), nullptr, tile.at);
          for (int64_t j = j0; j < j0 + width; j += kLanes) {
            const Vec rho = load(work.rho + j);
            Vec by_column = load(work.by_column + j);
            for (int64_t i = std::max(i0, j); i < i0 + rows; i++) {
              const bool whole = i >= j + kLanes;
              const Vec all = tile.vector(i - i0, j - j0) * rho, own = whole ? all : up_to(all, i - j);
              store(work.w + i * pitch + j, load(work.w + i * pitch + j) + own);
              const Vec product = (whole ? all : up_to(all, i - j - 1)) * load(work.cb + i * pitch + j);
              store(work.balance + i * kLanes, load(work.balance + i * kLanes) + product);
              by_column += product;
            }
            store(work.by_column + j, by_column);
          }
        });
      }
    }
  }

  /// dB += e^{a_n - a} X dS; returns the sum of q.
  float into_b(int64_t n, const TokenRows& B) {
    return into_shared(n, work.x, work.ds, work.decays.until, work.db, B, -1);
  }

  /// dC += e^a g S.
  void into_c(int64_t n, const TokenRows& C) {
    into_shared(n, work.g_scaled, work.s, work.decays.since, work.dc, C, 1);
  }

  /// Adds scale_I (rows of block I) state to panels, and `sign` times its products with `rows`, summed up, to da; returns the sum of
  /// those.
  float into_shared(int64_t n, const float* left, const float* state, const float* scale, float* to, const TokenRows& rows,
                    float sign) {
    const int64_t N = in.state, P = in.headDim;
    const Decays& decays = work.decays;
    Tile tile;
    Vec total{};
    for (int64_t panel = 0; panel < panels_of(N); panel++, to += n * kPanel) {
      const int64_t width = panel_columns(N, panel);
      for (int64_t block = 0; block < decays.blocks; block++) {
        const Vec factor = splat(scale[block]);
        each_strip(decays.begin(block), decays.begin(block + 1), [&](int64_t i0, int64_t count) {
          for (int64_t c = 0; c < panels_of(P); c++) {
            work.terms[c] = {left + (c * n + i0) * kPanel, state + (panel * P + c * kPanel) * kPanel, kPanel,
                             panel_columns(P, c), 1};
          }
          sum_terms<Lies::by_rows>(count, width, work.terms, panels_of(P), nullptr, tile.at);
          for (int64_t i = i0; i < i0 + count; i++) {
            const float* const row = rows.row(i) + panel * kPanel;
            Vec products{};
            each_column(width, [&](auto lanes, int64_t c) {
              const Vec v = tile.vector(i - i0, c) * factor;
              store(to + i * kPanel + c, load(to + i * kPanel + c) + v);
              products += lanes.keep(v, Vec{}) * lanes.load(row + c);
            });
            total += products;
            store(work.balance + i * kLanes, load(work.balance + i * kLanes) + splat(sign) * products);
          }
        });
      }
    }
    return sum(total);
  }

  /// dX = (C B^T . M)^T g + e^{a_n - a} B dS^T, and of it dx, the sums x . dX and dD.
  void into_x(const Segment& s, int64_t h, const TokenRows& B, const TokenRows& x, const TokenRows& g, const float* dst) {
    const int64_t n = s.size(), N = in.state, P = in.headDim, pitch = work.pitch;
    const Decays& decays = work.decays;
    const TokenRows dx = rows_of_head(out.dx, s, h);
    const float* const D = in.D ? in.D.as<float>() + h * (in.D.rank == 2 ? P : 1) : nullptr;
    const bool per_channel = in.D.rank == 2;
    float* const sums = partials.at(b, h) + 2;
    Tile tile;
    for (int64_t panel = 0; panel < panels_of(P); panel++) {
      const int64_t width = panel_columns(P, panel);
      for (int64_t block = 0; block < decays.blocks; block++) {
        each_strip(decays.begin(block), decays.begin(block + 1), [&](int64_t j0, int64_t rows) {
          int64_t count = 0;
          work.terms[count++] = {B.row(j0), dst + panel * N * kPanel, B.pitch, N, 1};
          for (int64_t from = decays.blocks - 1; from >= block; from--) {
            const int64_t i = from > block ? decays.begin(from) : j0;
            const float scale = from + 1 < decays.blocks ? decays.rate[from + 1] : 1;
            work.terms[count++] = {work.bc + j0 * pitch + i, work.g_scaled + (panel * n + i) * kPanel, pitch,
                                   decays.begin(from + 1) - i, scale};
          }
          sum_terms<Lies::by_rows>(rows, width, work.terms, count, nullptr, tile.at);
          each_column(width, [&](auto lanes, int64_t c) {
            const int64_t p = panel * kPanel + c;
            const Vec d = D == nullptr ? Vec{} : per_channel ? lanes.load(D + p) : splat(*D);
            Vec total = lanes.load(sums + p);
            for (int64_t j = j0; j < j0 + rows; j++) {
              const Vec own = tile.vector(j - j0, c) * splat(decays.to_end[j]);
              const Vec input = lanes.load(x.row(j) + p), given = lanes.load(g.row(j) + p);
              store(work.inner + j * kLanes, load(work.inner + j * kLanes) + input * lanes.keep(own, Vec{}));
              if (dx) lanes.store(dx.row(j) + p, splat(decays.dt[j]) * own + d * given);
              total += given * input;
            }
            lanes.store(sums + p, total);
          });
        });
      }
    }
    add_lane_sums(work.inner, n, work.xdx);
  }

  /// dS of the state that enters the segment.
  void state_before(const Segment& s, const TokenRows& C, float* dst) {
    const int64_t n = s.size(), N = in.state, P = in.headDim;
    const Decays& decays = work.decays;
    if (s.fresh) return clear(dst, state_room());
    for (int64_t panel = 0; panel < panels_of(P); panel++) {
      float* const to = dst + panel * N * kPanel;
      each_strip(0, N, [&](int64_t m, int64_t rows) {
        int64_t count = 0;
        for (int64_t block = decays.blocks - 1; block >= 0; block--) {
          const int64_t i = decays.begin(block);
          const float scale = count > 0 ? decays.rate[block + 1] : 1;
          work.terms[count++] = {C.row(i) + m, work.g_scaled + (panel * n + i) * kPanel, C.pitch, decays.size(block), scale};
        }
        work.terms[count++] = {C.at, work.g_scaled, C.pitch, 0, decays.rate[0]};
        sum_terms<Lies::by_columns>(rows, panel_columns(P, panel), work.terms, count, to + m * kPanel, to + m * kPanel);
      });
    }
  }

  /// g = dy, with the gate taken off; and dz, for which the output before the gate is computed again.
  TokenRows load_gradient(const Segment& s, const TokenRows& C, int64_t h, const float* state) {
    const int64_t n = s.size(), P = in.headDim;
    const TokenRows g(work.g, P), dy = rows_of_head(out.dy, s, h), z = rows_of_head(in.z, s, h);
    const TokenRows dz = rows_of_head(out.dz, s, h);
    if (!dy) {
      g.clear(n, P);
      if (z) dz.clear(n, P);
      return g;
    }
    if (!z) return dy;
    if (dz) output_before_gate(s, C, h, state);
    for (int64_t i = 0; i < n; i++) {
      each_vector(P, [&](auto lanes, int64_t p, int) {
        const Vec gate = lanes.load(z.row(i) + p), sigma = sigmoid(gate), given = lanes.load(dy.row(i) + p);
        lanes.store(g.row(i) + p, given * gate * sigma);
        if (!dz) return;
        const Vec slope = sigma * (splat(1) + gate * (splat(1) - sigma));
        lanes.store(dz.row(i) + p, given * lanes.load(work.y + i * P + p) * slope);
      });
    }
    return g;
  }

  /// Into `y`.
  void output_before_gate(const Segment& s, const TokenRows& C, int64_t h, const float* state) {
    const int64_t n = s.size(), P = in.headDim, N = in.state;
    const TokenRows x = rows_of_head(in.x, s, h);
    const float* const D = in.D ? in.D.as<float>() + h * (in.D.rank == 2 ? P : 1) : nullptr;
    const bool per_channel = in.D.rank == 2;
    if (state != nullptr) pack_transpose(state, N, P, N, work.st);
    each_output(work.decays, C, work.cb, work.pitch, n, N, P, state == nullptr ? nullptr : work.st, work.x, work.terms,
                [&](auto lanes, int64_t i, int64_t p, Vec v) {
                  const Vec d = D == nullptr ? Vec{} : per_channel ? lanes.load(D + p) : splat(*D);
                  lanes.store(work.y + i * P + p, v + d * lanes.load(x.row(i) + p));
                });
  }

  /// ddt and the sums over tokens.
  void finish(const Segment& s, int64_t h) {
    const int64_t n = s.size();
    const float A = in.A.as<float>()[h];
    const float *const dt = work.decays.dt, *const raw = work.decays.raw;
    // Softplus has sigma(raw) as its slope; at and beyond a limit dt is no function of raw.
    float* const slope = work.one;
    for (int64_t i = 0; i < n; i += kLanes) {
      const Vec given = load(raw + i), value = options.dtSoftplus ? softplus(given) : given;
      const Vec inside = (value < splat(options.low)) | (value > splat(options.high)) ? Vec{} : splat(1);
      store(slope + i, options.dtSoftplus ? sigmoid(given) * inside : inside);
    }
    const TokenRows ddt(out.ddt, 1, in.length, b, s.begin, h);
    float* const sums = partials.at(b, h);
    double later = 0, sum_a = 0;
    for (int64_t i = n - 1; i >= 0; i--) {
      later += work.da[i];
      sum_a += static_cast<double>(dt[i]) * later;
      const float d = (static_cast<float>(static_cast<double>(A) * later) + static_cast<float>(work.xdx[i])) * slope[i];
      sums[1] += d;
      if (ddt) *ddt.row(i) = d;
    }
    sums[0] += static_cast<float>(sum_a);
  }

  void clear_padding(int64_t tokens) const {
    const int64_t P = in.headDim, rest = in.length - tokens;
    if (rest <= 0) return;
    TokenRows(out.dx, 2, in.length, b, tokens, first * P).clear(rest, heads * P);
    TokenRows(out.dz, 2, in.length, b, tokens, first * P).clear(rest, heads * P);
    TokenRows(out.ddt, 1, in.length, b, tokens, first).clear(rest, heads);
    dB.rows(in, b, tokens, group, part).clear(rest, in.state);
    dC.rows(in, b, tokens, group, part).clear(rest, in.state);
  }

  void run() {
    const int64_t N = in.state, P = in.headDim, size = in.state_size();
    const auto state_at = [&](const View& view, int64_t r) { return view.as<float>() + (b * in.heads + first + r) * size; };
    for (int64_t r = 0; r < heads; r++) {
      float* const dst = work.dst + r * state_room();
      if (out.dfinalState) {
        pack_transpose(state_at(out.dfinalState, r), N, P, N, dst);
      } else {
        clear(dst, state_room());
      }
    }
    clear(partials.at(b, first), heads * partials.size());
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
    for (int64_t r = 0; r < heads && out.dinitialState; r++) {
      unpack_transpose(work.dst + r * state_room(), N, P, state_at(out.dinitialState, r));
    }
  }
};

}  // namespace

Error ssdScanBackward(Args args) {
  const Inputs in(args);
  const Gradients out(args);
  const Options options(args);
  const int64_t most = options.chunkSize < in.length ? options.chunkSize : in.length;
  const int64_t pitch = padded(whole_panels(most)), per_group = in.heads_per_group();
  const int64_t chunks = in.length > 0 ? (in.length + options.chunkSize - 1) / options.chunkSize : 0;
  const int64_t parts = parts_of_group(in), per_part = (per_group + parts - 1) / parts;
  struct PartialSum {
    float x;
  };
  Partials partials{nullptr, in.heads, in.headDim};
  const int64_t sums = padded(in.batch * in.heads * partials.size() + 1);
  const int64_t share = parts > 1 ? in.batch * in.length * in.groups * in.state : 0;
  partials.memory = reinterpret_cast<float*>(scratch<PartialSum>(sums + 2 * parts * share));
  std::atomic<bool> failed{partials.memory == nullptr};
  const Shared dB{out.dB, share > 0 ? partials.memory + sums : nullptr, parts, share};
  const Shared dC{out.dC, share > 0 ? partials.memory + sums + parts * share : nullptr, parts, share};
  if (!failed) {
    parallel_for(in.batch * in.groups * parts, 1, [&](int64_t unit, int64_t) {
      const int64_t b = unit / parts / in.groups, g = unit / parts % in.groups, part = unit % parts;
      const int64_t first = g * per_group + part * per_part;
      const int64_t heads = std::max<int64_t>(0, std::min(per_part, (g + 1) * per_group - first));
      Workspace memory(Work::room(in, per_part, most, pitch));
      if (!memory) {
        failed = true;
        return;
      }
      Work work(memory, in, per_part, most, pitch);
      Unit{in, out, options, partials, dB, dC, work, b, g, part, first, heads, chunks}.run();
    });
  }
  if (failed) return fail("out of memory for the work space of a chunk of %lld tokens", static_cast<long long>(most));
  sum_rows(in, out, partials);
  dB.add_up(in);
  dC.add_up(in);
  return nullptr;
}

}  // namespace DIFFMAMBA_ISA
}  // namespace diffmamba
