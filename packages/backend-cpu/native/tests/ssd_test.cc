// The Mamba-2 scan against its recurrence in doubles, one token after the other, and its gradient against that of the
// recurrence in reverse: odd sizes, pitches, groups, chunks, limits, packed and padded rows, absent optionals, and the
// same bits with 1, 2 and 3 threads. scripts/test-native.mjs builds and runs it, plain and with sanitizers.
// Knows the kernels of ssdScan by their packed arguments alone.

#include "sequences.h"

namespace diffmamba {
namespace testing {
namespace {

using namespace DIFFMAMBA_ISA;

struct Sizes {
  int64_t batch, length, heads, headDim, groups, state, chunk;
  int64_t chunks() const { return (length + chunk - 1) / chunk; }
  int64_t matrix() const { return headDim * state; }
};

struct Options {
  bool softplus = maybe();
  /// Limits of dt; half of the time those of the model, which let everything pass.
  double low = maybe() ? 0.2 : 0, high = low > 0 ? 0.9 : HUGE_VAL;
  double limited(double dt) const { return std::fmin(std::fmax(dt, low), high); }
};

struct Inputs {
  Sequences sequences;
  Tensor x, dt, A, B, C, D, z, bias, initial;

  Inputs(const Sizes& s, bool softplus)
      : sequences(s.batch, s.length, maybe(), maybe()),
        x(true, {s.batch, s.length, s.heads, s.headDim}, 2, gap()),
        dt(true, {s.batch, s.length, s.heads}, 1, gap(), softplus ? -3 : 0.05, softplus ? 2 : 1.5),
        A(true, {s.heads}, 1, 0, -3, -0.05),
        B(true, {s.batch, s.length, s.groups, s.state}, 2, gap()),
        C(true, {s.batch, s.length, s.groups, s.state}, 2, gap()),
        D(maybe(), maybe() ? std::vector<int64_t>{s.heads} : std::vector<int64_t>{s.heads, s.headDim}, 1),
        z(maybe(), {s.batch, s.length, s.heads, s.headDim}, 2, gap(), -3, 3),
        bias(maybe(), {s.heads}, 1, 0, 0, 0.3),
        initial(maybe(), {s.batch, s.heads, s.headDim, s.state}, 3) {}

  /// The skip connection of column p of head h.
  double skip(const Sizes& s, int64_t h, int64_t p) const { return D.flat(D.shape.size() == 1 ? h : h * s.headDim + p); }

  Packed& operator>>(Packed& packed) const {
    return packed << x.view() << dt.view() << A.view() << B.view() << C.view() << D.view() << z.view() << bias.view()
                  << initial.view() << sequences.index_view() << sequences.lengths_view();
  }
};

/// What the kernels must give; each in the order of its elements.
struct Expected {
  Doubles y, last, states, dx, ddt, dA, dB, dC, dD, dz, dbias, dinitial;

