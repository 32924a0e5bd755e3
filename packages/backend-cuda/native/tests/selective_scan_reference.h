// The selective scan and its gradient as plain loops in double precision, and random inputs of a case. Knows no kernel.
#pragma once

#include "ssd_testing.h"

struct Case {
  const char* name;
  int B, L, D, N, G, chunk;
  bool initial = true, dfinal = true, seq = false, lengths = false, skip = true, z = true, bias = true, softplus = true, aligned = true, dy = true;
};

/// Packed rows [u | delta | z | B | C].
struct Rows {
  int u, delta, z, B, C, pitch;
  explicit Rows(const Case& c) {
    const auto up = [&](int n) { return c.aligned ? (n + 7) / 8 * 8 : n; };
    u = c.aligned ? 8 : 1;
    delta = u + up(c.D);
    z = delta + up(c.D);
    B = z + up(c.D);
    C = B + up(c.G * c.N);
    pitch = C + up(c.G * c.N) + (c.aligned ? 8 : 2);
  }
};

struct Host {
  Doubles rows, A, D, bias, initial, dy, dfinal;
  std::vector<int> seq, lengths;
};
struct Wanted {
  Doubles y, final_state, states, grads, dA, dD, dbias, dinitial;
};

template <typename T>
Host make(const Case& c, Random& random) {
  Host h;
  const Rows r(c);
  h.rows.resize(static_cast<size_t>(c.B) * c.L * r.pitch);
  for (size_t i = 0; i < h.rows.size(); i++) {
    const int at = static_cast<int>(i % r.pitch);
    double v = random.between(-1, 1);
    if (at >= r.delta && at < r.z) v = c.softplus ? 4 * v - 2 : 0.05 + 0.5 * std::abs(v);
    h.rows[i] = as_double(from_double<T>(v));
  }
  const auto fill = [&](Doubles& v, size_t n, double low, double high) {
    v.resize(n);
    for (double& x : v) x = static_cast<float>(random.between(low, high));
  };
  fill(h.A, static_cast<size_t>(c.D) * c.N, -3, -0.1);
  if (c.skip) fill(h.D, c.D, -1, 1);
  if (c.bias) fill(h.bias, c.D, -1, 1);
  if (c.initial) fill(h.initial, static_cast<size_t>(c.B) * c.D * c.N, -1, 1);
  if (c.dfinal) fill(h.dfinal, static_cast<size_t>(c.B) * c.D * c.N, -1, 1);
  if (c.dy) {
    h.dy.resize(static_cast<size_t>(c.B) * c.L * c.D);
    for (double& v : h.dy) v = as_double(from_double<T>(random.between(-1, 1)));
  }
  if (c.seq)
    for (int b = 0; b < c.B; b++)
      for (int t = 0, id = 0; t < c.L; t++) h.seq.push_back(id += random.next() < 0.05);
  if (c.lengths)
    for (int b = 0; b < c.B; b++) h.lengths.push_back(b % 3 == 0 ? c.L - c.L / 3 : b % 3 == 1 ? 0 : c.L);
  return h;
}

double silu_of(double x) { return x / (1 + std::exp(-x)); }
double silu_slope(double x) { const double s = 1 / (1 + std::exp(-x)); return s * (1 + x * (1 - s)); }

