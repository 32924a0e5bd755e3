// The Mamba-2 scan and its gradient as plain loops in double precision, and random inputs of a case. Knows no kernel.
#pragma once

#include "ssd_testing.h"

struct Case {
  const char* name;
  int B, L, H, P, N, G, chunk;
  bool initial = true, dfinal = true, seq = false, lengths = false, skip = true, by_channel = false, z = false, bias = true, softplus = true;
  double low = 0, high = INFINITY;
  bool aligned = true, small = false, dy = true;
};

/// Packed rows [z | x | B | C | dt] of inputs or gradients.
struct Rows {
  int z, x, B, C, dt, pitch;
  explicit Rows(const Case& c) {
    const auto up = [&](int n) { return c.aligned ? (n + 7) / 8 * 8 : n; };
    z = c.aligned ? 8 : 1;
    x = z + up(c.H * c.P);
    B = x + up(c.H * c.P);
    C = B + up(c.G * c.N);
    dt = C + up(c.G * c.N);
    pitch = dt + up(c.H) + (c.aligned ? 8 : 2);
    if (c.aligned) pitch = (pitch + 7) / 8 * 8;
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
double rounded(double x) { return as_double(from_double<T>(x)); }

template <typename T>
Host make(const Case& c, Random& random) {
  Host h;
  const Rows r(c);
  h.rows.resize(static_cast<size_t>(c.B) * c.L * r.pitch);
  for (double& v : h.rows) v = rounded<T>(random.between(-1, 1));
  if (!c.softplus)
    for (size_t i = 0; i < h.rows.size(); i++)
      if (static_cast<int>(i % r.pitch) >= r.dt) h.rows[i] = rounded<T>(0.05 + 0.7 * std::abs(h.rows[i]));
  const auto fill = [&](Doubles& v, size_t n, double low, double high) {
    v.resize(n);
    for (double& x : v) x = static_cast<float>(random.between(low, high));
  };
  const size_t state = static_cast<size_t>(c.B) * c.H * c.P * c.N;
  fill(h.A, c.H, -2, -0.05);
  if (c.skip) fill(h.D, c.by_channel ? c.H * c.P : c.H, -1, 1);
  if (c.bias) fill(h.bias, c.H, -3, 0);
  if (c.initial) fill(h.initial, state, -1, 1);
  if (c.dfinal) fill(h.dfinal, state, -1, 1);
  if (c.dy) {
    h.dy.resize(static_cast<size_t>(c.B) * c.L * c.H * c.P);
    for (double& v : h.dy) v = rounded<T>(random.between(-1, 1));
  }
  if (c.seq) {
    for (int b = 0; b < c.B; b++)
      for (int t = 0, id = 0; t < c.L; t++) h.seq.push_back(id += random.next() < 0.03);
  }
  if (c.lengths)
    for (int b = 0; b < c.B; b++) h.lengths.push_back(b % 3 == 0 ? c.L - c.L / 3 : b % 3 == 1 ? 0 : c.L);
  return h;
}

double silu_of(double x) { return x / (1 + std::exp(-x)); }
double silu_slope(double x) { const double s = 1 / (1 + std::exp(-x)); return s * (1 + x * (1 - s)); }

Wanted reference(const Case& c, const Host& h) {
  const Rows r(c);
  const int chunks = (c.L + c.chunk - 1) / c.chunk, size = c.P * c.N;
  Wanted w;
  w.y.assign(static_cast<size_t>(c.B) * c.L * c.H * c.P, 0);
  w.final_state.assign(static_cast<size_t>(c.B) * c.H * size, 0);
  w.states.assign(static_cast<size_t>(c.B) * chunks * c.H * size, 0);
  w.grads.assign(h.rows.size(), 0);
  w.dinitial.assign(w.final_state.size(), 0);
  Doubles dA(c.B * c.H), dbias(c.B * c.H), dD(static_cast<size_t>(c.B) * c.H * c.P);
  Doubles dBh(static_cast<size_t>(c.B) * c.H * c.L * c.N), dCh(dBh.size());
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int b = 0; b < c.B; b++) {
    for (int head = 0; head < c.H; head++) {
      const int g = head * c.G / c.H, end = c.lengths ? h.lengths[b] : c.L;
      Doubles S(static_cast<size_t>(end + 1) * size), dS(size), y0(static_cast<size_t>(end) * c.P), steps(end), decays(end), raws(end);
      const size_t at = (static_cast<size_t>(b) * c.H + head) * size;
      if (c.initial) std::copy_n(h.initial.begin() + at, size, S.begin());
      for (int t = 0; t < end; t++) {
        const double* row = &h.rows[(static_cast<size_t>(b) * c.L + t) * r.pitch];
        double *before = &S[static_cast<size_t>(t) * size], *after = before + size;
        if (t % c.chunk == 0) std::copy_n(before, size, &w.states[((static_cast<size_t>(b) * chunks + t / c.chunk) * c.H + head) * size]);
        raws[t] = row[r.dt + head] + (c.bias ? h.bias[head] : 0);
        const double v = c.softplus ? std::log1p(std::exp(raws[t])) : raws[t];
        steps[t] = std::min(std::max(v, c.low), c.high);
        const bool restart = c.seq && t > 0 && h.seq[b * c.L + t] != h.seq[b * c.L + t - 1];
        decays[t] = restart ? 0 : std::exp(steps[t] * h.A[head]);
        for (int p = 0; p < c.P; p++) {
          const double x = row[r.x + head * c.P + p], X = steps[t] * x;
          double sum = 0;
          for (int n = 0; n < c.N; n++) {
            const double s = decays[t] * before[p * c.N + n] + X * row[r.B + g * c.N + n];
            after[p * c.N + n] = s;
            sum += s * row[r.C + g * c.N + n];
          }
          if (c.skip) sum += h.D[c.by_channel ? head * c.P + p : head] * x;
          y0[t * c.P + p] = sum;
          const double z = row[r.z + head * c.P + p];
          w.y[((static_cast<size_t>(b) * c.L + t) * c.H + head) * c.P + p] = c.z ? sum * silu_of(z) : sum;
        }
      }
      for (int k = (end + c.chunk - 1) / c.chunk; k < chunks; k++)
        std::copy_n(&S[static_cast<size_t>(end) * size], size, &w.states[((static_cast<size_t>(b) * chunks + k) * c.H + head) * size]);
      std::copy_n(&S[static_cast<size_t>(end) * size], size, &w.final_state[at]);
      if (c.dfinal) std::copy_n(h.dfinal.begin() + at, size, dS.begin());
      for (int t = end - 1; t >= 0; t--) {
        const size_t line = static_cast<size_t>(b) * c.L + t;
        const double* row = &h.rows[line * r.pitch];
        double* grad = &w.grads[line * r.pitch];
        const double *before = &S[static_cast<size_t>(t) * size], *after = before + size;
        double *dB = &dBh[((static_cast<size_t>(b) * c.H + head) * c.L + t) * c.N], *dC = &dCh[((static_cast<size_t>(b) * c.H + head) * c.L + t) * c.N];
        double inner = 0, product = 0;
        for (int p = 0; p < c.P; p++) {
          const double x = row[r.x + head * c.P + p], z = row[r.z + head * c.P + p];
          double dyv = c.dy ? h.dy[(line * c.H + head) * c.P + p] : 0;
          if (c.z) {
            grad[r.z + head * c.P + p] = dyv * y0[t * c.P + p] * silu_slope(z);
            dyv *= silu_of(z);
          }
          double dX = 0;
          for (int n = 0; n < c.N; n++) {
            double& d = dS[p * c.N + n];
            d += dyv * row[r.C + g * c.N + n];
            dC[n] += dyv * after[p * c.N + n];
            dB[n] += d * steps[t] * x;
            dX += d * row[r.B + g * c.N + n];
            product += d * decays[t] * before[p * c.N + n];
            d *= decays[t];
          }
          inner += x * dX;
          const double skip = c.skip ? h.D[c.by_channel ? head * c.P + p : head] : 0;
          grad[r.x + head * c.P + p] = steps[t] * dX + skip * dyv;
          dD[(static_cast<size_t>(b) * c.H + head) * c.P + p] += dyv * x;
        }
        const double v = c.softplus ? std::log1p(std::exp(raws[t])) : raws[t];
        double ddt = v >= c.low && v <= c.high ? h.A[head] * product + inner : 0;
        if (c.softplus) ddt /= 1 + std::exp(-raws[t]);
        grad[r.dt + head] = ddt;
        dA[b * c.H + head] += steps[t] * product;
        dbias[b * c.H + head] += ddt;
      }
      std::copy(dS.begin(), dS.end(), w.dinitial.begin() + at);
    }
  }
  w.dA.assign(c.H, 0);
  w.dbias.assign(c.H, 0);
  w.dD.assign(c.by_channel ? c.H * c.P : c.H, 0);
  for (int b = 0; b < c.B; b++) {
    for (int head = 0; head < c.H; head++) {
      w.dA[head] += dA[b * c.H + head];
      w.dbias[head] += dbias[b * c.H + head];
      for (int p = 0; p < c.P; p++) w.dD[c.by_channel ? head * c.P + p : head] += dD[(static_cast<size_t>(b) * c.H + head) * c.P + p];
      const int g = head * c.G / c.H;
      for (int t = 0; t < c.L; t++) {
        double* grad = &w.grads[(static_cast<size_t>(b) * c.L + t) * r.pitch];
        for (int n = 0; n < c.N; n++) {
          grad[r.B + g * c.N + n] += dBh[((static_cast<size_t>(b) * c.H + head) * c.L + t) * c.N + n];
          grad[r.C + g * c.N + n] += dCh[((static_cast<size_t>(b) * c.H + head) * c.L + t) * c.N + n];
        }
      }
    }
  }
  return w;
}
