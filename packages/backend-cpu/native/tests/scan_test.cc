// The convolution and the selective scan against plain loops in doubles, their gradients against those of the same loops
// in reverse: odd sizes, pitches, groups, packed and padded rows, absent optionals, 1, 2 and 3 threads with the same bits.
// scripts/test-native.mjs builds and runs it, plain and with sanitizers.
// Knows the kernels of causalConv1d and selectiveScan.

#include "sequences.h"

namespace diffmamba {
namespace testing {
namespace {

using namespace DIFFMAMBA_ISA;

void test_conv(int64_t B, int64_t L, int64_t C, int64_t W) {
  title = "causalConv1d " + std::to_string(L) + " x " + std::to_string(C) + ", width " + std::to_string(W);
  const bool silu = maybe();
  const Sequences sequences(B, L, maybe(), maybe());
  const Tensor x(true, {B, L, C}, 1, gap()), w(true, {C, W}), bias(maybe(), {C}), initial(maybe(), {B, C, W});
  const Tensor dy(numbers.below(4) > 0, {B, L, C}, 1, gap()), dfinal(maybe(), {B, C, W});
  const Tensor y(true, {B, L, C}, 1, gap()), last(true, {B, C, W});
  const Tensor dx(numbers.below(4) > 0, {B, L, C}, 1, gap()), dw(true, {C, W}), db(maybe(), {C}), dinitial(maybe(), {B, C, W});
  Doubles ey = zeros(B * L * C), elast = zeros(B * C * W), edx = ey, edw = zeros(C * W), edb = zeros(C), ed0 = elast;
  for (int64_t b = 0; b < B; b++) {
    for (int64_t c = 0; c < C; c++) {
      // The input at position p as a sequence from `start` on sees it, and where its gradient goes.
      const auto input = [&](int64_t p, int64_t start) {
        return p >= start ? x.at(b * L + p, c) : start > 0 ? 0 : initial.flat((b * C + c) * W + W + p);
      };
      const auto give = [&](int64_t p, int64_t start, double gradient) {
        if (p >= start) at(edx, (b * L + p) * C + c) += gradient;
        if (p < 0 && start == 0) at(ed0, (b * C + c) * W + W + p) += gradient;
      };
      const int64_t end = sequences.end(b), last_start = sequences.start(b, end - 1);
      for (int64_t t = 0; t < end; t++) {
        const int64_t start = sequences.start(b, t);
        double s = bias.at(0, c);
        for (int64_t k = 0; k < W; k++) s += w.at(c, k) * input(t - W + 1 + k, start);
        at(ey, (b * L + t) * C + c) = silu ? s * sigmoid(s) : s;
        const double ds = dy.at(b * L + t, c) * (silu ? silu_slope(s) : 1);
        at(edb, c) += ds;
        for (int64_t k = 0; k < W; k++) {
          at(edw, c * W + k) += ds * input(t - W + 1 + k, start);
          give(t - W + 1 + k, start, ds * w.at(c, k));
        }
      }
      for (int64_t k = 0; k < W; k++) {
        at(elast, (b * C + c) * W + k) = input(end - W + k, last_start);
        give(end - W + k, last_start, dfinal.flat((b * C + c) * W + k));
      }
    }
  }
  const auto inputs = [&](Packed& packed) -> Packed& {
    return packed << x.view() << w.view() << bias.view() << initial.view() << sequences.index_view()
                  << sequences.lengths_view();
  };
  Packed forward, backward;
  run(causalConv1d, inputs(forward) << y.view() << last.view() << silu, written({&y, &last}));
  inputs(backward) << dy.view() << dfinal.view() << dx.view() << dw.view() << db.view() << dinitial.view() << silu;
  run(causalConv1dBackward, backward, written({&dx, &dw, &db, &dinitial}));
  y.matches("y", ey, 1e-6);
  last.matches("finalState", elast, 0);
  dx.matches("dx", edx, 2e-6);
  dw.matches("dweight", edw, 5e-6);
  db.matches("dbias", edb, 5e-6);
  dinitial.matches("dinitialState", ed0, 2e-6);
}

void test_scan(int64_t B, int64_t L, int64_t D, int64_t N, int64_t G, int64_t chunk, double low_A = -3,
               double high_A = -0.05) {
  title = "selectiveScan " + std::to_string(L) + " x " + std::to_string(D) + ", state " + std::to_string(N) + ", " +
          std::to_string(G) + " groups, chunks of " + std::to_string(chunk);
  const bool softplus = maybe();
  const double low = softplus ? -4 : 0, high = softplus ? 3 : 1;
  const int64_t chunks = (L + chunk - 1) / chunk, size = D * N;
  const Sequences sequences(B, L, maybe(), maybe());
  const Tensor u(true, {B, L, D}, 1, gap()), delta(true, {B, L, D}, 1, gap(), low, high);
  const Tensor A(true, {D, N}, 1, 0, low_A, high_A);
  const Tensor Bs(true, {B, L, G, N}, 2, gap()), Cs(true, {B, L, G, N}, 2, gap()), skip(maybe(), {D});
  const Tensor z(maybe(), {B, L, D}, 1, gap(), -3, 3), bias(maybe(), {D}, 1, 0, 0, 0.5), initial(maybe(), {B, D, N}, 2);
  const Tensor y(true, {B, L, D}, 1, gap()), last(true, {B, D, N}, 2), states(true, {B, chunks, D, N}, 2);
  const Tensor dy(numbers.below(4) > 0, {B, L, D}, 1, gap()), dfinal(maybe(), {B, D, N}, 2);
  const Tensor du(numbers.below(4) > 0, {B, L, D}, 1, gap()), dd(maybe(), {B, L, D}, 1, gap()), dA(maybe(), {D, N});
  const Tensor dB(maybe(), {B, L, G, N}, 2, gap()), dC(maybe(), {B, L, G, N}, 2, gap()), dD(maybe(), {D});
  const Tensor dz(z && maybe(), {B, L, D}, 1, gap()), dbias(maybe(), {D}), d0(maybe(), {B, D, N}, 2);

  Doubles ey = zeros(B * L * D), elast = zeros(B * size), estates = zeros(B * chunks * size), edu = ey, edd = ey, edz = ey;
  Doubles edA = zeros(size), edB = zeros(B * L * G * N), edC = edB, edD = zeros(D), edbias = edD, ed0 = elast;
  for (int64_t b = 0; b < B; b++) {
    const int64_t end = sequences.end(b);
    for (int64_t d = 0; d < D; d++) {
      const int64_t group = d * G / D * N;
      Doubles before = zeros(L * N), h = zeros(N), raw = zeros(L), dt = raw, sums = raw;
      for (int64_t n = 0; n < N; n++) at(h, n) = initial.flat((b * D + d) * N + n);
      for (int64_t t = 0; t < L; t++) {
        for (int64_t n = 0; n < N && t % chunk == 0; n++) {
          at(estates, ((b * chunks + t / chunk) * D + d) * N + n) = at(h, n);
        }
        if (t >= end) continue;
        const int64_t row = b * L + t;
        const double x = delta.at(row, d) + bias.at(0, d);
        at(raw, t) = x;
        at(dt, t) = softplus ? std::log1p(std::exp(x)) : x;
        double sum = skip.at(0, d) * u.at(row, d);
        for (int64_t n = 0; n < N; n++) {
          at(before, t * N + n) = sequences.begins(b, t) ? 0 : at(h, n);
          at(h, n) = std::exp(at(dt, t) * A.at(d, n)) * at(before, t * N + n) +
                     at(dt, t) * Bs.at(row, group + n) * u.at(row, d);
          sum += Cs.at(row, group + n) * at(h, n);
        }
        at(sums, t) = sum;
        at(ey, row * D + d) = z ? sum * z.at(row, d) * sigmoid(z.at(row, d)) : sum;
      }
      Doubles carry = zeros(N);
      for (int64_t n = 0; n < N; n++) {
        at(elast, (b * D + d) * N + n) = at(h, n);
        at(carry, n) = dfinal.flat((b * D + d) * N + n);
      }
      for (int64_t t = end - 1; t >= 0; t--) {
        const int64_t row = b * L + t;
        const double uu = u.at(row, d), step = at(dt, t), gate = z ? z.at(row, d) : 0;
        if (z) at(edz, row * D + d) = dy.at(row, d) * at(sums, t) * silu_slope(gate);
        const double g_y = dy.at(row, d) * (z ? gate * sigmoid(gate) : 1);
        double gB = 0, slope = 0;
        for (int64_t n = 0; n < N; n++) {
          const double alpha = std::exp(step * A.at(d, n)), left = alpha * at(before, t * N + n);
          const double g = Cs.at(row, group + n) * g_y + at(carry, n);
          at(edC, row * G * N + group + n) += g_y * (left + step * uu * Bs.at(row, group + n));
          at(edB, row * G * N + group + n) += g * step * uu;
          gB += g * Bs.at(row, group + n);
          slope += g * A.at(d, n) * left;
          at(edA, d * N + n) += g * step * left;
          at(carry, n) = sequences.begins(b, t) ? 0 : alpha * g;
        }
        slope = (slope + gB * uu) * (softplus ? sigmoid(at(raw, t)) : 1);
        at(edD, d) += g_y * uu;
        at(edbias, d) += slope;
        at(edu, row * D + d) = skip.at(0, d) * g_y + gB * step;
        at(edd, row * D + d) = slope;
      }
      for (int64_t n = 0; n < N; n++) at(ed0, (b * D + d) * N + n) = at(carry, n);
    }
  }
  const auto inputs = [&](Packed& packed) -> Packed& {
    return packed << u.view() << delta.view() << A.view() << Bs.view() << Cs.view() << skip.view() << z.view()
                  << bias.view() << initial.view() << sequences.index_view() << sequences.lengths_view();
  };
  const double chunk_size = static_cast<double>(chunk);
  Packed forward, backward;
  inputs(forward) << y.view() << last.view() << states.view() << softplus << chunk_size;
  run(selectiveScan, forward, {*y.memory, *last.memory, *states.memory});
  y.matches("y", ey, 3e-6);
  last.matches("finalState", elast, 3e-6);
  states.matches("states", estates, 3e-6);
  inputs(backward) << states.view() << dy.view() << dfinal.view();
  const std::vector<const Tensor*> gradients{&du, &dd, &dA, &dB, &dC, &dD, &dz, &dbias, &d0};
  for (const Tensor* t : gradients) backward << t->view();
  run(selectiveScanBackward, backward << softplus << chunk_size, written(gradients));
  du.matches("du", edu, 1e-5);
  dd.matches("ddelta", edd, 1e-5);
  dA.matches("dA", edA, 1e-5);
  dB.matches("dB", edB, 1e-5);
  dC.matches("dC", edC, 1e-5);
  dD.matches("dD", edD, 1e-5);
  dz.matches("dz", edz, 1e-5);
  dbias.matches("ddeltaBias", edbias, 1e-5);
  d0.matches("dinitialState", ed0, 1e-5);
}

}  // namespace
}  // namespace testing
}  // namespace diffmamba

int main() {
  using namespace diffmamba;
  using namespace diffmamba::testing;
  if (!pool_start(3)) return 1;
  for (int i = 0; i < 200; i++) test_conv(1 + numbers.below(3), 1 + numbers.below(30), 1 + numbers.below(150), 1 + numbers.below(6));
  for (int i = 0; i < 250; i++) {
    const int64_t groups = 1 + numbers.below(3), channels = groups + numbers.below(i % 5 == 0 ? 300 : 50);
    test_scan(1 + numbers.below(3), 1 + numbers.below(40), channels, 1 + numbers.below(20), groups, 1 + numbers.below(50));
  }
  test_scan(1, 9, 70, 256, 1, 4);
  test_scan(1, 20, 1100, 3, 1, 8);
  // Decays that are less than any float; growth.
  for (int i = 0; i < 8; i++) test_scan(2, 12, 40, 5, 1, 4, -400, 0.5);
  printf("%d of %d checks passed\n", checks - failures, checks);
  return failures == 0 ? 0 : 1;
}