  explicit Expected(const Sizes& s)
      : y(zeros(s.batch * s.length * s.heads * s.headDim)),
        last(zeros(s.batch * s.heads * s.matrix())),
        states(zeros(s.batch * s.chunks() * s.heads * s.matrix())),
        dx(y),
        ddt(zeros(s.batch * s.length * s.heads)),
        dA(zeros(s.heads)),
        dB(zeros(s.batch * s.length * s.groups * s.state)),
        dC(dB),
        dD(zeros(s.heads * s.headDim)),
        dz(y),
        dbias(dA),
        dinitial(last) {}
};

/// One head of one row: forward, keeping every state, then backward.
void recur(const Sizes& s, const Options& options, const Inputs& in, const Tensor& dy, const Tensor& dfinal, int64_t b,
           int64_t h, Expected& out) {
  const int64_t P = s.headDim, N = s.state, size = P * N, end = in.sequences.end(b);
  const int64_t group = h * s.groups / s.heads * N, at_matrix = (b * s.heads + h) * size;
  const double A = in.A.at(0, h);
  Doubles state = zeros(size), before = zeros(s.length * size), after = before, raw = zeros(s.length), sums = zeros(s.length * P);
  for (int64_t k = 0; k < size; k++) at(state, k) = in.initial.flat(at_matrix + k);
  const auto dt_of = [&](int64_t t) {
    return options.limited(options.softplus ? std::log1p(std::exp(at(raw, t))) : at(raw, t));
  };
  for (int64_t t = 0; t < s.length; t++) {
    const int64_t row = b * s.length + t;
    for (int64_t k = 0; k < size && t % s.chunk == 0; k++) {
      at(out.states, ((b * s.chunks() + t / s.chunk) * s.heads + h) * size + k) = at(state, k);
    }
    if (t >= end) continue;
    at(raw, t) = in.dt.at(row, h) + in.bias.at(0, h);
    for (int64_t p = 0; p < P; p++) {
      const double x = in.x.at(row, h * P + p);
      double sum = in.skip(s, h, p) * x;
      for (int64_t n = 0; n < N; n++) {
        const int64_t k = p * N + n;
        at(before, t * size + k) = in.sequences.begins(b, t) ? 0 : at(state, k);
        at(state, k) = std::exp(dt_of(t) * A) * at(before, t * size + k) + dt_of(t) * x * in.B.at(row, group + n);
        at(after, t * size + k) = at(state, k);
        sum += at(state, k) * in.C.at(row, group + n);
      }
      const double z = in.z.at(row, h * P + p);
      at(sums, t * P + p) = sum;
      at(out.y, (row * s.heads + h) * P + p) = in.z ? sum * z * sigmoid(z) : sum;
    }
  }
  Doubles carry = zeros(size);
  for (int64_t k = 0; k < size; k++) {
    at(out.last, at_matrix + k) = at(state, k);
    at(carry, k) = dfinal.flat(at_matrix + k);
  }
  for (int64_t t = end - 1; t >= 0; t--) {
    const int64_t row = b * s.length + t;
    const double dt = dt_of(t), alpha = std::exp(dt * A);
    double ddt = 0, dalpha = 0;
    for (int64_t p = 0; p < P; p++) {
      const int64_t column = (row * s.heads + h) * P + p;
      const double x = in.x.at(row, h * P + p), z = in.z.at(row, h * P + p), upstream = dy.at(row, h * P + p);
      const double g = upstream * (in.z ? z * sigmoid(z) : 1);
      at(out.dz, column) = upstream * at(sums, t * P + p) * silu_slope(z);
      at(out.dD, h * P + p) += g * x;
      double dX = 0;
      for (int64_t n = 0; n < N; n++) {
        const int64_t k = p * N + n, bc = row * s.groups * N + group + n;
        const double G = at(carry, k) + g * in.C.at(row, group + n);
        at(out.dC, bc) += g * at(after, t * size + k);
        at(out.dB, bc) += dt * x * G;
        dX += G * in.B.at(row, group + n);
        dalpha += G * at(before, t * size + k);
        at(carry, k) = in.sequences.begins(b, t) ? 0 : alpha * G;
      }
      at(out.dx, column) = in.skip(s, h, p) * g + dt * dX;
      ddt += x * dX;
    }
    at(out.dA, h) += dt * alpha * dalpha;
    ddt += A * alpha * dalpha;
    const double free = options.softplus ? std::log1p(std::exp(at(raw, t))) : at(raw, t);
    if (free < options.low || free > options.high) ddt = 0;
    if (options.softplus) ddt *= sigmoid(at(raw, t));
    at(out.ddt, row * s.heads + h) = ddt;
    at(out.dbias, h) += ddt;
  }
  for (int64_t k = 0; k < size; k++) at(out.dinitial, at_matrix + k) = at(carry, k);
}

void test_ssd(const Sizes& s) {
  title = "ssdScan " + std::to_string(s.length) + " tokens, " + std::to_string(s.heads) + " x " + std::to_string(s.headDim) +
          ", state " + std::to_string(s.state) + ", " + std::to_string(s.groups) + " groups, chunks of " + std::to_string(s.chunk);
  const Options options;
  const Inputs in(s, options.softplus);
  const std::vector<int64_t> rows{s.batch, s.length, s.heads, s.headDim}, matrices{s.batch, s.heads, s.headDim, s.state};
  const std::vector<int64_t> group_rows{s.batch, s.length, s.groups, s.state};
  const Tensor y(true, rows, 2, gap()), last(true, matrices, 3);
  const Tensor states(true, {s.batch, s.chunks(), s.heads, s.headDim, s.state}, 3);
  const Tensor dy(numbers.below(4) > 0, rows, 2, gap()), dfinal(maybe(), matrices, 3);
  const Tensor dx(numbers.below(4) > 0, rows, 2, gap()), ddt(maybe(), {s.batch, s.length, s.heads}, 1, gap()), dA(maybe(), {s.heads});
  const Tensor dB(maybe(), group_rows, 2, gap()), dC(maybe(), group_rows, 2, gap()), dD(in.D && maybe(), in.D.shape);
  const Tensor dz(in.z && maybe(), rows, 2, gap()), dbias(maybe(), {s.heads}), dinitial(maybe(), matrices, 3);

  Expected expected(s);
  for (int64_t b = 0; b < s.batch; b++) {
    for (int64_t h = 0; h < s.heads; h++) recur(s, options, in, dy, dfinal, b, h, expected);
  }
  if (in.D.shape.size() == 1) {
    for (int64_t h = 0; h < s.heads; h++) {
      double sum = 0;
      for (int64_t p = 0; p < s.headDim; p++) sum += at(expected.dD, h * s.headDim + p);
      at(expected.dD, h) = sum;
    }
    expected.dD.resize(static_cast<size_t>(s.heads));
  }

  const auto packed_options = [&](Packed& packed) -> Packed& {
    return packed << static_cast<double>(s.chunk) << options.softplus << options.low << options.high;
  };
  Packed forward, backward;
  packed_options((in >> forward) << y.view() << last.view() << states.view());
  run(ssdScan, forward, written({&y, &last, &states}));
  y.matches("y", expected.y, 5e-6);
  last.matches("finalState", expected.last, 5e-6);
  states.matches("states", expected.states, 5e-6);
  (in >> backward) << states.view() << dy.view() << dfinal.view();
  const std::vector<const Tensor*> gradients{&dx, &ddt, &dA, &dB, &dC, &dD, &dz, &dbias, &dinitial};
  for (const Tensor* t : gradients) backward << t->view();
  run(ssdScanBackward, packed_options(backward), written(gradients));
  dx.matches("dx", expected.dx, 1e-5);
  ddt.matches("ddt", expected.ddt, 5e-5);
  dA.matches("dA", expected.dA, 5e-5);
  dB.matches("dB", expected.dB, 1e-5);
  dC.matches("dC", expected.dC, 1e-5);
  dD.matches("dD", expected.dD, 1e-5);
  dz.matches("dz", expected.dz, 1e-5);
  dbias.matches("ddtBias", expected.dbias, 5e-5);
  dinitial.matches("dinitialState", expected.dinitial, 1e-5);
}

void test_small() {
  for (int i = 0; i < 250; i++) {
    const int64_t groups = 1 + numbers.below(3), heads = groups * (1 + numbers.below(4));
    const int64_t length = i % 5 == 0 ? 1 : 1 + numbers.below(50);
    test_ssd({1 + numbers.below(3), length, heads, 1 + numbers.below(20), groups, 1 + numbers.below(20), 1 + numbers.below(60)});
  }
}

void test_large() {
  test_ssd({1, 130, 2, 64, 1, 64, 64});
  test_ssd({2, 97, 5, 33, 5, 129, 32});
  test_ssd({1, 40, 24, 8, 2, 16, 16});
}

}  // namespace
}  // namespace testing
}  // namespace diffmamba

int main() {
  using namespace diffmamba::testing;
  return finish({test_small, test_large});
}