Wanted reference(const Case& c, const Host& h) {
  const Rows r(c);
  const int chunks = (c.L + c.chunk - 1) / c.chunk;
  Wanted w;
  w.y.assign(static_cast<size_t>(c.B) * c.L * c.D, 0);
  w.final_state.assign(static_cast<size_t>(c.B) * c.D * c.N, 0);
  w.states.assign(static_cast<size_t>(c.B) * chunks * c.D * c.N, 0);
  w.grads.assign(h.rows.size(), 0);
  w.dinitial.assign(w.final_state.size(), 0);
  w.dA.assign(static_cast<size_t>(c.D) * c.N, 0);
  w.dD.assign(c.D, 0);
  w.dbias.assign(c.D, 0);
  const size_t shared = static_cast<size_t>(c.B) * c.L * c.N;
  Doubles dBd(shared * c.D), dCd(shared * c.D);
#pragma omp parallel for schedule(dynamic)
  for (int d = 0; d < c.D; d++) {
    for (int b = 0; b < c.B; b++) {
      const int g = d * c.G / c.D, end = c.lengths ? h.lengths[b] : c.L;
      Doubles H(static_cast<size_t>(end + 1) * c.N), carry(c.N), y0(end), steps(end), raws(end);
      const size_t at = (static_cast<size_t>(b) * c.D + d) * c.N;
      if (c.initial) std::copy_n(h.initial.begin() + at, c.N, H.begin());
      const auto restart = [&](int t) { return c.seq && t > 0 && h.seq[b * c.L + t] != h.seq[b * c.L + t - 1]; };
      for (int t = 0; t < end; t++) {
        const double* row = &h.rows[(static_cast<size_t>(b) * c.L + t) * r.pitch];
        if (t % c.chunk == 0) std::copy_n(&H[static_cast<size_t>(t) * c.N], c.N, &w.states[((static_cast<size_t>(b) * chunks + t / c.chunk) * c.D + d) * c.N]);
        raws[t] = row[r.delta + d] + (c.bias ? h.bias[d] : 0);
        steps[t] = c.softplus ? std::log1p(std::exp(raws[t])) : raws[t];
        double sum = c.skip ? h.D[d] * row[r.u + d] : 0;
        for (int n = 0; n < c.N; n++) {
          const double decay = restart(t) ? 0 : std::exp(steps[t] * h.A[static_cast<size_t>(d) * c.N + n]);
          const double s = decay * H[static_cast<size_t>(t) * c.N + n] + steps[t] * row[r.u + d] * row[r.B + g * c.N + n];
          H[static_cast<size_t>(t + 1) * c.N + n] = s;
          sum += s * row[r.C + g * c.N + n];
        }
        y0[t] = sum;
        w.y[(static_cast<size_t>(b) * c.L + t) * c.D + d] = c.z ? sum * silu_of(row[r.z + d]) : sum;
      }
      const double* final_state = &H[static_cast<size_t>(end) * c.N];
      for (int k = (end + c.chunk - 1) / c.chunk; k < chunks; k++) std::copy_n(final_state, c.N, &w.states[((static_cast<size_t>(b) * chunks + k) * c.D + d) * c.N]);
      std::copy_n(final_state, c.N, &w.final_state[at]);
      if (c.dfinal) std::copy_n(h.dfinal.begin() + at, c.N, carry.begin());
      for (int t = end - 1; t >= 0; t--) {
        const size_t line = static_cast<size_t>(b) * c.L + t;
        const double* row = &h.rows[line * r.pitch];
        double* grad = &w.grads[line * r.pitch];
        double dy = c.dy ? h.dy[line * c.D + d] : 0;
        if (c.z) {
          grad[r.z + d] = dy * y0[t] * silu_slope(row[r.z + d]);
          dy *= silu_of(row[r.z + d]);
        }
        double gB = 0, dstep = 0;
        for (int n = 0; n < c.N; n++) {
          const double A = h.A[static_cast<size_t>(d) * c.N + n], decay = restart(t) ? 0 : std::exp(steps[t] * A);
          const double gn = row[r.C + g * c.N + n] * dy + carry[n], flow = gn * decay * H[static_cast<size_t>(t) * c.N + n];
          dCd[d * shared + line * c.N + n] = dy * H[static_cast<size_t>(t + 1) * c.N + n];
          dBd[d * shared + line * c.N + n] = gn * steps[t] * row[r.u + d];
          gB += gn * row[r.B + g * c.N + n];
          dstep += flow * A;
          w.dA[static_cast<size_t>(d) * c.N + n] += flow * steps[t];
          carry[n] = decay * gn;
        }
        dstep += gB * row[r.u + d];
        w.dD[d] += dy * row[r.u + d];
        grad[r.u + d] = (c.skip ? h.D[d] * dy : 0) + gB * steps[t];
        if (c.softplus) dstep /= 1 + std::exp(-raws[t]);
        grad[r.delta + d] = dstep;
        w.dbias[d] += dstep;
      }
      std::copy(carry.begin(), carry.end(), w.dinitial.begin() + at);
    }
  }
#pragma omp parallel for
  for (long long line = 0; line < static_cast<long long>(c.B) * c.L; line++) {
    for (int d = 0; d < c.D; d++) {
      for (int n = 0; n < c.N; n++) {
        w.grads[line * r.pitch + r.B + d * c.G / c.D * c.N + n] += dBd[d * shared + line * c.N + n];
        w.grads[line * r.pitch + r.C + d * c.G / c.D * c.N + n] += dCd[d * shared + line * c.N + n];
      }
    }
  }
  return w;
}
